//! What a fault is, and what every kind of them has.

use std::time::Duration;

use crate::chaos::dice::Dice;
use crate::chaos::harm::{Harm, Outcome, Survived};

/// Whatever is waited for longer than this hangs.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The seed of all of them.
    pub seed: u64,
    /// The kind that it is of.
    pub kind: &'static str,
    /// Its number within the kind.
    pub index: u32,
}

impl Fault {
    /// Its random numbers.
    pub(crate) fn dice(&self) -> Dice {
        Dice::of(self.seed, self.kind, self.index)
    }
}

/// Injects the faults of a kind, one or several at a time. Dropping it ends what it started.
pub trait Inject: Send + Sync {
    /// Injects one fault, and judges what came of it: what was broken, and the result.
    fn inject(&self, fault: Fault) -> Outcome;
}

/// A kind of fault: a row of the table.
pub struct Kind {
    /// As in `KIND=...`.
    pub name: &'static str,
    /// In words.
    pub title: &'static str,
    /// Faults in the whole table.
    pub times: u32,
    /// Faults in `make test`.
    pub few: u32,
    /// Faults that are injected side by side, as they wait more than they work.
    pub at_once: u32,
    /// Starts what its faults break.
    pub open: fn() -> Result<Box<dyn Inject>, Harm>,
}

/// Puts together what a fault was and what came of it.
pub(crate) fn outcome(fault: impl Into<String>, inject: impl FnOnce() -> Result<Survived, Harm>) -> Outcome {
    Outcome { fault: fault.into(), result: inject() }
}
