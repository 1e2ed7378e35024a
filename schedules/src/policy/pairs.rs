//! The paper's policies: every op twice, each time with a probability and a magnitude.
//!
//! An image gets none, one or two of the ops that come true; how they are drawn stands in
//! `pba_augment::draws`.

use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::error::ScheduleError;
use crate::op::{MAGNITUDE_MAX, Op, OpOdds, PROBABILITY_MAX};
use crate::policy::object::parse;

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

/// A checked policy of pairs: every op of a list present twice, first all of them, then all again.
///
/// With the 15 ops of the paper that is 30 slots, written as 60 integers (*hyperparameters*)
/// `[p0, m0, p1, m1, ...]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pairs {
    slots: Vec<Slot>,
}

impl Pairs {
    /// The family's name in files.
    pub(super) const FAMILY: &str = "pairs";

    /// Most ops that are applied to one image.
    pub const CALLS_MAX: usize = 2;

    /// Builds a policy from the flat integers `[p0, m0, p1, m1, ...]` over `ops`, each op twice.
    ///
    /// # Errors
    /// When `ops` is empty or names an op twice, when there are not `4 * ops.len()` integers, or
    /// when one is out of range.
    pub fn from_hyperparameters(ops: &[Op], values: &[u8]) -> Result<Pairs, ScheduleError> {
        if ops.is_empty() {
            return Err(ScheduleError::NoOps);
        }
        if let Some((_, &op)) = ops.iter().enumerate().find(|(position, op)| ops[..*position].contains(op)) {
            return Err(ScheduleError::RepeatedOp { op });
        }
        let expected = 4 * ops.len();
        if values.len() != expected {
            return Err(ScheduleError::PolicyLength { found: values.len(), expected });
        }
        let mut slots = Vec::with_capacity(2 * ops.len());
        for (position, pair) in values.chunks_exact(2).enumerate() {
            let slot = Slot { op: ops[position % ops.len()], probability: pair[0], magnitude: pair[1] };
            let levels = [
                ("probability", slot.probability, PROBABILITY_MAX),
                ("magnitude", slot.magnitude, MAGNITUDE_MAX),
            ];
            if let Some((kind, value, max)) = levels.into_iter().find(|(_, value, max)| value > max) {
                return Err(ScheduleError::Level { kind, value, op: slot.op, position, max });
            }
            slots.push(slot);
        }
        Ok(Pairs { slots })
    }

    /// Reads comma-separated integers over the paper's 15 ops: 60 of them.
    ///
    /// # Errors
    /// As [`Pairs::from_hyperparameters`], and when an entry is not an integer.
    pub fn from_csv(text: &str) -> Result<Pairs, ScheduleError> {
        let values = text
            .split(',')
            .map(str::trim)
            .map(|entry| entry.parse().map_err(|_| ScheduleError::NotALevel { value: entry.to_owned() }));
        Pairs::from_hyperparameters(&Op::PAPER, &values.collect::<Result<Vec<u8>, _>>()?)
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

    /// The mean over the two slots of an op, its magnitude weighted by probability.
    pub(super) fn odds(&self, op: Op) -> OpOdds {
        let slots = || self.slots.iter().filter(|slot| slot.op == op);
        let sum: u32 = slots().map(|slot| u32::from(slot.probability)).sum();
        let weighted: u32 = slots().map(|slot| u32::from(slot.probability) * u32::from(slot.magnitude)).sum();
        OpOdds {
            probability: f64::from(sum) / f64::from(2 * u32::from(PROBABILITY_MAX)),
            magnitude: f64::from(weighted) / f64::from(sum.max(1)),
        }
    }

    /// The mean of min(count, slots that fire): an image may get 0, 1 or 2 ops with probabilities 0.2, 0.3
    /// and 0.5, and each slot fires by itself.
    pub(super) fn ops_expected(&self) -> f64 {
        let (mut none, mut one) = (1.0, 0.0);
        for slot in &self.slots {
            let fires = f64::from(slot.probability) / f64::from(PROBABILITY_MAX);
            (none, one) = (none * (1.0 - fires), one * (1.0 - fires) + none * fires);
        }
        let (at_least_one, at_least_two) = (1.0 - none, 1.0 - none - one);
        0.3 * at_least_one + 0.5 * (at_least_one + at_least_two)
    }

    /// The names of its ops, separated by spaces.
    pub(crate) fn op_names(&self) -> String {
        self.ops().map(Op::name).collect::<Vec<_>>().join(" ")
    }

    /// Its hyperparameters, separated by spaces.
    pub(crate) fn levels(&self) -> String {
        self.hyperparameters().iter().map(u8::to_string).collect::<Vec<_>>().join(" ")
    }

    /// A policy from its object in a document.
    ///
    /// # Errors
    /// When that does not make one.
    pub(super) fn from_json(text: &str) -> Result<Pairs, ScheduleError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            #[serde(rename = "family")]
            _family: IgnoredAny,
            ops: Vec<String>,
            levels: Vec<[i64; 2]>,
        }
        let Raw { ops, levels, .. } = parse(Pairs::FAMILY, text)?;
        RawPairs { ops, levels }.try_into()
    }

    /// Its fields in a document.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let ops: Vec<Op> = self.ops().collect();
        let levels: Vec<_> = self.slots.iter().map(|slot| [slot.probability, slot.magnitude]).collect();
        Map::from_iter([("ops".to_owned(), json!(ops)), ("levels".to_owned(), json!(levels))])
    }

    /// What affects pixels, where a schedule does not say the ops once for all its policies.
    pub(super) fn canonical(&self) -> String {
        format!("{}: {}", self.op_names(), self.levels())
    }
}

/// Each slot that can come true: its op, its probability and its magnitude level.
impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (once, again) = self.slots.split_at(self.slots.len() / 2);
        let slots = once.iter().zip(again).flat_map(|(one, other)| [one, other]);
        for (i, slot) in slots.filter(|slot| slot.probability > 0).enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{} {:.1}/{}", slot.op, f64::from(slot.probability) / 10.0, slot.magnitude)?;
        }
        Ok(())
    }
}

/// A policy of pairs as it stands in a document, before anything is checked.
pub(crate) struct RawPairs {
    /// Names of the ops.
    pub(crate) ops: Vec<String>,
    /// Probability and magnitude of each slot.
    pub(crate) levels: Vec<[i64; 2]>,
}

impl TryFrom<RawPairs> for Pairs {
    type Error = ScheduleError;

    fn try_from(RawPairs { ops, levels }: RawPairs) -> Result<Pairs, ScheduleError> {
        let ops = ops.into_iter().map(|name| Op::named(&name).ok_or(ScheduleError::UnknownOp(name)));
        let ops = ops.collect::<Result<Vec<_>, _>>()?;
        let levels = levels.into_flattened().into_iter().map(|level| {
            u8::try_from(level).map_err(|_| ScheduleError::NotALevel { value: level.to_string() })
        });
        Pairs::from_hyperparameters(&ops, &levels.collect::<Result<Vec<_>, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyperparameters_round_trip() {
        let values: Vec<u8> = (0..60).map(|i| if i % 2 == 0 { i / 2 % 11 } else { i % 10 }).collect();
        let policy = Pairs::from_hyperparameters(&Op::PAPER, &values).unwrap();
        assert_eq!(policy.hyperparameters(), values);
        assert_eq!(policy.slots()[16].op, Op::TranslateX);
        assert_eq!(policy.ops().collect::<Vec<_>>(), Op::PAPER);
    }

    #[test]
    fn odds_are_over_both_slots_of_an_op() {
        let ops = [Op::Rotate, Op::Invert, Op::Color];
        let policy = Pairs::from_hyperparameters(&ops, &[5, 4, 3, 9, 0, 8, 10, 7, 0, 1, 0, 9]).unwrap();
        // (5 + 10) of 20 tenths; 5 times magnitude 4 and 10 times magnitude 7 are 90 of 15.
        assert_eq!(policy.odds(Op::Rotate), OpOdds { probability: 0.75, magnitude: 6.0 });
        assert_eq!(policy.odds(Op::Invert), OpOdds { probability: 0.15, magnitude: 9.0 });
        assert_eq!(policy.odds(Op::Color), OpOdds { probability: 0.0, magnitude: 0.0 });
        assert_eq!(policy.to_string(), "Rotate 0.5/4, Rotate 1.0/7, Invert 0.3/9");
        assert_eq!(policy.canonical(), "Rotate Invert Color: 5 4 3 9 0 8 10 7 0 1 0 9");
        assert_eq!(Pairs::from_hyperparameters(&ops, &[0; 12]).unwrap().to_string(), "", "it does nothing");
    }

    #[test]
    fn an_image_gets_two_ops_at_most_and_fewer_where_slots_do_not_fire() {
        let ops = [Op::Rotate, Op::Invert];
        let expected = |values: [u8; 8]| Pairs::from_hyperparameters(&ops, &values).unwrap().ops_expected();
        assert_eq!(expected([0; 8]), 0.0);
        // One slot that always fires: 0.3 + 0.5 of the images have room for it.
        assert!((expected([10, 1, 0, 0, 0, 0, 0, 0]) - 0.8).abs() < 1e-12);
        assert!((expected([10, 1, 10, 1, 10, 1, 0, 0]) - 1.3).abs() < 1e-12);
        // Both of two fire in a quarter, one of them in a half of the cases.
        let half = 0.3 * 0.75 + 0.5 * (0.5 + 2.0 * 0.25);
        assert!((expected([5, 1, 0, 0, 5, 1, 0, 0]) - half).abs() < 1e-12);
    }

    #[track_caller]
    fn refuse(csv: &str, says: &str) {
        let error = Pairs::from_csv(csv).unwrap_err().to_string();
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
