//! Replicas that differ: clients that change over from one to another refuse what they must not mix.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;

use pba_wire::checksum::{self, Head, Sum};

use crate::chaos::daemon::{Daemon, Launch};
use crate::chaos::dice::Dice;
use crate::chaos::fault::{Fault, Inject, Kind, outcome};
use crate::chaos::harm::{Column, Harm, Outcome, Survived, harness};
use crate::chaos::oracle::{Order, dataset};
use crate::chaos::readers::{Language, Reading};
use crate::chaos::wire::{Place, Trouble, TroubleKind, Wire};
use crate::parquet_files;
use crate::proxy;

pub(super) fn kind() -> Kind {
    Kind {
        name: "replicas",
        title: "replicas that differ (base, mean, version, data)",
        times: 50,
        few: 5,
        at_once: 2,
        open: || Ok(Box::new(Stage { replicas: Mutex::default() })),
    }
}

/// What a replica differs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    Nothing,
    /// Its configuration names another base augmentation.
    Base,
    /// Its training split, from which the mean is, has another image; the split that is read is the same.
    Mean,
    /// One pixel of the split that is read.
    Data,
    /// Its version of readers and pixels, by what it says of its recipe.
    Version,
    /// A proxy asks it for another seed.
    Seed,
    /// A proxy asks it for another base augmentation.
    AskedBase,
    /// A proxy asks it for a schedule that is stretched otherwise.
    Epochs,
}

struct Stage {
    /// Each is started once.
    replicas: Mutex<BTreeMap<Difference, Replica>>,
}

struct Replica {
    server: Daemon,
    folder: TempDir,
}

impl Replica {
    fn start(difference: Difference) -> Result<Replica, Harm> {
        let folder = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
        let mut images = parquet_files::images(300);
        let path = |name: &str| folder.path().join("mine").join(name);
        if difference == Difference::Data {
            images[299] = parquet_files::png(32, 32, 9999);
        }
        parquet_files::write(&path("test.parquet"), &images);
        images[299] = parquet_files::png(32, 32, 299);
        // Another mean, by more than is rounded away.
        let train = if difference == Difference::Mean { vec![flat(200); 300] } else { images };
        parquet_files::write(&path("train.parquet"), &train);
        let base = match difference {
            Difference::Base => "flip",
            _ => "pad_crop:4,flip,cutout:16",
        };
        let config = folder.path().join("pba.toml");
        let mine = folder.path().join("mine");
        let text = format!("[datasets.mine]\npath = \"{}\"\nbase = \"{base}\"\n", mine.display());
        std::fs::write(&config, text).map_err(|error| harness!("{error}"))?;
        let server = Launch::new(&["--config", &config.display().to_string()]).start()?;
        Ok(Replica { server, folder })
    }
}

/// A PNG of one grey.
fn flat(grey: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 32, 32);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("memory takes everything");
    writer.write_image_data(&[grey; 32 * 32 * 3]).expect("as many pixels as the size says");
    writer.finish().expect("memory takes everything");
    bytes
}

impl Inject for Stage {
    fn inject(&self, fault: Fault) -> Outcome {
        let mut dice = fault.dice();
        let difference = dice.pick(&[
            Difference::Base,
            Difference::Base,
            Difference::Mean,
            Difference::Mean,
            Difference::Data,
            Difference::Version,
            Difference::Version,
            Difference::Seed,
            Difference::AskedBase,
            Difference::Epochs,
        ]);
        let language = dice.pick(&[Language::Rust, Language::Python]);
        outcome(format!("a replica that differs in {difference:?}, {language:?}"), || {
            self.change_over(difference, language, &mut dice)
        })
    }
}

impl Stage {
    fn place(&self, difference: Difference) -> Result<(Place, std::path::PathBuf), Harm> {
        let mut replicas = self.replicas.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let replica = match replicas.entry(difference) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Replica::start(difference)?),
        };
        Ok((Place::Tcp(replica.server.address), replica.folder.path().join("mine")))
    }

    fn change_over(
        &self,
        difference: Difference,
        language: Language,
        dice: &mut Dice,
    ) -> Result<Survived, Harm> {
        let (first, folder) = self.place(Difference::Nothing)?;
        let base = "pad_crop:4,flip,cutout:16";
        // The base augmentation of training images is that of the configuration, unless it is asked for.
        let split = if difference == Difference::Base { "train" } else { "test" };
        let seed = dice.between(1_000_000, 9_999_999);
        let query = format!(
            "split={split}&shuffle=true&schedule=cifar10-pba&epochs=200&seed={seed}&batch_size=10&base={base}"
        );
        let cache = tempfile::tempdir().map_err(|error| harness!("{error}"))?;
        let mine = dataset("mine", &folder, cache.path()).map_err(|error| harness!("{error}"))?;
        let mut order = Order::new(&mine, 150, &query)?;
        if difference == Difference::Base {
            order.request.base = None;
        }
        let (rewritten, instead) = match difference {
            Difference::Seed => (format!("seed={seed}"), format!("seed={}", seed + 1)),
            Difference::AskedBase => ("cutout%3A16".to_owned(), "cutout%3A15".to_owned()),
            Difference::Epochs => ("epochs=200".to_owned(), "epochs=999".to_owned()),
            _ => (String::new(), String::new()),
        };
        let Place::Tcp(address) = first else { unreachable!("replicas listen on TCP") };
        let second = match (difference, &*rewritten) {
            (Difference::Version, _) => {
                // The digest that a server of another version would have, at the same place.
                let stream = crate::chaos::daemon::send(address, "GET", &order.target(), b"");
                let stream = stream.map_err(|error| Harm::new(Column::Dead, error))?;
                let recipe = crate::Epoch::decode(stream.body).metadata.remove("pba.recipe");
                let recipe = recipe.ok_or_else(|| {
                    Harm::new(Column::Other, "a stream does not say by which recipe it is made")
                })?;
                let other = recipe.chars().rev().collect::<String>();
                proxy::answering_otherwise(address, move |answer| say(answer, &recipe, &other))
            }
            (_, "") => self.place(difference)?.0.url(),
            (_, part) => proxy::rewriting(address, part, &instead),
        };
        let wire = Wire::start(None, first);
        // After some batches, and before the last.
        let after = dice.between(5_000, order.bytes() - 40_000);
        wire.plan([
            Trouble { after, kind: TroubleKind::Cut },
            // It does not come back.
            Trouble { after: 0, kind: TroubleKind::Cut },
            Trouble { after: 0, kind: TroubleKind::Cut },
        ]);
        let reading = Reading::of(language, [wire.url(), second]).stalling(Duration::from_secs(5));
        match reading.read(&order)? {
            Survived::Refused(why) if is_about_a_difference(&why) => Ok(Survived::Refused(why)),
            // No harm, but no proof either that the difference is seen.
            Survived::Refused(why) => {
                Err(Harm::new(Column::Other, format!("refused for another reason: {why}")))
            }
            // What a proxy asked for instead is no answer, and the first one is asked again.
            Survived::Unnoticed if !rewritten.is_empty() => Ok(Survived::Unnoticed),
            Survived::Unnoticed => Err(Harm::new(Column::Other, "the other replica was not asked")),
            missed => Ok(missed),
        }
    }
}

/// Replaces a text in the schema that an answer begins with, and its checksums accordingly.
fn say(answer: &mut [u8], text: &str, other: &str) {
    let digits = |answer: &[u8], header: &str| {
        let header = format!("{header}: ");
        let at = answer.windows(header.len()).position(|part| part == header.as_bytes())? + header.len();
        Some(at..at + 16)
    };
    let Some(request) = digits(answer, checksum::REQUEST_HEADER) else { return };
    let Some(asked) = std::str::from_utf8(&answer[request]).ok().and_then(Sum::read) else { return };
    let Some(sum) = digits(answer, checksum::SCHEMA_HEADER) else { return };
    let at = answer.windows(4).position(|mark| mark == [0xff; 4]);
    let Some(message) = at.and_then(|at| answer.get_mut(at..)) else { return };
    let Some(length) = message.get(4..8).and_then(|length| length.try_into().ok()) else { return };
    let Some(schema) = message.get_mut(..8 + u32::from_le_bytes(length) as usize) else { return };
    let Some(at) = schema.windows(text.len()).position(|part| part == text.as_bytes()) else { return };
    schema[at..at + other.len()].copy_from_slice(other.as_bytes());
    if let Ok(head) = Head::new(schema.to_vec(), 0) {
        schema.copy_from_slice(&head.with(head.checksum(&[], 0)));
    }
    if let Ok(of_schema) = checksum::of_schema(schema, asked) {
        answer[sum].copy_from_slice(of_schema.to_string().as_bytes());
    }
}

/// Whether an error says that a replica sends something else.
fn is_about_a_difference(error: &str) -> bool {
    error.contains("sends other data") || error.starts_with("ChangedError")
}
