//! Searches that are broken, and one that is not, which says what all must learn.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use serde_json::{Value, json};

use crate::chaos::daemon::{Daemon, Launch};
use crate::chaos::fault::HANG;
use crate::chaos::harm::{Column, Harm, Survived, harness};
use crate::chaos::strace;
use crate::search::{Script, events_in, spec, trainer};

/// What a search learned: its journal, and the digest of its schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Learned {
    journal: String,
    pub(crate) schedule: String,
}

/// A server whose trainer can be tampered with. One search is broken at a time.
pub(crate) struct Searches {
    script: Script,
    state: Mutex<Option<Daemon>>,
    launch: Launch,
}

/// The spec of every search, which takes a second or two.
pub(crate) fn plain(name: &str) -> Value {
    spec(json!({ "name": name, "epochs": 8 }))
}

impl Searches {
    /// None when this build has no trainer.
    pub(crate) fn new() -> Option<Searches> {
        let trainer = trainer()?;
        let lines = format!(
            "if [ \"$1\" = search ] && [ -e \"$here/fault\" ]; then\n\
             fault=$(cat \"$here/fault\"); rm \"$here/fault\"\n\
             exec strace -D -f -qq -o \"$here/log\" -e $fault '{trainer}' \"$@\"\nfi\n\
             exec '{trainer}' \"$@\""
        );
        let script = Script::trains(&lines);
        let launch = Launch::new(&["--trainer", script.path()]);
        Some(Searches { script, state: Mutex::new(None), launch })
    }

    /// Does something with the server, which is started if need be. If it did harm, the next one gets another.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Daemon) -> Result<T, Harm>) -> Result<T, Harm> {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| {
            self.state.clear_poison();
            poisoned.into_inner()
        });
        let mut server = match state.take() {
            Some(server) => server,
            None => self.launch.start()?,
        };
        let done = work(&mut server)?;
        *state = Some(server);
        Ok(done)
    }

    /// Runs a search whose trainer has a fault in its system calls the first time that it is started: an
    /// expression for strace, and further arguments of it.
    pub(crate) fn with_fault(&self, name: &str, fault: &str) -> Result<Survived, Harm> {
        self.with(|server| {
            let undisturbed = undisturbed(server)?;
            let _ = std::fs::remove_file(self.script.file("log"));
            std::fs::write(self.script.file("fault"), fault).map_err(|error| harness!("{error}"))?;
            start(server, name)?;
            let ended = finish(server, name, &undisturbed)?;
            let log = std::fs::read(self.script.file("log")).unwrap_or_default();
            let killed = String::from_utf8_lossy(&log).contains("killed by SIGKILL");
            match killed || strace::injected(&self.log()) > 0 {
                true => Ok(ended),
                false => Ok(Survived::NotInjected("the trainer made fewer such calls".to_owned())),
            }
        })
    }

    fn log(&self) -> PathBuf {
        self.script.file("log")
    }

    /// Where the folders of its searches are.
    pub(crate) fn folder(&self) -> PathBuf {
        self.launch.data.path().join("searches")
    }
}

/// Puts a search in line.
pub(crate) fn start(server: &Daemon, name: &str) -> Result<(), Harm> {
    let body = plain(name).to_string();
    match server.send("POST", "/v1/searches", body.as_bytes()) {
        Ok(answer) if answer.status == 202 => Ok(()),
        other => Err(harness!("no search: {other:?}")),
    }
}

/// Waits until a search is done, failed or cancelled, and says which.
pub(crate) fn ended(server: &mut Daemon, name: &str) -> Result<Value, Harm> {
    let begun = Instant::now();
    loop {
        server.alive()?;
        let answer = server.get(&format!("/v1/searches/{name}"));
        let answer = answer.map_err(|error| Harm::new(Column::Dead, error))?;
        match answer.status {
            200 => {}
            404 => return Err(Harm::new(Column::Undone, format!("search {name} is gone"))),
            status => return Err(Harm::new(Column::Other, format!("search {name}: {status}"))),
        }
        let search = answer.json();
        if ["done", "failed", "cancelled"].iter().any(|state| search["state"] == *state) {
            return Ok(search);
        }
        if begun.elapsed() > 2 * HANG {
            return Err(Harm::new(Column::Hung, format!("search {name} is {}", search["state"])));
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// What a search learned that is done.
pub(crate) fn learned(server: &Daemon, name: &str) -> Result<Learned, Harm> {
    let journal = server.data.path().join("searches").join(name).join("events.jsonl");
    let journal = std::fs::read_to_string(journal).map_err(|error| Harm::new(Column::Lost, error))?;
    let schedule = digest(server, name)?;
    // Without the checksum of each, in which the name is.
    Ok(Learned { journal: events_in(&journal).replace(name, "NAME"), schedule })
}

/// The digest of the schedule that a search learned.
pub(crate) fn digest(server: &Daemon, name: &str) -> Result<String, Harm> {
    let schedules = server.get("/v1/schedules").map_err(|error| Harm::new(Column::Dead, error))?.json();
    let found = schedules["schedules"].as_array().into_iter().flatten();
    let found = found.filter(|schedule| schedule["name"] == name).map(|schedule| schedule["digest"].as_str());
    found.flatten().next().map(str::to_owned).ok_or_else(|| {
        Harm::new(Column::Undone, format!("search {name} is done, and its schedule is not there"))
    })
}

/// Waits for the end of a search. One that fails may be resumed, and has to learn what it must then.
pub(crate) fn finish(server: &mut Daemon, name: &str, undisturbed: &Learned) -> Result<Survived, Harm> {
    let mut survived = Survived::Unnoticed;
    for _ in 0..3 {
        let search = ended(server, name)?;
        if search["state"] == "done" {
            let learned = learned(server, name)?;
            return match learned == *undisturbed {
                true => Ok(survived),
                false => Err(Harm::new(
                    Column::Other,
                    format!("search {name} learned something else: {}", difference(&learned, undisturbed)),
                )),
            };
        }
        survived = Survived::Refused(format!("{}: {}", search["state"], search["error"]));
        match server.send("POST", &format!("/v1/searches/{name}/resume"), b"") {
            Ok(answer) if answer.status == 202 => {}
            // Another one may be taken up, or not; it says so.
            Ok(_) => return Ok(survived),
            Err(error) => return Err(Harm::new(Column::Dead, error)),
        }
    }
    Ok(survived)
}

fn difference(learned: &Learned, undisturbed: &Learned) -> String {
    let lines = learned.journal.lines().zip(undisturbed.journal.lines()).enumerate();
    match lines.into_iter().find(|(_, (found, expected))| found != expected) {
        Some((number, (found, expected))) => format!("line {number} is {found}, not {expected}"),
        None => format!(
            "{} lines, not {}; schedule {}, not {}",
            learned.journal.lines().count(),
            undisturbed.journal.lines().count(),
            learned.schedule,
            undisturbed.schedule
        ),
    }
}

/// What a search learns that is not disturbed. It is run once.
pub(crate) fn undisturbed(server: &mut Daemon) -> Result<Learned, Harm> {
    static LEARNED: OnceLock<Learned> = OnceLock::new();
    if let Some(learned) = LEARNED.get() {
        return Ok(learned.clone());
    }
    start(server, "undisturbed")?;
    let search = ended(server, "undisturbed")?;
    if search["state"] != "done" {
        return Err(harness!("an undisturbed search: {search}"));
    }
    Ok(LEARNED.get_or_init(|| learned(server, "undisturbed").expect("it is done")).clone())
}
