//! One bit that is another: on the wire, in a packed file, in a JPEG, in the journal of a search.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::chaos::bystander::Bystander;
use crate::chaos::daemon::{Daemon, Launch};
use crate::chaos::dice::Dice;
use crate::chaos::fault::{Fault, Inject, Kind, outcome};
use crate::chaos::harm::{Column, Harm, Outcome, Survived, harness};
use crate::chaos::oracle::Order;
use crate::chaos::pictures::Pictures;
use crate::chaos::proxied::Proxied;
use crate::chaos::readers::{Language, Reading};
use crate::chaos::searching::{self, Learned, undisturbed};
use crate::chaos::wire::{Trouble, TroubleKind};
use crate::search::trainer;

pub(super) fn kind() -> Kind {
    Kind {
        name: "flip",
        title: "bit flips (wire, packed, JPEG, journal)",
        times: 150,
        few: 8,
        at_once: 2,
        open: || Ok(Box::new(Stage { server: Proxied::open()?, stopped: OnceLock::new() })),
    }
}

struct Stage {
    server: Proxied,
    stopped: OnceLock<Result<Stopped, Harm>>,
}

/// Folders of searches: one that was stopped half-way, and one that is done.
struct Stopped {
    folder: TempDir,
    learned: Learned,
}

impl Inject for Stage {
    fn inject(&self, fault: Fault) -> Outcome {
        let mut dice = fault.dice();
        match (fault.index % 8, trainer()) {
            (0 | 4 | 5, _) => self.on_the_wire(&mut dice, fault.index),
            (1 | 6, _) => self.in_a_packed_file(&mut dice),
            (3, Some(trainer)) => self.in_a_journal(&mut dice, &trainer),
            _ => self.in_a_jpeg(&mut dice),
        }
    }
}

/// Flips one bit of a file, and says where.
fn flip(path: &Path, dice: &mut Dice) -> Result<String, Harm> {
    let failed = |error: std::io::Error| harness!("{}: {error}", path.display());
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let (at, bit) = (dice.below(length.max(1)), dice.below(8));
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).map_err(failed)?;
    file.write_all_at(&[byte[0] ^ (1 << bit)], at).map_err(failed)?;
    Ok(format!("byte {at} of {length}, bit {bit}"))
}

impl Stage {
    fn on_the_wire(&self, dice: &mut Dice, index: u32) -> Outcome {
        // Between shared memory and its reader there is no wire; what is sent is where things are.
        let is_unix = dice.once_in(3);
        let language = dice.pick(&[Language::Rust, Language::Python]);
        let query = format!(
            "split=test&shuffle=true&schedule=cifar10-pba&seed={}&batch_size=20&shard={}/20\
             &base=pad_crop:4,flip,cutout:16",
            dice.below(1 << 40),
            dice.below(20)
        );
        // The head of the answer and the schema, where lengths are; or the pixels.
        let places = [dice.below(3000), dice.below(309_000), dice.below(309_000)];
        let (after, bit) = (dice.pick(&places), dice.below(8) as u8);
        let shares = is_unix && dice.once_in(2);
        let after = if shares { dice.below(450) } else { after };
        let way = if is_unix { "a Unix socket" } else { "TCP" };
        let memory = if shares { " beside shared memory" } else { "" };
        outcome(format!("bit {bit} of byte {after} of an answer on {way}{memory}, {language:?}"), || {
            let order = self.server.order(150, &query)?;
            let (wire, _) = self.server.wire(is_unix, index);
            wire.plan([Trouble { after, kind: TroubleKind::Flip(bit) }]);
            let reading = Reading::of(language, [wire.url()]).sharing(shares);
            // A length that was flipped has a client wait for bytes that never come.
            let read = reading.stalling(std::time::Duration::from_secs(3)).read(&order)?;
            match wire.done() {
                0 => Ok(Survived::NotInjected("the answer ended before".to_owned())),
                _ => Ok(read),
            }
        })
    }

    fn in_a_packed_file(&self, dice: &mut Dice) -> Outcome {
        let (encoded, running, zeros) = (dice.once_in(2), dice.once_in(2), dice.once_in(4));
        let when = if running { "under a running server" } else { "before it is served" };
        let kind = if encoded { "JPEGs" } else { "pixels" };
        let what = if zeros { "zeros in" } else { "one bit of" };
        outcome(format!("{what} a packed file of {kind} {when}"), || {
            let pictures = Pictures::new(encoded, dice)?;
            let order = pictures.order(dice)?;
            let (data, packed) = pictures.packed()?;
            let launch = Launch::on(data, &[&pictures.flag()]);
            let mut damage = || match zeros {
                false => flip(&packed, dice).map(drop),
                true => zero(&packed, dice),
            };
            if !running {
                damage()?;
            }
            let mut server = launch.start()?;
            if running {
                damage()?;
            }
            server.blamed(|server| {
                let bystander = Bystander::of(&server.url(), &self.small(dice)?);
                let read = Reading::any(dice, [server.url()]).read(&order)?;
                // Nothing that was damaged is kept for the next client.
                Reading::any(dice, [server.url()]).read(&order)?;
                bystander.goes_on()?;
                drop(bystander);
                server.healthy()?;
                Ok(read)
            })
        })
    }

    fn in_a_jpeg(&self, dice: &mut Dice) -> Outcome {
        outcome("one bit of a JPEG before it is imported", || {
            let pictures = Pictures::new(true, dice)?;
            let intact = pictures.order(dice)?;
            for _ in 0..dice.between(1, 3) {
                flip(&pictures.file(dice), dice)?;
            }
            // What is damaged may still be a picture: then the one that the library makes of it.
            let order = pictures.order(&mut dice.clone());
            let mut server = Launch::new(&[&pictures.flag()]).start()?;
            let reading = Reading::any(dice, [server.url()]);
            let read = match order {
                Ok(order) => reading.read_whole(&order)?,
                Err(_) => match reading.read(&intact) {
                    Ok(Survived::Refused(why)) => Survived::Refused(why),
                    Ok(_) => return Err(Harm::new(Column::WrongPixels, "what cannot be decoded came whole")),
                    // It may begin, with pictures that are not damaged, and another seed.
                    Err(Harm { column: Column::Lost | Column::WrongPixels, .. }) => {
                        return Err(Harm::new(Column::WrongPixels, "a batch of a split that is refused"));
                    }
                    Err(harm) => return Err(harm),
                },
            };
            server.healthy()?;
            Ok(read)
        })
    }

    /// A few images of the built-in dataset.
    fn small(&self, dice: &mut Dice) -> Result<Order, Harm> {
        let query = format!("split=test&seed={}&shard=0/20&base=flip", dice.below(1000));
        self.server.order(0, &query)
    }

    fn in_a_journal(&self, dice: &mut Dice, trainer: &str) -> Outcome {
        let done = dice.once_in(3);
        let which = if done { "that is done" } else { "that was stopped half-way" };
        outcome(format!("one bit of the journal, or a checkpoint, of a search {which}"), || {
            let stopped =
                self.stopped.get_or_init(|| Stopped::make(trainer)).as_ref().map_err(Clone::clone)?;
            let name = if done { "undisturbed" } else { "stopped" };
            let launch = Launch::new(&["--trainer", trainer]);
            let folder = launch.data.path().join("searches").join(name);
            copy(&stopped.folder.path().join(name), &folder)?;
            if done {
                copy(&stopped.folder.path().join("schedules"), &launch.data.path().join("schedules"))?;
            }
            let files: Vec<PathBuf> = files(&folder);
            let journal = folder.join("events.jsonl");
            let others: Vec<PathBuf> = files.into_iter().filter(|file| *file != journal).collect();
            let file = if others.is_empty() || !dice.once_in(3) { journal } else { dice.pick(&others) };
            flip(&file, dice)?;
            let mut server = launch.start()?;
            let known = server.get(&format!("/v1/searches/{name}"));
            let known = known.map_err(|error| Harm::new(Column::Dead, error))?;
            if known.status != 200 {
                server.alive()?;
                return Ok(Survived::Refused(format!("{}: {}", file.display(), known.text())));
            }
            // One that was being trained when its server was killed goes on by itself.
            let ended = searching::ended(&mut server, name)?;
            match ended["state"] == "done" {
                true => same(&server, name, &stopped.learned, &file),
                false => Ok(Survived::Refused(ended["error"].to_string())),
            }
        })
    }
}

/// Checks what a search says that it learned.
fn same(server: &Daemon, name: &str, expected: &Learned, file: &Path) -> Result<Survived, Harm> {
    let file = file.file_name().unwrap_or_default().display();
    let answer = server.get(&format!("/v1/schedules/{name}"));
    match answer {
        // The journal of what is done is history; the schedule is what is used.
        Ok(answer) if answer.status == 200 => {
            let found = searching::digest(server, name)?;
            match found == expected.schedule {
                true => Ok(Survived::Unnoticed),
                false => Err(Harm::new(Column::Other, format!("{file}: another schedule, without a word"))),
            }
        }
        other => Err(Harm::new(Column::Undone, format!("{file}: done, without its schedule: {other:?}"))),
    }
}

impl Stopped {
    fn make(trainer: &str) -> Result<Stopped, Harm> {
        let mut server = Launch::new(&["--trainer", trainer]).start()?;
        let learned = undisturbed(&mut server)?;
        // Another test process may have run it; its folder is needed here.
        if !server.data.path().join("searches/undisturbed").exists() {
            searching::start(&server, "undisturbed")?;
            searching::ended(&mut server, "undisturbed")?;
        }
        searching::start(&server, "stopped")?;
        let journal = server.data.path().join("searches/stopped/events.jsonl");
        crate::chaos::daemon::wait("half a search", || {
            std::fs::read_to_string(&journal).is_ok_and(|journal| journal.lines().count() > 12)
        })?;
        server.kill();
        let folder = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
        for name in ["undisturbed", "stopped"] {
            let from = server.data.path().join("searches").join(name);
            crate::search::assert_no_trainer(&from);
            copy(&from, &folder.path().join(name))?;
        }
        copy(&server.data.path().join("schedules"), &folder.path().join("schedules"))?;
        Ok(Stopped { folder, learned })
    }
}

fn zero(path: &Path, dice: &mut Dice) -> Result<(), Harm> {
    let failed = |error: std::io::Error| harness!("{}: {error}", path.display());
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let at = dice.below(length);
    let count = (length - at).min(dice.pick(&[1, 512, 4096, 100_000]));
    file.write_all_at(&vec![0; count as usize], at).map_err(failed)
}

/// The files in a folder that hold something, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .filter(|path| path.metadata().is_ok_and(|metadata| metadata.len() > 0))
        .collect();
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) -> Result<(), Harm> {
    std::fs::create_dir_all(to).map_err(|error| harness!("{error}"))?;
    for entry in std::fs::read_dir(from).map_err(|error| harness!("{error}"))?.flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            std::fs::copy(&from, &to).map_err(|error| harness!("{error}"))?;
        }
    }
    Ok(())
}
