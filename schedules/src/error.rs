//! What can be wrong with a schedule or a policy, named with its value and place.

use pba_types::limits::EPOCHS_MAX;
use pba_types::{Digest, NAME_SHOWN, NameError, names_allowed, shortened};

use crate::op::{MAGNITUDE_MAX, Op, PROBABILITY_MAX};
use crate::policy::space::{BIN_MAX, RAND_AUGMENT_OPS_MAX};

/// Why a schedule or a policy was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ScheduleError {
    /// A policy without any op.
    #[error("a policy needs at least one op")]
    NoOps,
    /// An op listed twice.
    #[error("op {op} is listed twice")]
    RepeatedOp { op: Op },
    /// A name that is not an op's.
    #[error("unknown op {:?}; the ops are {}", .0, Op::names())]
    UnknownOp(String),
    /// Too few or too many integers in a policy.
    #[error(
        "a policy of {found} integers; expected {expected}: a probability and a magnitude per slot, each op twice"
    )]
    PolicyLength { found: usize, expected: usize },
    /// A level that is too high.
    #[error("{kind} {value} of {op} in slot {position} is out of range; allowed are 0..={max}")]
    Level { kind: &'static str, value: u8, op: Op, position: usize, max: u8 },
    /// Something that is not a small integer where a level should be.
    #[error(
        "{value:?} is not a level; allowed are integers, probability 0..={PROBABILITY_MAX} and magnitude 0..={MAGNITUDE_MAX}"
    )]
    NotALevel { value: String },
    /// A schedule name that could not be used in a path or a URL.
    #[error("{:?} is not a schedule name; allowed are {}", .0.0, names_allowed())]
    Name(NameError),
    /// A schedule without segments, or a segment without epochs.
    #[error(
        "segment {position} lasts {epochs} epochs; every segment lasts at least one, and a schedule has at least one segment"
    )]
    EmptySegment { position: usize, epochs: u64 },
    /// Segments that do not add up to the schedule's epochs.
    #[error("the segments last {sum} epochs, the schedule says {epochs}")]
    EpochSum { sum: u64, epochs: u64 },
    /// A run of no epochs or too many.
    #[error("{epochs} epochs is out of range; allowed are 1..={EPOCHS_MAX}")]
    Epochs { epochs: u64 },
    /// An epoch at or after the end of the run.
    #[error("epoch {epoch} is out of range; a run of {epochs} epochs has epochs 0..={}", epochs.saturating_sub(1))]
    Epoch { epoch: u32, epochs: u32 },
    /// A name that is not a family's.
    #[error("unknown family {name:?} of policies; the families are {}", known.join(", "))]
    UnknownFamily { name: String, known: &'static [&'static str] },
    /// A name of RandAugment's without its two numbers, or with others than are allowed.
    #[error(
        "{name:?} is not a policy of RandAugment; allowed are randaugment:N:M with N, the ops of an image, in \
         1..={RAND_AUGMENT_OPS_MAX} and M, their magnitude, in 0..={BIN_MAX}, as in randaugment:2:9"
    )]
    RandAugment { name: String },
    /// No sub-policy, or too many.
    #[error("{found} sub-policies; allowed are 1..={max}")]
    SubPolicies { found: usize, max: usize },
    /// An op of a sub-policy with something that is not allowed.
    #[error("sub-policy {position}: {reason}")]
    Chance { position: usize, reason: String },
    /// A schedule under the name of a policy that it does not hold throughout.
    #[error("a schedule named {name:?} holds another policy")]
    NotThePolicy { name: String },
    /// Fields that are not those of a policy's family.
    #[error("not a policy of family {family:?}: {reason}")]
    Fields { family: String, reason: String },
    /// A segment whose pairs are over other ops than the schedule's.
    #[error("the policy of segment {position} is over other ops than the first segment's")]
    MixedOps { position: usize },
    /// A file that is not in a format we read.
    #[error("line {line}: {reason}")]
    Log { line: usize, reason: String },
    /// A log that cannot be that of one trial, without a word about whose lineage is meant.
    #[error(
        "line {line} does not follow from the line before it as in the log of one trial: either the log holds the \
         exploits of several trials, as pbt_global.txt does, and one of them has to be named (its trials are {}), or lines \
         of one trial's log are missing",
        listed(known)
    )]
    Population { line: usize, known: Vec<String> },
    /// A trial that a log does not hold, or two by one number.
    #[error(
        "there is no trial {:?} in the log; its trials are {}",
        shortened(name, NAME_SHOWN),
        listed(known)
    )]
    UnknownTrial { name: String, known: Vec<String> },
    /// A schedule that another program's terms cannot say.
    #[error("cannot be written as {format}: {reason}")]
    NotExpressible { format: &'static str, reason: String },
    /// A schedule that is not the one that its document says it is.
    #[error(
        "the document says that its digest is {said}, and it is {found}: it was damaged, or edited; \
         remove the digest after editing"
    )]
    Digest { said: String, found: Digest },
    /// JSON that is not a schedule.
    #[error("not a {format} document: {reason}")]
    Json { format: &'static str, reason: String },
}

/// Most trials that a message lists.
const TRIALS_SHOWN: usize = 32;

/// The first of some names, and how many more there are.
fn listed(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(TRIALS_SHOWN).map(|name| shortened(name, NAME_SHOWN)).collect();
    match names.len().saturating_sub(TRIALS_SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
