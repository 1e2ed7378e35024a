//! Targets of fuzzing: all places where bytes are read that others wrote, each as a function that panics when
//! what comes of some bytes is wrong. Not to crash is the least of it; what must come is said beside each.
//!
//! `pba-fuzz` (`make fuzz`) gives them to libFuzzer, which looks for bytes that reach new code; `tests/fuzz.rs`
//! runs each over its seeds, the inputs that once found something (`tests/fuzz/regressions`) and some thousand
//! random mutations.

mod apply;
mod config;
mod folders;
mod journal;
mod jpeg;
mod log;
mod packed;
mod parquet;
mod png;
mod query;
mod rows;
mod schedule;
mod spec;
mod stream;

use std::path::PathBuf;

use twox_hash::XxHash3_64;

use crate::chaos::dice::Dice;
pub(crate) use crate::chaos::hostile::{mend_png, mutate};

/// What is fuzzed.
pub struct Target {
    /// Its name, as `make fuzz TARGET=` has it.
    pub name: &'static str,
    /// Panics when what comes of the bytes is wrong.
    pub check: fn(&[u8]),
    /// Gives mutated bytes the checksums and ends that they must have to be looked at further.
    pub mend: fn(&mut Vec<u8>),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What mutations insert.
    pub words: &'static [&'static [u8]],
    /// Longest input.
    pub bytes_max: usize,
    /// Random mutations that `make test` tries: some tenths of a second.
    pub mutations: u32,
}

/// All of them.
pub const TARGETS: [&Target; 13] = [
    &jpeg::TARGET,
    &packed::TARGET,
    &parquet::TARGET,
    &png::TARGET,
    &folders::TARGET,
    &stream::TARGET,
    &apply::TARGET,
    &query::TARGET,
    &schedule::TARGET,
    &log::TARGET,
    &journal::TARGET,
    &config::TARGET,
    &spec::TARGET,
];

/// The target of a name.
pub fn named(name: &str) -> Option<&'static Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

impl Target {
    /// The inputs that once found something.
    pub fn regressions(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = crate::repository("tests/fuzz/regressions").join(self.name);
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("it is listed").path())
            .collect();
        files.sort();
        files.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("it is committed"))).collect()
    }

    /// A mutation of some input, which most often has right checksums.
    pub fn mutated(&self, input: &[u8], seed: u64) -> Vec<u8> {
        let (mut dice, mut bytes) = (Dice::of(seed, self.name, 0), input.to_vec());
        mutate(&mut bytes, &mut dice);
        if dice.once_in(4) && !self.words.is_empty() {
            let at = dice.below(bytes.len() as u64 + 1) as usize;
            bytes.splice(at..at, dice.pick(self.words).iter().copied());
        }
        if !dice.once_in(8) {
            (self.mend)(&mut bytes);
        }
        bytes.truncate(self.bytes_max);
        bytes
    }
}

/// Random decisions that depend on the input alone, so that each is judged in the same way again.
fn dice(bytes: &[u8]) -> Dice {
    Dice::of(XxHash3_64::oneshot(bytes), "check", 0)
}

/// Nothing to mend.
fn as_it_is(_: &mut Vec<u8>) {}

/// A committed image of the datasets' tests.
fn image(name: &str) -> Vec<u8> {
    let path = crate::repository("server/datasets/tests/all/images").join(name);
    std::fs::read(path).expect("it is committed")
}

/// Committed inputs to begin with.
fn committed(target: &str) -> Vec<Vec<u8>> {
    let folder = crate::repository("tests/fuzz/seeds").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("seeds are committed")
        .map(|entry| entry.expect("it is listed").path())
        .collect();
    files.sort();
    files.into_iter().map(|path| std::fs::read(path).expect("it is committed")).collect()
}

/// Damages bytes as disks and power failures do: a flipped bit, a cut, or zeros from a place on.
fn damaged(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = dice.below(bytes.len().max(1) as u64) as usize;
    match dice.below(4) {
        _ if bytes.is_empty() => {}
        0 => bytes.truncate(at),
        1 => {
            let end = at + (dice.scaled(1, 5000) as usize).min(bytes.len() - at);
            bytes[at..end].fill(0);
        }
        _ => bytes[at] ^= 1 << dice.below(8),
    }
    bytes
}
