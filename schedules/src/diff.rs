//! What differs between two schedules in what they apply, epoch by epoch.

use serde::Serialize;

use crate::op::Op;
use crate::policy::Policy;
use crate::policy::pairs::{Pairs, Slot};
use crate::schedule::Schedule;

/// Where two schedules differ. Names and provenance are not compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Epochs of each.
    pub epochs: [u32; 2],
    /// How many epochs were compared, from the first on: those that both have, where a single policy has as many as
    /// anyone likes.
    pub compared: u32,
    /// The epochs whose policies differ, in order.
    pub ranges: Vec<DifferentEpochs>,
}

/// Consecutive epochs that differ in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DifferentEpochs {
    /// The first of them, 0-based.
    pub first: u32,
    /// The last of them.
    pub last: u32,
    /// What differs: at least one thing.
    pub changes: Vec<Change>,
}

/// One thing that differs between two policies: what it is in either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Change {
    /// A slot of an op, where both are policies of pairs.
    Slot {
        /// The op.
        op: Op,
        /// Which of its two slots: 0 or 1.
        slot: usize,
        /// Its levels in either policy; none where the policy is not over this op.
        levels: [Option<Levels>; 2],
    },
    /// The order of the ops, where both are policies of pairs over the same; pixels depend on it.
    Order {
        /// The ops of either policy.
        ops: [Vec<Op>; 2],
    },
    /// Policies of which one at least is not of pairs, in words.
    Policies {
        /// Their families.
        families: [&'static str; 2],
        /// What they do.
        policies: [String; 2],
    },
}

/// How probably and how strongly an op is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Levels {
    /// In tenths: 0..=10.
    pub probability: u8,
    /// 0..=9.
    pub magnitude: u8,
}

impl Difference {
    /// Whether the schedules are the same: then, and only then, their digests are.
    pub fn is_empty(&self) -> bool {
        self.epochs[0] == self.epochs[1] && self.ranges.is_empty()
    }
}

/// Compares two schedules epoch by epoch, each at its own length.
pub fn diff(one: &Schedule, other: &Schedule) -> Difference {
    let epochs = [one.epochs(), other.epochs()];
    let compared = match (one.is_constant(), other.is_constant()) {
        (true, _) => epochs[1],
        (_, true) => epochs[0],
        _ => epochs[0].min(epochs[1]),
    };
    let mut ranges: Vec<DifferentEpochs> = Vec::new();
    let (mut ones, mut others) = (Ends::of(one), Ends::of(other));
    let mut first = 0;
    while first < compared {
        let (one, one_end) = ones.at(first);
        let (other, other_end) = others.at(first);
        let last = one_end.min(other_end).min(compared) - 1;
        if one != other {
            let changes = changes(one, other);
            match ranges.last_mut() {
                Some(range) if range.last + 1 == first && range.changes == changes => range.last = last,
                _ => ranges.push(DifferentEpochs { first, last, changes }),
            }
        }
        first = last + 1;
    }
    Difference { epochs, compared, ranges }
}

/// A walk through the segments of a schedule, whose last one has no end.
struct Ends<'a> {
    schedule: &'a Schedule,
    segment: usize,
    /// The first epoch after the segment.
    end: u32,
}

impl<'a> Ends<'a> {
    fn of(schedule: &'a Schedule) -> Ends<'a> {
        Ends { schedule, segment: 0, end: schedule.segments()[0].epochs }
    }

    /// The policy of an epoch, and the first epoch after its segment. Epochs are asked for in order.
    fn at(&mut self, epoch: u32) -> (&'a Policy, u32) {
        let segments = self.schedule.segments();
        while epoch >= self.end && self.segment + 1 < segments.len() {
            self.segment += 1;
            self.end += segments[self.segment].epochs;
        }
        let is_last = self.segment + 1 == segments.len();
        (&segments[self.segment].policy, if is_last { u32::MAX } else { self.end })
    }
}

/// What differs between two policies that are not the same.
fn changes(one: &Policy, other: &Policy) -> Vec<Change> {
    let (Some(one_pairs), Some(other_pairs)) = (one.as_pairs(), other.as_pairs()) else {
        let families = [one.family(), other.family()];
        return vec![Change::Policies { families, policies: [one.to_string(), other.to_string()] }];
    };
    let ops: [Vec<Op>; 2] = [one_pairs.ops().collect(), other_pairs.ops().collect()];
    let more = ops[1].iter().filter(|op| !ops[0].contains(op));
    let slots = ops[0].iter().chain(more).flat_map(|&op| [(op, 0), (op, 1)]);
    let mut changes: Vec<Change> = slots
        .map(|(op, slot)| (op, slot, [one_pairs, other_pairs].map(|pairs| levels(pairs, op, slot))))
        .filter(|(_, _, levels)| levels[0] != levels[1])
        .map(|(op, slot, levels)| Change::Slot { op, slot, levels })
        .collect();
    if changes.is_empty() {
        changes.push(Change::Order { ops });
    }
    changes
}

/// The levels of one of an op's two slots.
fn levels(pairs: &Pairs, op: Op, slot: usize) -> Option<Levels> {
    let levels = |slot: &Slot| Levels { probability: slot.probability, magnitude: slot.magnitude };
    pairs.slots().iter().filter(|found| found.op == op).nth(slot).map(levels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provenance::Provenance;
    use crate::schedule::Segment;
    use crate::{library, random_schedule};

    fn rotate(levels: [u8; 4]) -> Policy {
        Policy::from_hyperparameters(&[Op::Rotate], &levels).unwrap()
    }

    fn schedule(segments: &[(u32, Policy)]) -> Schedule {
        let segments =
            segments.iter().map(|(epochs, policy)| Segment { epochs: *epochs, policy: policy.clone() });
        Schedule::new("test", segments.collect(), Provenance::default()).unwrap()
    }

    fn slot(slot: usize, [p, m, q, n]: [u8; 4]) -> Change {
        let levels = [(p, m), (q, n)].map(|(probability, magnitude)| Some(Levels { probability, magnitude }));
        Change::Slot { op: Op::Rotate, slot, levels }
    }

    #[test]
    fn ranges_of_epochs_that_differ_in_the_same_way_are_one() {
        let one = schedule(&[(2, rotate([1, 2, 3, 4])), (4, rotate([5, 2, 3, 4])), (3, rotate([0; 4]))]);
        let other = schedule(&[
            (1, rotate([1, 2, 3, 4])),
            (2, rotate([1, 9, 3, 4])),
            (1, rotate([1, 9, 3, 4])),
            (9, rotate([5, 2, 3, 8])),
        ]);
        let range = |first, last, changes| DifferentEpochs { first, last, changes };
        let found = diff(&one, &other);
        assert_eq!((found.epochs, found.compared, found.is_empty()), ([9, 13], 9, false));
        assert_eq!(
            found.ranges,
            [
                range(1, 1, vec![slot(0, [1, 2, 1, 9])]),
                range(2, 3, vec![slot(0, [5, 2, 1, 9])]),
                range(4, 5, vec![slot(1, [3, 4, 3, 8])]),
                range(6, 8, vec![slot(0, [0, 0, 5, 2]), slot(1, [0, 0, 3, 8])]),
            ]
        );
    }

    #[test]
    fn there_is_no_difference_where_digests_are_equal_and_only_there() {
        let zero = rotate([0; 4]);
        let mut all = library::all();
        all.extend([random_schedule(1), random_schedule(2), schedule(&[(1, zero.clone())])]);
        all.extend([schedule(&[(2, zero.clone())]), schedule(&[(1, zero.clone()), (1, zero.clone())])]);
        let ops = |ops: &[Op]| schedule(&[(2, Policy::zero(ops).unwrap())]);
        all.extend([ops(&[Op::Rotate, Op::Invert]), ops(&[Op::Invert, Op::Rotate])]);
        all.push(schedule(&[(1, zero), (1, library::all().pop().unwrap().at_search_epoch(0).clone())]));
        for one in &all {
            for other in &all {
                let found = diff(one, other);
                assert_eq!(
                    found.is_empty(),
                    one.digest() == other.digest(),
                    "{} {}",
                    one.name(),
                    other.name()
                );
                // By other code: epoch by epoch.
                for epoch in 0..found.compared {
                    let differs =
                        one.at(epoch, one.run_epochs(epoch)) != other.at(epoch, other.run_epochs(epoch));
                    let ranges =
                        found.ranges.iter().filter(|range| (range.first..=range.last).contains(&epoch));
                    assert_eq!(ranges.count(), usize::from(differs), "epoch {epoch}");
                }
            }
        }
    }

    #[test]
    fn other_ops_and_other_families_are_told() {
        let changes = |one: &Policy, other: &Policy| {
            diff(&schedule(&[(1, one.clone())]), &schedule(&[(1, other.clone())])).ranges[0].changes.clone()
        };
        let invert = Policy::from_hyperparameters(&[Op::Invert], &[1, 0, 2, 0]).unwrap();
        let found = changes(&rotate([0, 0, 3, 4]), &invert);
        assert_eq!(found.len(), 4);
        let levels = [None, Some(Levels { probability: 2, magnitude: 0 })];
        assert_eq!(found[3], Change::Slot { op: Op::Invert, slot: 1, levels });
        let trivial = library::named("trivial-augment-wide").unwrap().unwrap();
        let policies = ["Rotate 0.3/4", "1 of 14 ops at a random magnitude"].map(str::to_owned);
        let families = ["pairs", "trivial-augment-wide"];
        assert_eq!(
            changes(&rotate([0, 0, 3, 4]), trivial.at_search_epoch(0)),
            [Change::Policies { families, policies }]
        );
        let [one, other] = [[Op::Rotate, Op::Invert], [Op::Invert, Op::Rotate]];
        let found = changes(&Policy::zero(&one).unwrap(), &Policy::zero(&other).unwrap());
        assert_eq!(found, [Change::Order { ops: [one.to_vec(), other.to_vec()] }]);
    }

    /// A policy by name suits every epoch of a schedule.
    #[test]
    fn a_single_policy_is_compared_with_every_epoch() {
        let found = diff(&library::named("randaugment:2:9").unwrap().unwrap(), &library::svhn_pba());
        assert_eq!((found.compared, found.ranges.len()), (160, 14));
        assert_eq!((found.ranges[0].first, found.ranges[13].last), (0, 159));
    }
}
