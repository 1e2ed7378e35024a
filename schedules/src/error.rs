//! What can be wrong with a schedule or a policy, named with its value and place.

use pba_types::limits::EPOCHS_MAX;
use pba_types::names_allowed;

use crate::op::{MAGNITUDE_MAX, Op, PROBABILITY_MAX, UnknownOp};

/// Why a schedule or a policy was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// A policy without any op.
    #[error("a policy needs at least one op")]
    NoOps,
    /// An op listed twice.
    #[error("op {op} is listed twice")]
    RepeatedOp {
        /// The repeated op.
        op: Op,
    },
    /// A name that is not an op's.
    #[error(transparent)]
    UnknownOp(#[from] UnknownOp),
    /// Too few or too many integers in a policy.
    #[error(
        "a policy of {found} integers; expected {expected}: a probability and a magnitude per slot, each op twice"
    )]
    PolicyLength {
        /// How many there were.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A probability level over 10.
    #[error(
        "probability {value} of {op} in slot {position} is out of range; allowed are 0..={PROBABILITY_MAX}"
    )]
    Probability {
        /// The slot's op.
        op: Op,
        /// The slot's position.
        position: usize,
        /// The offending value.
        value: u64,
    },
    /// A magnitude level over 9.
    #[error("magnitude {value} of {op} in slot {position} is out of range; allowed are 0..={MAGNITUDE_MAX}")]
    Magnitude {
        /// The slot's op.
        op: Op,
        /// The slot's position.
        position: usize,
        /// The offending value.
        value: u64,
    },
    /// Something that is not a small integer where a level should be.
    #[error(
        "{value:?} is not a level; allowed are integers, probability 0..={PROBABILITY_MAX} and magnitude 0..={MAGNITUDE_MAX}"
    )]
    NotALevel {
        /// What was found.
        value: String,
    },
    /// A schedule name that could not be used in a path or a URL.
    #[error("{name:?} is not a schedule name; allowed are {}", names_allowed())]
    Name {
        /// The offending name.
        name: String,
    },
    /// A schedule without segments, or a segment without epochs.
    #[error(
        "segment {position} lasts {epochs} epochs; every segment lasts at least one, and a schedule has at least one segment"
    )]
    EmptySegment {
        /// Which segment.
        position: usize,
        /// How long it was said to last.
        epochs: u64,
    },
    /// Segments that do not add up to the schedule's epochs.
    #[error("the segments last {sum} epochs, the schedule says {epochs}")]
    EpochSum {
        /// Sum over segments.
        sum: u64,
        /// What the schedule says.
        epochs: u64,
    },
    /// A run of no epochs or too many.
    #[error("{epochs} epochs is out of range; allowed are 1..={EPOCHS_MAX}")]
    Epochs {
        /// The offending value.
        epochs: u64,
    },
    /// An epoch at or after the end of the run.
    #[error("epoch {epoch} is out of range; a run of {epochs} epochs has epochs 0..={}", epochs.saturating_sub(1))]
    Epoch {
        /// The offending epoch, 0-based.
        epoch: u32,
        /// Epochs of the run.
        epochs: u32,
    },
    /// A name that is not a family's.
    #[error("unknown family {name:?} of policies; the families are {}", known.join(", "))]
    UnknownFamily {
        /// The name that was given.
        name: String,
        /// The names of all families.
        known: &'static [&'static str],
    },
    /// Fields that are not those of a policy's family.
    #[error("not a policy of family {family:?}: {reason}")]
    Fields {
        /// The family.
        family: String,
        /// What is wrong with them.
        reason: String,
    },
    /// A segment whose pairs are over other ops than the schedule's.
    #[error("the policy of segment {position} is over other ops than the first segment's")]
    MixedOps {
        /// Which segment.
        position: usize,
    },
    /// A file that is not in a format we read.
    #[error("line {line}: {reason}")]
    Log {
        /// 1-based line number.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// JSON that is not a schedule.
    #[error("not a {format} document: {reason}")]
    Json {
        /// The format that it says it is in, or the first one.
        format: &'static str,
        /// What is wrong with it, and where.
        reason: String,
    },
}
