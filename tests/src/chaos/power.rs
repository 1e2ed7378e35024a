//! Power that fails: what was written after the last sync is gone.

use std::sync::OnceLock;

use crate::chaos::daemon::{Daemon, Launch};
use crate::chaos::dice::Dice;
use crate::chaos::fault::{Fault, Inject, Kind, outcome};
use crate::chaos::harm::{Column, Harm, Outcome, Survived, harness};
use crate::chaos::ledger::content;
use crate::chaos::searching::{self, Learned, plain, undisturbed};
use crate::chaos::strace;
use crate::power_loss::{Loss, Trace};
use crate::search::{Script, trainer};
use crate::server::{Process, Server};

pub(super) fn kind() -> Kind {
    Kind {
        name: "power",
        title: "power loss (writes after the last sync dropped)",
        times: 60,
        few: 4,
        at_once: 2,
        open: || Ok(Box::new(Stage::open()?)),
    }
}

/// Servers that were used while all that they did to files was written down.
struct Stage {
    script: Script,
    changes: OnceLock<Result<Traced, Harm>>,
    search: OnceLock<Result<(Traced, Learned), Harm>>,
}

struct Traced {
    trace: Trace,
    crashes: usize,
}

/// A change that is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Add(&'static str),
    Remove(&'static str),
    Queue(&'static str),
    Cancel(&'static str),
    Resume(&'static str),
}

const CHANGES: [Change; 16] = [
    Change::Add("first"),
    Change::Queue("one"),
    Change::Add("second"),
    Change::Cancel("one"),
    Change::Remove("first"),
    Change::Queue("two"),
    Change::Add("third"),
    Change::Queue("three"),
    Change::Cancel("three"),
    Change::Resume("one"),
    Change::Cancel("two"),
    Change::Remove("third"),
    Change::Resume("three"),
    Change::Add("fourth"),
    // So that no trainer ends at the same time as the server.
    Change::Cancel("one"),
    Change::Cancel("three"),
];

impl Change {
    fn subject(self) -> &'static str {
        match self {
            Change::Add(name) | Change::Remove(name) => name,
            Change::Queue(name) | Change::Cancel(name) | Change::Resume(name) => name,
        }
    }

    fn make(self, server: &Daemon) -> Result<(), Harm> {
        let name = self.subject();
        let (schedule, search) = (format!("/v1/schedules/{name}"), format!("/v1/searches/{name}"));
        let answer = match self {
            Change::Add(_) => server.send("PUT", &schedule, content(name).as_bytes()),
            Change::Remove(_) => server.send("DELETE", &schedule, b""),
            Change::Queue(_) => server.send("POST", "/v1/searches", plain(name).to_string().as_bytes()),
            Change::Cancel(_) => server.send("DELETE", &search, b""),
            Change::Resume(_) => server.send("POST", &format!("{search}/resume"), b""),
        };
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
            other => Err(harness!("{self:?}: {other:?}")),
        }
    }

    /// Checks that it lasts.
    fn check(self, server: &Daemon) -> Result<(), Harm> {
        let name = self.subject();
        let kind = if matches!(self, Change::Add(_) | Change::Remove(_)) { "schedules" } else { "searches" };
        let answer = server.get(&format!("/v1/{kind}/{name}"));
        let answer = answer.map_err(|error| Harm::new(Column::Dead, error))?;
        let is_so = match (self, answer.status) {
            (Change::Remove(_), status) => status == 404,
            (Change::Add(_) | Change::Queue(_), status) => status == 200,
            (Change::Cancel(_), 200) => answer.json()["state"] == "cancelled",
            (Change::Resume(_), 200) => answer.json()["state"] != "cancelled",
            _ => false,
        };
        match is_so {
            true => Ok(()),
            false => {
                Err(Harm::new(Column::Undone, format!("{self:?}: {}: {}", answer.status, answer.text())))
            }
        }
    }
}

/// Sent after the change with a number: whatever was on disk by then has been acknowledged.
fn mark(number: usize) -> String {
    format!("acknowledged-{number:03}")
}

impl Stage {
    fn open() -> Result<Stage, Harm> {
        Ok(Stage { script: Script::idles(), changes: OnceLock::new(), search: OnceLock::new() })
    }
}

/// Uses a server while it is traced.
fn traced(trainer: &str, work: impl FnOnce(&mut Daemon) -> Result<(), Harm>) -> Result<Traced, Harm> {
    let launch = Launch::new(&["--trainer", trainer]);
    let folder = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
    let file = folder.path().join("trace");
    let before = Trace::begin(launch.data.path(), &["datasets", "lock"]);
    let flags: Vec<&str> = launch.flags.iter().map(String::as_str).collect();
    let command = Server::command(launch.data.path(), &flags);
    let process = Process::run(Trace::command(&command, &file));
    let mut server = launch.listening(process).ok_or_else(|| harness!("a traced server does not start"))?;
    server.ready()?;
    work(&mut server)?;
    server.process.signal("TERM");
    server.process.wait();
    let trace = before.read(&file);
    let crashes = trace.crashes().count();
    Ok(Traced { trace, crashes })
}

impl Inject for Stage {
    fn inject(&self, fault: Fault) -> Outcome {
        let mut dice = fault.dice();
        if let Some(missing) = strace::missing() {
            return outcome("a power failure", || Ok(Survived::NotInjected(missing)));
        }
        match trainer() {
            Some(trainer) if fault.index % 3 == 1 => self.in_a_search(&mut dice, &trainer),
            _ => self.between_changes(&mut dice),
        }
    }
}

impl Stage {
    fn between_changes(&self, dice: &mut Dice) -> Outcome {
        let loss = dice.pick(&[Loss::Everything, Loss::Contents]);
        let part = dice.below(1 << 20) as usize;
        outcome(format!("{loss:?} lost between changes, {part} of 2^20 on the way"), || {
            let traced = self.changes.get_or_init(|| {
                traced(self.script.path(), |server| {
                    for (number, change) in CHANGES.iter().enumerate() {
                        change.make(server)?;
                        // Nothing there: its name is in the answer.
                        let _ = server.get(&format!("/v1/schedules/{}", mark(number)));
                    }
                    searching::ended(server, "one")?;
                    searching::ended(server, "three")?;
                    Ok(())
                })
            });
            let traced = traced.as_ref().map_err(Clone::clone)?;
            let at = (part * traced.crashes) >> 20;
            let crash = traced.trace.crashes().nth(at).ok_or_else(|| harness!("no call {at}"))?;
            let acknowledged = (0..CHANGES.len()).take_while(|&number| crash.sent(&mark(number))).count();
            let launch = Launch::new(&["--trainer", self.script.path()]);
            crash.write(launch.data.path(), loss);
            let mut server = launch.start()?;
            for (number, change) in CHANGES[..acknowledged].iter().enumerate() {
                // The next change may have been made, and those before it are undone by those after them.
                let is_last = !CHANGES[number + 1..]
                    .iter()
                    .take(acknowledged - number)
                    .any(|later| later.subject() == change.subject());
                if is_last {
                    let seen = format!("after {}", crash.after);
                    change
                        .check(&server)
                        .map_err(|harm| Harm { seen: format!("{}, {seen}", harm.seen), ..harm })?;
                }
            }
            server.healthy()?;
            server.kill();
            Ok(Survived::Unnoticed)
        })
    }

    fn in_a_search(&self, dice: &mut Dice, trainer: &str) -> Outcome {
        let loss = dice.pick(&[Loss::Everything, Loss::Contents]);
        let part = dice.below(1 << 20) as usize;
        outcome(format!("{loss:?} lost in a search, {part} of 2^20 on the way"), || {
            let traced = self.search.get_or_init(|| {
                let mut learned = Err(harness!("no search"));
                let traced = traced(trainer, |server| {
                    learned = undisturbed(server);
                    searching::start(server, "powerless")?;
                    let _ = server.get(&format!("/v1/schedules/{}", mark(0)));
                    let ended = searching::ended(server, "powerless")?;
                    let _ = server.get(&format!("/v1/schedules/{}", mark(1)));
                    match ended["state"] == "done" {
                        true => Ok(()),
                        false => Err(harness!("an undisturbed search: {ended}")),
                    }
                })?;
                Ok((traced, learned?))
            });
            let (traced, learned) = traced.as_ref().map_err(Clone::clone)?;
            let at = (part * traced.crashes) >> 20;
            let crash = traced.trace.crashes().nth(at).ok_or_else(|| harness!("no call {at}"))?;
            let (queued, done) = (crash.sent(&mark(0)), crash.sent(&mark(1)));
            let launch = Launch::new(&["--trainer", trainer]);
            crash.write(launch.data.path(), loss);
            let mut server = launch.start()?;
            let search = server.get("/v1/searches/powerless");
            let search = search.map_err(|error| Harm::new(Column::Dead, error))?;
            if search.status != 200 && !queued {
                return Ok(Survived::Unnoticed);
            }
            if search.status != 200 {
                let seen = format!("the search was queued, after {}: {}", crash.after, search.text());
                return Err(Harm::new(Column::Undone, seen));
            }
            if done && search.json()["state"] != "done" {
                return Err(Harm::new(Column::Undone, format!("the search was done: {}", search.text())));
            }
            searching::finish(&mut server, "powerless", learned)
        })
    }
}
