//! One bit that is another, on its way, in what is no stream of samples: a request, a document, an event.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tempfile::TempDir;

use crate::chaos::daemon::{Daemon, Launch, tail, wait};
use crate::chaos::dice::Dice;
use crate::chaos::fault::{Fault, Inject, Kind, outcome};
use crate::chaos::harm::{Column, Harm, Outcome, Survived, harness};
use crate::chaos::oracle::{Order, shapes};
use crate::chaos::readers::Reading;
use crate::chaos::searching;
use crate::chaos::wire::{Place, Trouble, TroubleKind, Wire};
use crate::search::trainer;
use crate::server::Process;

/// The search that is looked at.
const WATCHED: &str = "watched";

pub(super) fn kind() -> Kind {
    Kind {
        name: "exchange",
        title: "bit flips in requests, documents and events",
        times: 60,
        few: 6,
        at_once: 2,
        open: || Stage::open().map(|stage| Box::new(stage) as Box<dyn Inject>),
    }
}

struct Stage {
    server: Daemon,
    dataset: pba_datasets::Dataset,
    /// Where commands run.
    folder: TempDir,
    /// Whether there is a search to watch, which is done.
    has_search: bool,
    /// One change at a time, so that what it did is seen.
    changing: Mutex<()>,
}

/// What a command said on standard output, and whether it succeeded; its last words if not.
struct Said {
    output: String,
    error: Option<String>,
}

impl Stage {
    fn open() -> Result<Stage, Harm> {
        let trainer = trainer();
        let flags: Vec<&str> = trainer.iter().flat_map(|trainer| ["--trainer", trainer]).collect();
        let mut server = Launch::new(&flags).start()?;
        if trainer.is_some() {
            searching::start(&server, WATCHED)?;
            searching::ended(&mut server, WATCHED)?;
        }
        let has_search = trainer.is_some();
        let dataset = shapes(server.data.path());
        let folder = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
        Ok(Stage { server, dataset, folder, has_search, changing: Mutex::default() })
    }

    /// Before the server: a proxy that flips a bit after so many bytes, of the request or of the answer.
    fn wire(&self, is_asked: bool, after: u64, bit: u8) -> Wire {
        let wire = Wire::start(None, Place::Tcp(self.server.address));
        let kind = if is_asked { TroubleKind::FlipAsked(bit) } else { TroubleKind::Flip(bit) };
        wire.plan([Trouble { after, kind }]);
        wire
    }

    /// Runs a client command of `pba` to its end.
    fn pba(&self, url: &str, arguments: &[&str]) -> Result<Said, Harm> {
        let mut command = crate::binary::command(self.folder.path(), arguments);
        command.env("PBA_SERVER", url);
        let mut process = Process::run(command);
        wait("the end of a command", || !process.is_running())?;
        let status = process.wait();
        let output = std::iter::from_fn(|| process.line()).map(|line| line + "\n").collect();
        let error = (!status.success()).then(|| tail(&process.stderr()));
        if status.code().is_none() {
            return Err(Harm::new(Column::Dead, format!("{arguments:?}: {status}")));
        }
        Ok(Said { output, error })
    }

    /// A stream that is asked for in damaged words is the one that was meant, or none.
    fn of_a_stream(&self, dice: &mut Dice) -> Outcome {
        let (after, bit) = (dice.below(330), dice.below(8) as u8);
        let query = format!(
            "split=test&shuffle=true&schedule=cifar10-pba&seed={}&batch_size=20&shard={}/20&base=pad_crop:4,flip",
            dice.below(1 << 40),
            dice.below(20)
        );
        outcome(format!("bit {bit} of byte {after} of the request of a stream"), || {
            let order = Order::new(&self.dataset, 150, &query)?;
            let wire = self.wire(true, after, bit);
            let reading = Reading::any(dice, [wire.url()]).stalling(std::time::Duration::from_secs(3));
            effective(&wire, reading.read(&order)?)
        })
    }

    /// What is read is what is there, or an error.
    fn of_a_document(&self, dice: &mut Dice) -> Outcome {
        let documents = [
            &["schedule", "show", "cifar10-pba", "--json"][..],
            &["schedule", "export", "svhn-pba"],
            &["dataset", "list"],
            &["dataset", "show", "shapes"],
            &["search", "show", WATCHED, "--json"],
            &["search", "list", "--json"],
        ];
        let known = if self.has_search { &documents[..] } else { &documents[..4] };
        let (arguments, is_asked, bit) = (dice.pick(known), dice.once_in(4), dice.below(8) as u8);
        let after = dice.below(if is_asked { 250 } else { 1_500 });
        let of = if is_asked { "the request of" } else { "the answer to" };
        outcome(format!("bit {bit} of byte {after} of {of} `pba {}`", arguments.join(" ")), || {
            let wire = self.wire(is_asked, after, bit);
            let said = self.pba(&wire.url(), arguments)?;
            self.compare(&wire, arguments, said)
        })
    }

    /// What is told of a search is what happened, or an error.
    fn of_events(&self, dice: &mut Dice) -> Outcome {
        let (is_asked, bit) = (dice.once_in(4), dice.below(8) as u8);
        let after = dice.below(if is_asked { 250 } else { 6_000 });
        let of = if is_asked { "the request of events" } else { "events" };
        let arguments = ["search", "watch", WATCHED, "--json"];
        outcome(format!("bit {bit} of byte {after} of {of}"), || {
            let wire = self.wire(is_asked, after, bit);
            let mut said = self.pba(&wire.url(), &arguments)?;
            said.output = told(&said.output)?;
            self.compare(&wire, &arguments, said)
        })
    }

    /// Compares what a command said with what it says to the server itself.
    fn compare(&self, wire: &Wire, arguments: &[&str], said: Said) -> Result<Survived, Harm> {
        if let Some(error) = said.error {
            return effective(wire, Survived::Refused(error));
        }
        let mut expected = self.pba(&self.server.url(), arguments)?;
        if arguments.contains(&"watch") {
            expected.output = told(&expected.output)?;
        }
        match said.output == expected.output {
            true => effective(wire, Survived::Unnoticed),
            false => {
                Err(Harm::new(Column::Other, format!("{arguments:?} says without a word {}", said.output)))
            }
        }
    }

    /// A change is made as it was asked for, or not at all; one that is said to be made is.
    fn of_a_change(&self, dice: &mut Dice, index: u32) -> Outcome {
        let (removes, is_asked) = (dice.once_in(2), !dice.once_in(3));
        // Names of which one bit of the last letter makes the other.
        let (name, other) = (format!("n{index}a"), format!("n{index}c"));
        let method = if removes { "DELETE" } else { "PUT" };
        let last_letter = format!("{method} /v1/schedules/{name}").len() as u64 - 1;
        let (after, bit) = match is_asked && dice.once_in(3) {
            true => (last_letter, 1),
            false => (
                dice.below(match (is_asked, removes) {
                    (true, true) => 200,
                    (true, false) => 1_200,
                    (false, _) => 400,
                }),
                dice.below(8) as u8,
            ),
        };
        let (what, way) = match (removes, is_asked) {
            (true, true) => ("removal", "the request"),
            (true, false) => ("removal", "the answer"),
            (false, true) => ("import", "the request"),
            (false, false) => ("import", "the answer"),
        };
        outcome(format!("bit {bit} of byte {after} of {way} of the {what} of a schedule"), || {
            let _alone: MutexGuard<()> = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            let file = self.schedule_file(&name)?;
            let import =
                |url: &str, name: &str| self.pba(url, &["schedule", "import", &file, "--name", name]);
            import(&self.server.url(), &other)?;
            if removes {
                import(&self.server.url(), &name)?;
            }
            let before = self.schedules()?;
            let wire = self.wire(is_asked, after, bit);
            let said = match removes {
                true => self.pba(&wire.url(), &["schedule", "delete", &name, "--yes"])?,
                false => import(&wire.url(), &name)?,
            };
            let now = self.schedules()?;
            let mut asked = before.clone();
            match removes {
                true => asked.retain(|schedule| schedule.0 != name),
                false => {
                    let like = before.iter().find(|schedule| schedule.0 == other);
                    let (_, document) = like.ok_or_else(|| harness!("{other} is not there"))?;
                    asked.push((name.clone(), document.replace(&other, &name)));
                    asked.sort();
                }
            }
            for name in [&name, &other] {
                self.pba(&self.server.url(), &["schedule", "delete", name, "--yes"])?;
            }
            match said.error {
                None if now == asked => effective(&wire, Survived::Unnoticed),
                None => {
                    Err(Harm::new(Column::Undone, format!("it was said to be made: {now:?}, not {asked:?}")))
                }
                Some(error) if now == asked || now == before => effective(&wire, Survived::Refused(error)),
                Some(_) => Err(Harm::new(Column::Other, format!("another change: {now:?}, not {asked:?}"))),
            }
        })
    }

    /// A schedule to import.
    fn schedule_file(&self, name: &str) -> Result<String, Harm> {
        let file = format!("{name}.json");
        let arguments = ["schedule", "export", "cifar10-pba", "--out", &file];
        match self.pba(&self.server.url(), &arguments)?.error {
            None => Ok(file),
            Some(error) => Err(harness!("{error}")),
        }
    }

    /// Names and content of all schedules, in order.
    fn schedules(&self) -> Result<Vec<(String, String)>, Harm> {
        let get = |path: &str| self.server.get(path).map_err(|error| Harm::new(Column::Dead, error));
        let listed = get("/v1/schedules")?.json();
        let names =
            listed["schedules"].as_array().into_iter().flatten().filter_map(|entry| entry["name"].as_str());
        let with_content =
            names.map(|name| Ok((name.to_owned(), get(&format!("/v1/schedules/{name}"))?.text())));
        let mut schedules = with_content.collect::<Result<Vec<_>, Harm>>()?;
        schedules.sort();
        Ok(schedules)
    }
}

/// What a watch told of a search: the lines of its journal, and how it stands in the end. It tells as well that it
/// connected again, and after that once more where the search stands.
fn told(output: &str) -> Result<String, Harm> {
    let (mut journal, mut standing) = (String::new(), "");
    for line in output.lines() {
        let event: Value = serde_json::from_str(line)
            .map_err(|error| Harm::new(Column::Other, format!("{line}: {error}")))?;
        match event["event"].as_str() {
            Some("state") => standing = line,
            Some("progress" | "reconnecting") => {}
            _ => journal += &format!("{line}\n"),
        }
    }
    Ok(journal + standing)
}

/// How a fault was survived, if it took place.
fn effective(wire: &Wire, survived: Survived) -> Result<Survived, Harm> {
    match wire.done() {
        0 => Ok(Survived::NotInjected("what was said ended before".to_owned())),
        _ => Ok(survived),
    }
}

impl Inject for Stage {
    fn inject(&self, fault: Fault) -> Outcome {
        let mut dice = fault.dice();
        match fault.index % 6 {
            0 | 3 => self.of_a_stream(&mut dice),
            1 if self.has_search => self.of_events(&mut dice),
            1 | 4 => self.of_a_document(&mut dice),
            _ => self.of_a_change(&mut dice, fault.index),
        }
    }
}
