//! Searches and evaluations: the trainer that runs them, specs that take seconds, and who watches.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::profile_folder;
use crate::http::Download;
use crate::server::Server;
use crate::skipped::skip;
use crate::wait_for;

/// The trainer under test: `PBA_TRAINER`, or else `pba-trainer` of the profile that the tests are
/// built with. None when this build leaves it out (`make test TRAINER=0`, which sets
/// `PBA_TEST_TRAINER=0`); the test is then skipped.
///
/// # Panics
/// When it should be there, and is not.
#[track_caller]
pub fn trainer() -> Option<String> {
    if std::env::var_os("PBA_TEST_TRAINER").is_some_and(|value| value == "0") {
        skip("this build has no trainer (TRAINER=0)");
        return None;
    }
    let configured = std::env::var_os("PBA_TRAINER").map(PathBuf::from);
    let path = configured.unwrap_or_else(|| profile_folder().join("pba-trainer"));
    let path = std::path::absolute(path).expect("the current directory is known");
    assert!(
        path.exists(),
        "{} is missing: `make test` builds it before it runs the tests; `make test TRAINER=0` does without it",
        path.display()
    );
    Some(path.into_os_string().into_string().expect("the trainer's path is text"))
}

/// A shell script that stands in for the trainer, or before it. It may keep files in `$here`, and
/// `idle` until this is dropped: so that no test leaves a process behind, whatever became of its
/// server.
pub struct Script {
    folder: TempDir,
    path: String,
}

const PREAMBLE: &str = r#"#!/bin/sh
here=$(dirname "$0")
idle() { while [ -e "$0" ]; do sleep 0.05; done; }"#;

impl Script {
    /// A script of lines for `sh`, given what the trainer is given.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn new(lines: &str) -> Script {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let path = folder.path().join("trainer").into_os_string().into_string().expect("paths are text");
        // Written by a process of its own: a file that this one has open for writing is inherited
        // by children that other tests start at the same moment, and would be too busy to run.
        let mut install = Command::new("install")
            .args(["-m", "755", "/dev/stdin", &path])
            .stdin(Stdio::piped())
            .spawn()
            .expect("install is there: it comes with the shell");
        let mut stdin = install.stdin.take().expect("it is piped");
        writeln!(stdin, "{PREAMBLE}\n{lines}").expect("the script is taken");
        drop(stdin);
        assert!(install.wait().expect("it ends").success());
        Script { folder, path }
    }

    /// A script that finds every spec right and no GPU, and runs searches as these lines do.
    pub fn trains(lines: &str) -> Script {
        let answers = r#"case " $* " in
            *' --check '*) exit 0;;
            ' devices ') echo '{"devices":[{"device":"cpu"}]}'; exit 0;;
        esac"#;
        Script::new(&format!("{answers}\n{lines}"))
    }

    /// A trainer that never gets anywhere, until it is told to stop.
    pub fn idles() -> Script {
        Script::trains("trap 'exit 3' TERM; idle")
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A file beside it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A search of 4 members that takes a second or two, with some fields changed.
pub fn spec(changes: Value) -> Value {
    let mut spec = json!({
        "name": "small", "model": "tiny", "population": 4, "epochs": 12, "perturbation_interval": 2,
        "train_size": 128, "val_size": 128, "batch_size": 64, "lr": 0.02, "seed": 11, "device": "cpu",
    });
    for (field, value) in changes.as_object().expect("changes are an object") {
        spec[field] = value.clone();
    }
    spec
}

/// An evaluation that takes a second or two, with some fields changed.
pub fn evaluation(changes: Value) -> Value {
    let mut spec = json!({
        "name": "small", "model": "tiny", "epochs": 8, "train_size": 640, "lr": 0.02, "seed": 11, "device": "cpu",
        "schedule": "cifar10-pba",
    });
    for (field, value) in changes.as_object().expect("changes are an object") {
        spec[field] = value.clone();
    }
    spec
}

/// A comparison that takes a second or two, with some fields changed.
pub fn comparison(changes: Value) -> Value {
    let mut spec = json!({
        "name": "small", "model": "tiny", "epochs": 4, "train_size": 256, "batch_size": 64, "lr": 0.02, "seed": 11,
        "device": "cpu", "arms": ["none", "cifar10-pba", "random:1"], "seeds": 2,
    });
    for (field, value) in changes.as_object().expect("changes are an object") {
        spec[field] = value.clone();
    }
    spec
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its id: the number of a line of the journal.
    pub id: Option<usize>,
    /// Its kind.
    pub kind: String,
    /// Its data, as it came.
    pub data: String,
}

impl Event {
    /// Its data as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

/// A watcher of a search: server-sent events as they are on the wire.
pub struct Watcher {
    download: BufReader<Download>,
    /// The events in good order, with nothing after the last.
    pub ended_well: bool,
}

impl Iterator for Watcher {
    type Item = Event;

    /// The next event; none when the server ends them, or the connection breaks.
    fn next(&mut self) -> Option<Event> {
        let (mut id, mut kind, mut data) = (None, String::new(), None);
        loop {
            let mut line = String::new();
            match self.download.read_line(&mut line) {
                Ok(0) => {
                    self.ended_well = id.is_none() && kind.is_empty() && data.is_none();
                    return None;
                }
                Ok(_) => {}
                Err(_) => return None,
            }
            match line.trim_end_matches('\n').split_once(": ") {
                Some(("id", value)) => {
                    let (line, _) = value.split_once('-').expect("an id is a line and a time");
                    id = Some(line.parse().expect("lines are numbers"));
                }
                Some(("event", value)) => value.clone_into(&mut kind),
                Some(("data", value)) => {
                    assert!(data.replace(value.to_owned()).is_none(), "two lines of data")
                }
                _ if line == "\n" => {
                    if let Some(data) = data.take() {
                        return Some(Event { id, kind, data });
                    }
                }
                _ => assert!(line.starts_with(':'), "not a line of an event: {line:?}"),
            }
        }
    }
}

/// The events in a journal, one in a line: without the number and the checksum of each. A line that is not whole,
/// or has another number, stays as it is.
pub fn events_in(journal: &str) -> String {
    let event = |(at, line): (usize, &str)| match line.rsplit_once(",\"seq\":") {
        Some((event, rest))
            if rest.starts_with(&format!("{},\"xxh3\":\"", at + 1)) && rest.ends_with("\"}\n") =>
        {
            format!("{event}}}\n")
        }
        _ => line.to_owned(),
    };
    journal.split_inclusive('\n').enumerate().map(event).collect()
}

impl Server {
    /// Starts a server whose searches run in a trainer.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn with_trainer(trainer: &str) -> Server {
        Server::start(&["--trainer", trainer])
    }

    /// Kills this server with `-9`, and starts another on its data.
    ///
    /// # Panics
    /// When that does not start.
    #[track_caller]
    pub fn killed_and_restarted(mut self, trainer: &str) -> Server {
        self.process.signal("KILL");
        self.process.wait();
        Server::start_on(self.data(), &["--trainer", trainer])
    }

    /// Puts a search in line, and answers its id.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn start_search(&self, spec: &Value) -> String {
        self.start_job("searches", spec)
    }

    /// Puts a job of a kind in line, and answers its id.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn start_job(&self, jobs: &str, spec: &Value) -> String {
        let answer = self.send("POST", &format!("/v1/{jobs}"), spec.to_string().as_bytes());
        assert_eq!(answer.status, 202, "{}", answer.text());
        let id = answer.json()["id"].as_str().expect("a job has an id").to_owned();
        assert_eq!(answer.header("location"), Some(&*format!("/v1/{jobs}/{id}")));
        id
    }

    /// What the server says about a search.
    ///
    /// # Panics
    /// When it does not know it.
    #[track_caller]
    pub fn search(&self, id: &str) -> Value {
        self.job("searches", id)
    }

    /// What the server says about a job.
    ///
    /// # Panics
    /// When it does not know it.
    #[track_caller]
    pub fn job(&self, jobs: &str, id: &str) -> Value {
        let answer = self.get(&format!("/v1/{jobs}/{id}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Waits until a search is in a state.
    ///
    /// # Panics
    /// When it ends in another one, or does not get there.
    #[track_caller]
    pub fn wait_for_state(&self, id: &str, state: &str) -> Value {
        self.wait_for_job("searches", id, state)
    }

    /// Waits until a job is in a state.
    ///
    /// # Panics
    /// When it ends in another one, or does not get there.
    #[track_caller]
    pub fn wait_for_job(&self, jobs: &str, id: &str, state: &str) -> Value {
        let ends = ["done", "failed", "cancelled"];
        wait_for(&format!("{jobs}/{id} to be {state}"), || {
            let job = self.job(jobs, id);
            let now = job["state"].as_str().expect("a job has a state");
            assert!(now == state || !ends.contains(&now), "{id} is {now}, not {state}: {}", job["error"]);
            (now == state).then_some(job)
        })
    }

    /// Watches a search; with the id of the last event seen, from the one after it.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn events(&self, id: &str, last_event_id: Option<usize>) -> Watcher {
        self.events_of("searches", id, last_event_id)
    }

    /// Watches a job, likewise.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn events_of(&self, jobs: &str, id: &str, last_event_id: Option<usize>) -> Watcher {
        let target = format!("/v1/{jobs}/{id}/events");
        let last = last_event_id.map(|id| id.to_string());
        let headers: Vec<_> = last.iter().map(|last| ("last-event-id", last.as_str())).collect();
        let download = Download::open(self.address(), "GET", &target, &headers, b"").expect("it answers");
        assert_eq!(download.status, 200);
        assert!(download.headers.contains(&("content-type".to_owned(), "text/event-stream".to_owned())));
        Watcher { download: BufReader::new(download), ended_well: false }
    }

    /// The folder of a search.
    pub fn search_folder(&self, id: &str) -> PathBuf {
        self.job_folder("searches", id)
    }

    /// The folder of a job.
    pub fn job_folder(&self, jobs: &str, id: &str) -> PathBuf {
        self.data().path().join(jobs).join(id)
    }

    /// The events in the journal of a search on disk, one in a line, as they are told.
    pub fn journal(&self, id: &str) -> String {
        self.journal_of("searches", id)
    }

    /// The events in the journal of a job on disk, likewise.
    pub fn journal_of(&self, jobs: &str, id: &str) -> String {
        let path = self.job_folder(jobs, id).join("events.jsonl");
        events_in(&String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()))
    }

    /// Waits until the journal of a search has so many lines.
    ///
    /// # Panics
    /// When they do not come.
    #[track_caller]
    pub fn wait_for_lines(&self, id: &str, lines: usize) {
        self.wait_for_lines_of("searches", id, lines);
    }

    /// Waits until the journal of a job has so many lines.
    ///
    /// # Panics
    /// When they do not come.
    #[track_caller]
    pub fn wait_for_lines_of(&self, jobs: &str, id: &str, lines: usize) {
        wait_for(&format!("{lines} lines in the journal of {jobs}/{id}"), || {
            (self.journal_of(jobs, id).lines().count() >= lines).then_some(())
        });
    }

    /// The trainer that works on a search of this server; waits for it to be there.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn trainer_of(&self, id: &str) -> u32 {
        self.trainer_in(&self.search_folder(id))
    }

    /// The trainer that works in a folder; waits for it to be there.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn trainer_in(&self, folder: &Path) -> u32 {
        wait_for("a trainer", || trainers_in(folder).first().copied())
    }
}

/// Processes of trainers that work in a folder or below it. What a trainer has forked off, to start
/// another program, looks like one for a moment and is none.
pub fn trainers_in(folder: &Path) -> Vec<u32> {
    let is_below = |arguments: &[u8]| {
        let mut arguments = arguments.split(|&byte| byte == 0);
        arguments.any(|argument| argument == b"--dir")
            && arguments
                .next()
                .is_some_and(|dir| Path::new(std::ffi::OsStr::from_bytes(dir)).starts_with(folder))
    };
    let processes = std::fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let numbers = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    // The arguments of a process that has ended, and is not waited for yet, are empty.
    let found: Vec<u32> = numbers
        .filter(|number: &u32| {
            std::fs::read(format!("/proc/{number}/cmdline")).is_ok_and(|arguments| is_below(&arguments))
        })
        .collect();
    let is_forked_off = |number: &u32| parent(*number).is_some_and(|parent| found.contains(&parent));
    found.iter().filter(|number| !is_forked_off(number)).copied().collect()
}

/// The process that started one; none when it has ended.
fn parent(process: u32) -> Option<u32> {
    // "number (name) state parent ...", where the name may hold anything.
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Checks that no trainer is left in a folder. One may still be ending.
///
/// # Panics
/// When one stays.
#[track_caller]
pub fn assert_no_trainer(folder: &Path) {
    wait_for("the last trainer to end", || trainers_in(folder).is_empty().then_some(()));
}

/// Sends a signal by name to a process; it may be gone.
pub fn signal(process: u32, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {process} 2>/dev/null")]).status();
    status.expect("sh runs");
}
