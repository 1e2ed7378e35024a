//! A policy: which ops may fire on an image, how probably and how strongly.

use crate::error::ScheduleError;
use crate::op::Op;

/// Probability levels are 0..=10, in tenths.
pub const PROBABILITY_MAX: u8 = 10;
/// Magnitude levels are 0..=9; what a level means in degrees, pixels or factors is the op's.
pub const MAGNITUDE_MAX: u8 = 9;

/// One (op, probability, magnitude) entry of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The op that may fire.
    pub op: Op,
    /// Probability of firing, in tenths: 0..=10.
    pub probability: u8,
    /// Magnitude level: 0..=9.
    pub magnitude: u8,
}

/// A checked policy: every op of a list present twice, first all of them, then all again.
///
/// With the 15 ops of the paper that is 30 slots, written as 60 integers (*hyperparameters*)
/// `[p0, m0, p1, m1, ...]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    slots: Vec<Slot>,
}

impl Policy {
    /// Builds a policy from the flat integers `[p0, m0, p1, m1, ...]` over `ops`, each op twice.
    ///
    /// # Errors
    /// When `ops` is empty or names an op twice, when there are not `4 * ops.len()` integers, or
    /// when one is out of range.
    pub fn from_hyperparameters(ops: &[Op], values: &[u8]) -> Result<Policy, ScheduleError> {
        check_ops(ops)?;
        let expected = 4 * ops.len();
        if values.len() != expected {
            return Err(ScheduleError::PolicyLength { found: values.len(), expected });
        }
        let mut slots = Vec::with_capacity(2 * ops.len());
        for (position, pair) in values.chunks_exact(2).enumerate() {
            let slot = Slot { op: ops[position % ops.len()], probability: pair[0], magnitude: pair[1] };
            if slot.probability > PROBABILITY_MAX {
                return Err(ScheduleError::Probability {
                    op: slot.op,
                    position,
                    value: slot.probability.into(),
                });
            }
            if slot.magnitude > MAGNITUDE_MAX {
                return Err(ScheduleError::Magnitude { op: slot.op, position, value: slot.magnitude.into() });
            }
            slots.push(slot);
        }
        Ok(Policy { slots })
    }

    /// Reads comma-separated integers over the paper's 15 ops: 60 of them.
    ///
    /// # Errors
    /// As [`Policy::from_hyperparameters`], and when an entry is not an integer.
    pub fn from_csv(text: &str) -> Result<Policy, ScheduleError> {
        let values = text
            .split(',')
            .map(|entry| {
                let entry = entry.trim();
                entry.parse::<u8>().map_err(|_| ScheduleError::NotALevel { value: entry.to_owned() })
            })
            .collect::<Result<Vec<u8>, _>>()?;
        Policy::from_hyperparameters(&Op::ALL, &values)
    }

    /// The policy that never does anything: every level 0.
    ///
    /// # Errors
    /// When `ops` is empty or names an op twice.
    pub fn zero(ops: &[Op]) -> Result<Policy, ScheduleError> {
        Policy::from_hyperparameters(ops, &vec![0; 4 * ops.len()])
    }

    /// The slots, in order.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The ops, each once, in order.
    pub fn ops(&self) -> impl ExactSizeIterator<Item = Op> + '_ {
        self.slots[..self.slots.len() / 2].iter().map(|slot| slot.op)
    }

    /// The flat integers `[p0, m0, p1, m1, ...]`.
    pub fn hyperparameters(&self) -> Vec<u8> {
        self.slots.iter().flat_map(|slot| [slot.probability, slot.magnitude]).collect()
    }
}

/// Checks that a list of ops is not empty and holds no op twice.
pub(crate) fn check_ops(ops: &[Op]) -> Result<(), ScheduleError> {
    if ops.is_empty() {
        return Err(ScheduleError::NoOps);
    }
    for (position, op) in ops.iter().enumerate() {
        if ops[..position].contains(op) {
            return Err(ScheduleError::RepeatedOp { op: *op });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyperparameters_round_trip() {
        let values: Vec<u8> = (0..60).map(|i| if i % 2 == 0 { i / 2 % 11 } else { i % 10 }).collect();
        let policy = Policy::from_hyperparameters(&Op::ALL, &values).unwrap();
        assert_eq!(policy.hyperparameters(), values);
        assert_eq!(policy.slots()[16].op, Op::TranslateX);
        assert_eq!(policy.ops().collect::<Vec<_>>(), Op::ALL);
    }

    #[track_caller]
    fn refuse(csv: &str, says: &str) {
        let error = Policy::from_csv(csv).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }

    #[test]
    fn wrong_policies_are_refused_by_name() {
        let with = |position: usize, value: &str| {
            let mut entries = vec!["0"; 60];
            entries[position] = value;
            entries.join(",")
        };
        refuse("1,2,3", "3 integers; expected 60");
        refuse(&with(4, "11"), "probability 11 of TranslateY");
        refuse(&with(31, "10"), "magnitude 10 of Rotate");
        refuse(&with(7, "-1"), "\"-1\"");
        refuse(&with(7, "x"), "\"x\"");
    }
}
