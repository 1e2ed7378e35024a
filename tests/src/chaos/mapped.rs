//! Packed files, which a server maps, that are truncated, replaced, or cannot be read.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::chaos::bystander::Bystander;
use crate::chaos::daemon::Launch;
use crate::chaos::dice::Dice;
use crate::chaos::fault::{Fault, Inject, Kind, outcome};
use crate::chaos::harm::{Harm, Outcome, Survived, harness};
use crate::chaos::oracle::{Order, shapes};
use crate::chaos::pictures::Pictures;
use crate::chaos::readers::{Language, Reading};
use crate::chaos::strace;

pub(super) fn kind() -> Kind {
    Kind {
        name: "mapped",
        title: "truncated, replaced or unreadable mapped file",
        times: 80,
        few: 6,
        at_once: 2,
        open: || Ok(Box::new(Stage)),
    }
}

/// Each fault has a server of its own, as some used to end it.
struct Stage;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    BeforeItIsServed,
    BeforeTheFirstStream,
    InTheMiddleOfAStream,
    BetweenTwoStreams,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Truncated,
    Emptied,
    TruncatedAndGrown,
    ReplacedByAnother,
    OverwrittenByAnother,
    Removed,
    AFolderInstead,
}

impl Inject for Stage {
    fn inject(&self, fault: Fault) -> Outcome {
        let mut dice = fault.dice();
        if dice.once_in(8) {
            return unreadable(&mut dice);
        }
        let encoded = dice.once_in(2);
        // The packed file is the server's own, or a user's, which is served as it is.
        let users = dice.once_in(3);
        let when = dice.pick(&[
            When::BeforeItIsServed,
            When::BeforeTheFirstStream,
            When::InTheMiddleOfAStream,
            When::BetweenTwoStreams,
        ]);
        let damage = dice.pick(&[
            Damage::Truncated,
            Damage::Truncated,
            Damage::Emptied,
            Damage::TruncatedAndGrown,
            Damage::ReplacedByAnother,
            Damage::OverwrittenByAnother,
            Damage::Removed,
            Damage::AFolderInstead,
        ]);
        let is_another = matches!(damage, Damage::ReplacedByAnother | Damage::OverwrittenByAnother);
        let whose = if users { "a user's" } else { "the server's" };
        let kind = if encoded { "JPEGs" } else { "pixels" };
        outcome(format!("{whose} packed file of {kind}: {damage:?} {when:?}"), || {
            let make = if when == When::InTheMiddleOfAStream { Pictures::many } else { Pictures::new };
            let pictures = make(encoded, &mut dice)?;
            let (data, packed) = pictures.packed()?;
            let others = make(encoded, &mut dice)?;
            let (_others_data, other) = others.packed()?;
            // The same request of both.
            let theirs = others.order(&mut dice.clone())?;
            let order = pictures.order(&mut dice)?;
            let folder = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
            let (flag, file) = if users {
                let file = folder.path().join("train.arrow");
                std::fs::copy(&packed, &file).map_err(|error| harness!("{error}"))?;
                (format!("--dataset=mine={}", folder.path().display()), file)
            } else {
                (pictures.flag(), packed)
            };
            let mut damaged = false;
            let mut damage = |dice: &mut Dice| {
                damaged = true;
                inflict(damage, &file, &other, dice)
            };
            if when == When::BeforeItIsServed {
                damage(&mut dice)?;
            }
            let dataset = shapes(data.path());
            let launch = Launch::on(data, &[&flag]);
            let mut server = match launch.start() {
                Ok(server) => server,
                // A path with nothing at it is said at once.
                Err(harm) if users && when == When::BeforeItIsServed => {
                    return match harm.seen.contains("error: ") {
                        true => Ok(Survived::Refused(harm.seen)),
                        false => Err(harm),
                    };
                }
                Err(harm) => return Err(harm),
            };
            let small = format!("split=test&seed={}&shard=0/20&base=flip", dice.below(1000));
            let survived = server.blamed(|server| {
                let bystander = Bystander::of(&server.url(), &Order::new(&dataset, 0, &small)?);
                let url = server.url();
                let reading = Reading::any(&mut dice, [url.clone()]);
                let read = match when {
                    When::BeforeItIsServed => match reading.read(&order) {
                        // Another dataset is served where another is, all of it, and its digest says so.
                        Err(_) if is_another => {
                            reading.read_whole(&theirs)?;
                            Survived::Refused("the other dataset is served".to_owned())
                        }
                        read => read?,
                    },
                    When::BeforeTheFirstStream => {
                        damage(&mut dice)?;
                        reading.read(&order)?
                    }
                    When::InTheMiddleOfAStream => {
                        let at = dice.between(1, 10) as usize;
                        let mut failed = Ok(());
                        let reading = Reading::of(Language::Rust, [url.clone()]);
                        let mut hurt = |received: usize| {
                            if received == at {
                                failed = damage(&mut dice);
                            }
                        };
                        // It may be refused from there on; what came is right.
                        let read = reading.read_with(&order, &mut hurt)?;
                        failed?;
                        read
                    }
                    When::BetweenTwoStreams => {
                        reading.read_whole(&order)?;
                        damage(&mut dice)?;
                        reading.read(&order)?
                    }
                };
                bystander.goes_on()?;
                drop(bystander);
                server.healthy()?;
                Ok(read)
            })?;
            match damaged {
                true => Ok(survived),
                false => Ok(Survived::NotInjected("the stream ended before".to_owned())),
            }
        })
    }
}

fn inflict(damage: Damage, file: &Path, other: &Path, dice: &mut Dice) -> Result<(), Harm> {
    let failed = |error: std::io::Error| harness!("{}: {error}", file.display());
    let open = || OpenOptions::new().write(true).open(file).map_err(failed);
    let length = file.metadata().map_err(failed)?.len();
    match damage {
        Damage::Truncated => open()?.set_len(dice.below(length)).map_err(failed),
        Damage::Emptied => open()?.set_len(0).map_err(failed),
        Damage::TruncatedAndGrown => {
            let file = open()?;
            file.set_len(dice.below(length)).map_err(failed)?;
            file.set_len(length).map_err(failed)
        }
        Damage::ReplacedByAnother => {
            let new = file.with_extension("new");
            std::fs::copy(other, &new).map_err(failed)?;
            std::fs::rename(new, file).map_err(failed)
        }
        Damage::OverwrittenByAnother => {
            let bytes = std::fs::read(other).map_err(failed)?;
            open()?.write_all_at(&bytes, 0).map_err(failed)
        }
        Damage::Removed => std::fs::remove_file(file).map_err(failed),
        Damage::AFolderInstead => {
            std::fs::remove_file(file).map_err(failed)?;
            std::fs::create_dir(file).map_err(failed)
        }
    }
}

/// A packed file that cannot be opened, mapped or read when the server starts.
fn unreadable(dice: &mut Dice) -> Outcome {
    let calls = dice.pick(&["openat", "mmap", "openat,mmap", "read,pread64"]);
    let error = dice.pick(&["EIO", "EACCES", "ENOMEM"]);
    outcome(format!("{calls} of a packed file: {error}"), || {
        if let Some(missing) = strace::missing() {
            return Ok(Survived::NotInjected(missing));
        }
        let pictures = Pictures::new(dice.once_in(2), dice)?;
        let order = pictures.order(dice)?;
        let (data, packed) = pictures.packed()?;
        let log = tempfile::NamedTempFile::new().map_err(|error| harness!("{error}"))?;
        let faults = vec![format!("inject={calls}:error={error}"), format!("path={}", packed.display())];
        let mut launch = Launch::on(data, &[&pictures.flag()]);
        launch.faults = Some((faults, log.path().to_owned()));
        let mut server = launch.start()?;
        let read = server.blamed(|server| {
            let read = Reading::any(dice, [server.url()]).read(&order)?;
            let dataset = shapes(server.data.path());
            let small = Order::new(&dataset, 0, "split=test&shard=0/20&base=flip")?;
            Reading::of(Language::Rust, [server.url()]).read_whole(&small)?;
            server.healthy()?;
            Ok(read)
        })?;
        match strace::injected(log.path()) {
            0 => Ok(Survived::NotInjected("the server made no such call".to_owned())),
            _ => Ok(read),
        }
    })
}
