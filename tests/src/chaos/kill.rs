//! kill -9 at a random system call of a server, a trainer or a client.

use std::io::BufRead;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::chaos::daemon::{Daemon, Launch, tail, wait};
use crate::chaos::dice::Dice;
use crate::chaos::fault::{Fault, Inject, Kind, outcome};
use crate::chaos::harm::{Column, Harm, Outcome, Survived, harness};
use crate::chaos::ledger::Ledger;
use crate::chaos::oracle::{Judge, Order, shapes};
use crate::chaos::readers::{Language, Reading, TELL, parameters, python, take};
use crate::chaos::searching::Searches;
use crate::chaos::strace;
use crate::chaos::wire::{Place, Wire};
use crate::epoch::{Epoch, samples};
use crate::server::Process;

pub(super) fn kind() -> Kind {
    Kind {
        name: "kill",
        title: "kill -9 at a random system call (server, trainer, client)",
        times: 150,
        few: 9,
        at_once: 2,
        open: || Ok(Box::new(Stage::open()?)),
    }
}

/// A system call, or all, and how often a thread makes it that makes it most, about: of `all`, the first that
/// any of them reaches counts.
type Call = (&'static str, u64);

const SERVER: [Call; 14] = [
    ("all", 60),
    ("all", 60),
    ("futex", 20),
    ("epoll_wait", 40),
    ("sendto", 12),
    ("writev", 12),
    ("recvfrom", 12),
    ("accept4", 12),
    ("openat", 30),
    ("write", 20),
    ("fsync", 8),
    ("rename", 4),
    ("mmap", 30),
    ("close", 20),
];
const TRAINER: [Call; 11] = [
    ("all", 430),
    ("all", 430),
    ("write", 30),
    ("fsync", 9),
    ("fdatasync", 5),
    ("rename,renameat,renameat2", 5),
    ("futex", 20),
    ("openat", 300),
    ("munmap", 60),
    ("madvise", 20),
    ("clone3", 20),
];
const RUST: [Call; 8] = [
    ("all", 40),
    ("all", 40),
    ("recvfrom", 12),
    ("epoll_wait", 12),
    ("write", 10),
    ("futex", 6),
    ("rename,renameat,renameat2", 1),
    ("close", 8),
];
const PYTHON: [Call; 7] = [
    ("all", 800),
    ("all", 800),
    ("recvfrom", 12),
    ("sendto", 3),
    ("rename", 10),
    ("write", 20),
    ("openat", 500),
];

const MISSED: &str = "it ended before that system call";

struct Stage {
    /// Of the clients that are killed.
    server: Daemon,
    dataset: pba_datasets::Dataset,
    searches: Option<Searches>,
}

impl Stage {
    fn open() -> Result<Stage, Harm> {
        let server = Launch::new(&[]).start()?;
        let dataset = shapes(server.data.path());
        Ok(Stage { server, dataset, searches: Searches::new() })
    }
}

impl Inject for Stage {
    fn inject(&self, fault: Fault) -> Outcome {
        let mut dice = fault.dice();
        if let Some(missing) = strace::missing() {
            return outcome("kill -9", || Ok(Survived::NotInjected(missing)));
        }
        match (fault.index % 3, &self.searches) {
            (1, Some(searches)) => {
                let (calls, when) = dice.call(&TRAINER);
                let name = format!("killed-{}", fault.index);
                outcome(format!("kill -9 at call {when} to {calls} of the trainer"), || {
                    searches.with_fault(&name, &format!("inject={calls}:signal=KILL:when={when}"))
                })
            }
            (2, _) => self.kill_client(&mut dice),
            _ => self.kill_server(&mut dice),
        }
    }
}

/// 200 images in 10 batches, all augmented.
fn order(dataset: &pba_datasets::Dataset, dice: &mut Dice) -> Result<Order, Harm> {
    let query = format!(
        "split=test&shuffle=true&schedule=cifar10-pba&seed={}&batch_size=20&shard={}/10\
         &base=pad_crop:4,flip,cutout:16",
        dice.below(1 << 40),
        dice.below(10)
    );
    Order::new(dataset, 150, &query)
}

impl Stage {
    fn kill_server(&self, dice: &mut Dice) -> Outcome {
        let ((calls, when), language) = (dice.call(&SERVER), dice.pick(&[Language::Rust, Language::Python]));
        outcome(format!("kill -9 at call {when} to {calls} of the server, {language:?}"), || {
            let order = order(&self.dataset, dice)?;
            let logs = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
            let plain = Launch::new(&[]);
            let faults = vec![format!("inject={calls}:signal=KILL:when={when}")];
            let broken = Launch { faults: Some((faults, "/dev/null".into())), ..plain.clone() };
            let process = broken.spawn();
            // Before it listens, it is not known.
            let nowhere = Place::Unix(logs.path().join("nobody"));
            let wire = Wire::start(None, nowhere);
            let Place::Tcp(front) = wire.place().clone() else { unreachable!("it listens on TCP") };
            let url = wire.url();
            let (over, died) = (AtomicBool::new(false), AtomicBool::new(false));
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    let mut ledger = Ledger::default();
                    for _ in 0..500 {
                        ledger.change(front);
                        if over.load(Ordering::SeqCst) {
                            break;
                        }
                    }
                    ledger
                });
                let reader = scope.spawn(|| {
                    let mut epochs = 0;
                    let read = loop {
                        let read = Reading::of(language, [url.clone()]).read_patiently(&order);
                        epochs += 1;
                        // Again, until it is killed or is not.
                        if read.is_err() || died.load(Ordering::SeqCst) || epochs == 6 {
                            break read;
                        }
                    };
                    over.store(true, Ordering::SeqCst);
                    read
                });
                let watched = (|| {
                    let mut server = match broken.listening(process) {
                        None => None,
                        Some(server) => {
                            wire.lead_to(Place::Tcp(server.address));
                            Some(server)
                        }
                    };
                    if let Some(server) = &mut server {
                        let mut is_over = || !server.process.is_running() || over.load(Ordering::SeqCst);
                        wait("the server's death or the end of the load", &mut is_over)?;
                        if server.process.is_running() {
                            return Ok(None);
                        }
                        if server.process.wait().signal() != Some(9) {
                            let log = tail(&server.process.stderr());
                            return Err(Harm::new(Column::Dead, format!("by itself: {log}")));
                        }
                    }
                    drop(server);
                    let server = plain.start()?;
                    wire.lead_to(Place::Tcp(server.address));
                    died.store(true, Ordering::SeqCst);
                    Ok(Some(server))
                })();
                if watched.is_err() {
                    over.store(true, Ordering::SeqCst);
                }
                let read = reader.join().map_err(|_| harness!("the reader panicked"))?;
                let ledger = writer.join().map_err(|_| harness!("the writer panicked"))?;
                let Some(mut server) = watched? else {
                    return Ok(Survived::NotInjected(MISSED.to_owned()));
                };
                read?;
                ledger.check(&server)?;
                server.healthy()?;
                Ok(Survived::Unnoticed)
            })
        })
    }

    fn kill_client(&self, dice: &mut Dice) -> Outcome {
        if dice.once_in(2) {
            let (calls, when) = dice.call(&RUST);
            outcome(format!("kill -9 at call {when} to {calls} of `pba stream`"), || {
                self.kill_rust(&order(&self.dataset, dice)?, calls, when)
            })
        } else {
            let (calls, when) = dice.call(&PYTHON);
            outcome(format!("kill -9 at call {when} to {calls} of a Python trainer"), || {
                self.kill_python(&order(&self.dataset, dice)?, calls, when)
            })
        }
    }

    /// Runs a command until it is killed, and again until it ends; whether it was killed.
    fn twice(&self, command: &dyn Fn() -> Command, calls: &str, when: u64) -> Result<bool, Harm> {
        let faults = [format!("inject={calls}:signal=KILL:when={when}")];
        let broken = strace::under(&command(), &faults, Path::new("/dev/null"));
        let mut killed = false;
        for command in [broken, command()] {
            let mut process = Process::run(command);
            let mut is_over = || !process.is_running();
            wait("the end of a client", &mut is_over)?;
            let status = process.wait();
            if status.success() {
                return Ok(killed);
            }
            if status.signal() != Some(9) || killed {
                let log = tail(&process.stderr());
                return Err(Harm::new(Column::Lost, format!("the client ended ({status}): {log}")));
            }
            killed = true;
        }
        Ok(killed)
    }

    fn kill_rust(&self, order: &Order, calls: &str, when: u64) -> Result<Survived, Harm> {
        let folder = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
        let file = folder.path().join("epoch.arrows");
        let request = &order.request;
        let command = || {
            let mut command = crate::binary::command(folder.path(), &["stream", &self.server.url()]);
            command.args(["--epoch", &order.epoch.to_string(), "--split", "test", "--shuffle", "true"]);
            command.args(["--schedule", request.schedule.as_deref().expect("it has one")]);
            command.args(["--base", request.base.as_deref().expect("it has one")]);
            command.args([
                "--seed",
                &request.seed.to_string(),
                "--batch-size",
                &request.batch_size.to_string(),
            ]);
            command.args(["--shard", &format!("{}/{}", request.shard.0, request.shard.1)]);
            command.arg("--out").arg(&file);
            command
        };
        let killed = self.twice(&command, calls, when)?;
        let bytes = std::fs::read(&file).map_err(|error| Harm::new(Column::Lost, error))?;
        let mut judge = Judge::new(order);
        for batch in &Epoch::decode(bytes).batches {
            let indices: Vec<u64> = samples(batch).map(|sample| sample.index).collect();
            judge.take(&indices, |due| {
                let labels = samples(batch).map(|sample| sample.label);
                let pixels = samples(batch).flat_map(|sample| sample.pixels);
                labels.eq(due.labels.iter().copied()) && pixels.eq(&due.pixels)
            })?;
        }
        judge.end()?;
        self.after(killed)
    }

    fn kill_python(&self, order: &Order, calls: &str, when: u64) -> Result<Survived, Harm> {
        let folder = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
        let asked = json!({
            "url": self.server.url(), "dataset": order.dataset, "epoch": order.epoch,
            "parameters": parameters(order), "folder": folder.path(),
        });
        python("")?;
        let command = || {
            let mut command = python(&format!("{TELL}{TRAIN}")).expect("it is there");
            command.arg(asked.to_string()).current_dir(folder.path());
            command
        };
        let killed = self.twice(&command, calls, when)?;
        let lines = std::fs::read(folder.path().join("trained")).map_err(|error| harness!("{error}"))?;
        let mut judge = Judge::new(order);
        for line in lines.lines() {
            let line = line.map_err(|error| harness!("{error}"))?;
            let line: Value = serde_json::from_str(&line).map_err(|error| harness!("{line}: {error}"))?;
            take(&mut judge, &line)?;
        }
        judge.end()?;
        self.after(killed)
    }

    fn after(&self, killed: bool) -> Result<Survived, Harm> {
        match self.server.get("/livez") {
            Ok(answer) if answer.status == 200 => {}
            other => return Err(Harm::new(Column::Dead, format!("/livez: {other:?}"))),
        }
        Ok(if killed { Survived::Unnoticed } else { Survived::NotInjected(MISSED.to_owned()) })
    }
}

/// A trainer that keeps what it has trained with, and its position, and goes on where it was.
const TRAIN: &str = r#"
import os
asked = json.loads(sys.argv[1])
parameters = dict(asked["parameters"])
rank, world_size = parameters.pop("shard")
schedule = parameters.pop("schedule", None)
parameters.setdefault("epochs", 200)
loader = pba_client.Loader(asked["url"], asked["dataset"], schedule, rank=rank,
                           world_size=world_size, **parameters)
trained, state = (os.path.join(asked["folder"], name) for name in ("trained", "state"))
lines = []
if os.path.exists(state):
    saved = json.load(open(state))
    loader.load_state_dict(saved["state"])
    lines = open(trained).readlines()[:saved["lines"]]
with open(trained, "w") as file:
    file.writelines(lines)
    file.flush()
    for batch in loader.epoch(asked["epoch"]):
        lines.append(json.dumps(tell(batch, len(lines))) + "\n")
        file.write(lines[-1])
        file.flush()
        with open(state + ".new", "w") as new:
            json.dump({"state": loader.state_dict(), "lines": len(lines)}, new)
        os.replace(state + ".new", state)
"#;
