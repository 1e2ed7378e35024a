//! A schedule: a policy per epoch.

use pba_types::limits::EPOCHS_MAX;
use pba_types::rng::{Address, Purpose, below};
use pba_types::{Digest, check_name};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::error::ScheduleError;
use crate::op::Op;
use crate::policy::Policy;
use crate::policy::pairs::Pairs;
use crate::policy::rand_augment::RandAugment;
use crate::provenance::Provenance;

/// Consecutive epochs that share a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// How many epochs: at least 1.
    pub epochs: u32,
    /// The policy of each of them.
    pub policy: Policy,
}

pba_types::named! {
    /// How a schedule is bent to see what it is worth (the paper's ablations).
    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Ablation {
        /// As learned.
        #[default]
        Scheduled = "scheduled",
        /// Each image draws its policy from the whole schedule.
        Flatten = "flatten",
        /// The epochs of the schedule in a random order that the seed fixes.
        Shuffled = "shuffled",
        /// The last policy throughout.
        Final = "final",
    }
}

/// A checked schedule: named, immutable, addressed by the digest of what affects pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    name: String,
    segments: Vec<Segment>,
    /// First epoch after each segment; the last one is the schedule's length.
    ends: Vec<u32>,
    /// What is known about where it comes from.
    pub provenance: Provenance,
    digest: Digest,
}

impl Schedule {
    /// Builds a schedule from its segments, in order.
    ///
    /// # Errors
    /// When the name is unusable ([`check_name`]) and no name of RandAugment's, or is one of those and
    /// the policy is another, there is no segment, a segment lasts 0 epochs, the epochs add up to more
    /// than [`EPOCHS_MAX`], or its policies of pairs are over different ops.
    pub fn new(
        name: impl Into<String>,
        segments: Vec<Segment>,
        provenance: Provenance,
    ) -> Result<Schedule, ScheduleError> {
        let name = checked_name(name.into(), &segments)?;
        if segments.is_empty() {
            return Err(ScheduleError::EmptySegment { position: 0, epochs: 0 });
        }
        let first_pairs = segments.iter().find_map(|segment| segment.policy.as_pairs());
        let mut ends = Vec::with_capacity(segments.len());
        let mut sum = 0u64;
        for (position, segment) in segments.iter().enumerate() {
            if segment.epochs == 0 {
                return Err(ScheduleError::EmptySegment { position, epochs: 0 });
            }
            if let (Some(pairs), Some(first)) = (segment.policy.as_pairs(), first_pairs)
                && !pairs.ops().eq(first.ops())
            {
                return Err(ScheduleError::MixedOps { position });
            }
            sum += u64::from(segment.epochs);
            ends.push(check_epochs(sum)?);
        }
        let digest = digest(&segments);
        Ok(Schedule { name, segments, ends, provenance, digest })
    }

    /// The same schedule under another name.
    ///
    /// # Errors
    /// When the name is unusable, as for [`Schedule::new`].
    pub fn renamed(mut self, name: impl Into<String>) -> Result<Schedule, ScheduleError> {
        self.name = checked_name(name.into(), &self.segments)?;
        Ok(self)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Epochs of the search that learned it.
    pub fn epochs(&self) -> u32 {
        *self.ends.last().expect("a schedule has a segment")
    }

    /// Whether it is one policy, for as long as anyone likes: a schedule of a single epoch. Any epoch is
    /// then within it.
    pub fn is_constant(&self) -> bool {
        self.epochs() == 1
    }

    /// Epochs of a training run that does not say how many it has: those of the schedule, and as many as
    /// `epoch` needs where there is but one policy.
    pub fn run_epochs(&self, epoch: u32) -> u32 {
        if self.is_constant() { epoch.saturating_add(1) } else { self.epochs() }
    }

    /// Its segments, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// SHA-256 of the canonical form of what affects pixels: the ops, and the policy of each
    /// epoch. Neighbouring segments with equal policies count as one.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The ops that its policies may apply, each once, in order.
    pub fn ops(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        for op in self.segments.iter().flat_map(|segment| segment.policy.ops()) {
            if !ops.contains(&op) {
                ops.push(op);
            }
        }
        ops
    }

    /// The policy of one epoch of a training run of `epochs` epochs.
    ///
    /// The schedule of S epochs is stretched: training epoch e uses search epoch
    /// floor(e * S / epochs).
    ///
    /// # Errors
    /// When `epoch` is not below `epochs`.
    pub fn at(&self, epoch: u32, epochs: u32) -> Result<&Policy, ScheduleError> {
        Ok(self.at_search_epoch(self.search_epoch(epoch, epochs)?))
    }

    /// The policy of one epoch under an ablation; none where each image draws a search epoch uniformly,
    /// and uses the policy of that epoch.
    ///
    /// # Errors
    /// When `epoch` is not below `epochs`.
    pub fn ablated(
        &self,
        ablation: Ablation,
        epoch: u32,
        epochs: u32,
        seed: u64,
    ) -> Result<Option<&Policy>, ScheduleError> {
        let search_epoch = self.search_epoch(epoch, epochs)?;
        let search_epoch = match ablation {
            Ablation::Scheduled => search_epoch,
            Ablation::Flatten => return Ok(None),
            Ablation::Shuffled => shuffled_epochs(self.epochs(), seed)[search_epoch as usize],
            Ablation::Final => self.epochs() - 1,
        };
        Ok(Some(self.at_search_epoch(search_epoch)))
    }

    /// The policy of a search epoch, 0-based.
    ///
    /// # Panics
    /// When `search_epoch` is not below [`Schedule::epochs`].
    pub fn at_search_epoch(&self, search_epoch: u32) -> &Policy {
        &self.segments[self.ends.partition_point(|&end| end <= search_epoch)].policy
    }

    fn search_epoch(&self, epoch: u32, epochs: u32) -> Result<u32, ScheduleError> {
        check_epochs(epochs.into())?;
        if epoch >= epochs {
            return Err(ScheduleError::Epoch { epoch, epochs });
        }
        Ok((u64::from(epoch) * u64::from(self.epochs()) / u64::from(epochs)) as u32)
    }
}

/// A name that a schedule of these segments can have.
fn checked_name(name: String, segments: &[Segment]) -> Result<String, ScheduleError> {
    match RandAugment::named(&name) {
        // Such a name says the policy itself.
        Some(Ok(policy)) if segments.iter().all(|segment| segment.policy == Policy::RandAugment(policy)) => {}
        Some(Ok(_)) => return Err(ScheduleError::NotThePolicy { name }),
        Some(Err(_)) | None => check_name(&name).map_err(ScheduleError::Name)?,
    }
    Ok(name)
}

/// A permutation of `0..epochs` that the seed fixes (Fisher and Yates).
fn shuffled_epochs(epochs: u32, seed: u64) -> Vec<u32> {
    let mut rng = Address { seed, purpose: Purpose::ScheduleOrder, epoch: 0, item: 0 }.stream();
    let mut order: Vec<u32> = (0..epochs).collect();
    for last in (1..epochs).rev() {
        order.swap(last as usize, below(rng.next_u32(), last + 1) as usize);
    }
    order
}

/// One line per run of equal policies: its epochs, then what affects pixels. Where all policies are
/// pairs, their ops are said once before.
fn digest(segments: &[Segment]) -> Digest {
    let all_pairs = pairs(segments);
    let mut canonical = match &all_pairs {
        Some(pairs) => format!("pba-schedule/1\n{}\n", pairs[0].op_names()),
        None => "pba-schedule/2\n".to_owned(),
    };
    for run in segments.chunk_by(|one, next| one.policy == next.policy) {
        let epochs: u64 = run.iter().map(|segment| u64::from(segment.epochs)).sum();
        let policy = match run[0].policy.as_pairs() {
            Some(pairs) if all_pairs.is_some() => pairs.levels(),
            _ => format!("{} {}", run[0].policy.family(), run[0].policy.canonical()),
        };
        canonical += &format!("{epochs} {policy}\n");
    }
    Digest::of(canonical)
}

/// The policy of each segment, when all are pairs.
pub(crate) fn pairs(segments: &[Segment]) -> Option<Vec<&Pairs>> {
    segments.iter().map(|segment| segment.policy.as_pairs()).collect()
}

fn check_epochs(epochs: u64) -> Result<u32, ScheduleError> {
    let checked = u32::try_from(epochs).ok().filter(|epochs| (1..=EPOCHS_MAX).contains(epochs));
    checked.ok_or(ScheduleError::Epochs { epochs })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::policy::TrivialAugmentWide;

    /// A policy that can be told apart by its number.
    fn policy(number: u8) -> Policy {
        let mut levels = [0; 60];
        levels[0] = number;
        Policy::from_hyperparameters(&Op::PAPER, &levels).unwrap()
    }

    fn schedule(segments: &[(u32, u8)]) -> Schedule {
        let segments = segments.iter().map(|&(epochs, number)| Segment { epochs, policy: policy(number) });
        Schedule::new("test", segments.collect(), Provenance::default()).unwrap()
    }

    #[test]
    fn each_epoch_has_its_segments_policy() {
        let schedule = schedule(&[(2, 1), (1, 2), (3, 3)]);
        let numbers: Vec<_> =
            (0..6).map(|epoch| schedule.at(epoch, 6).unwrap().slots()[0].probability).collect();
        assert_eq!(numbers, [1, 1, 2, 3, 3, 3]);
        assert_eq!(schedule.at(6, 6), Err(ScheduleError::Epoch { epoch: 6, epochs: 6 }));
        assert_eq!(schedule.at(0, 0), Err(ScheduleError::Epochs { epochs: 0 }));
    }

    #[test]
    fn stretching_follows_the_floor_rule() {
        let schedule = schedule(&[(2, 1), (1, 2), (3, 3)]);
        for epochs in [1, 2, 3, 5, 6, 7, 12, 100, EPOCHS_MAX] {
            for epoch in [0, epochs / 3, epochs / 2, epochs - 1] {
                let search_epoch = (u64::from(epoch) * 6 / u64::from(epochs)) as u32;
                assert_eq!(schedule.at(epoch, epochs).unwrap(), schedule.at(search_epoch, 6).unwrap());
            }
        }
    }

    #[test]
    fn ablations() {
        let schedule = schedule(&[(2, 1), (1, 2), (3, 3)]);
        let of = |ablation, epoch, seed| schedule.ablated(ablation, epoch, 6, seed).unwrap();
        assert_eq!(of(Ablation::Scheduled, 2, 0), Some(&policy(2)));
        assert_eq!(of(Ablation::Final, 0, 0), Some(&policy(3)));
        assert_eq!(of(Ablation::Flatten, 0, 0), None);
        let shuffled = |seed| {
            let policies: Vec<_> = (0..6)
                .map(|epoch| of(Ablation::Shuffled, epoch, seed).unwrap().slots()[0].probability)
                .collect();
            policies
        };
        let mut sorted = shuffled(1);
        sorted.sort();
        assert_eq!(sorted, [1, 1, 2, 3, 3, 3], "every search epoch once");
        assert_eq!(shuffled(1), shuffled(1));
        assert!((0..20).any(|seed| shuffled(seed) != shuffled(1)), "the seed matters");
    }

    #[test]
    fn every_order_is_as_likely() {
        let mut counts = BTreeMap::new();
        for seed in 0..6_000 {
            *counts.entry(shuffled_epochs(3, seed)).or_insert(0u32) += 1;
        }
        // 6,000 draws of 6 orders: mean 1,000, standard deviation 29.
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| count.abs_diff(1_000) < 145), "{counts:?}");
    }

    /// The canonical form, spelt out: what is pinned for ever must not change with whatever writes it.
    #[test]
    fn a_digest_is_of_the_canonical_form() {
        let rotate = |level| Policy::from_hyperparameters(&[Op::Rotate], &[level, 9, 0, 0]).unwrap();
        let digest = |policies: &[Policy]| {
            let segments = policies.iter().map(|policy| Segment { epochs: 2, policy: policy.clone() });
            Schedule::new("test", segments.collect(), Provenance::default()).unwrap().digest()
        };
        let pairs = "pba-schedule/1\nRotate\n4 1 9 0 0\n2 2 9 0 0\n";
        assert_eq!(digest(&[rotate(1), rotate(1), rotate(2)]), Digest::of(pairs));
        let mixed = "pba-schedule/2\n2 pairs Rotate: 1 9 0 0\n2 trivial-augment-wide 31 bins\n";
        assert_eq!(digest(&[rotate(1), Policy::TrivialAugmentWide(TrivialAugmentWide)]), Digest::of(mixed));
    }

    #[test]
    fn a_run_without_a_length_is_the_schedules_or_long_enough() {
        let learned = schedule(&[(2, 1), (1, 2)]);
        assert!(!learned.is_constant());
        assert_eq!([0, 2, 7].map(|epoch| learned.run_epochs(epoch)), [3, 3, 3]);
        let constant = schedule(&[(1, 1)]);
        assert!(constant.is_constant());
        assert_eq!([0, 2, u32::MAX].map(|epoch| constant.run_epochs(epoch)), [1, 3, u32::MAX]);
        assert_eq!(constant.at(EPOCHS_MAX - 1, constant.run_epochs(EPOCHS_MAX - 1)), Ok(&policy(1)));
    }

    /// Families may follow each other; the ops of all are listed in the order in which they come.
    #[test]
    fn ops_are_listed_once() {
        let pairs = Policy::zero(&[Op::Cutout, Op::Rotate]).unwrap();
        let trivial = Policy::TrivialAugmentWide(TrivialAugmentWide);
        let segments = [&pairs, &trivial, &pairs].map(|policy| Segment { epochs: 1, policy: policy.clone() });
        let ops = Schedule::new("test", segments.to_vec(), Provenance::default()).unwrap().ops();
        assert_eq!(ops[..3], [Op::Cutout, Op::Rotate, Op::ShearX]);
        let others = trivial.ops().into_iter().filter(|op| *op != Op::Rotate);
        assert_eq!(ops[2..], others.collect::<Vec<_>>());
    }

    #[test]
    fn the_digest_covers_pixels_only() {
        let one = schedule(&[(2, 1), (1, 2)]);
        assert_eq!(one.digest(), one.clone().renamed("other").unwrap().digest());
        assert_eq!(one.digest(), schedule(&[(1, 1), (1, 1), (1, 2)]).digest());
        assert_ne!(one.digest(), schedule(&[(1, 1), (1, 2)]).digest());
        assert_ne!(one.digest(), schedule(&[(2, 1), (1, 3)]).digest());
    }

    #[test]
    fn wrong_schedules_are_refused() {
        let segment = |epochs| Segment { epochs, policy: policy(0) };
        let new = |name: &str, segments| Schedule::new(name, segments, Provenance::default()).unwrap_err();
        assert_eq!(new("a", vec![]), ScheduleError::EmptySegment { position: 0, epochs: 0 });
        assert_eq!(
            new("a", vec![segment(1), segment(0)]),
            ScheduleError::EmptySegment { position: 1, epochs: 0 }
        );
        assert_eq!(
            new("a", vec![segment(EPOCHS_MAX), segment(1)]),
            ScheduleError::Epochs { epochs: 1_000_001 }
        );
        let rotate_only = Segment { epochs: 1, policy: Policy::zero(&[Op::Rotate]).unwrap() };
        assert_eq!(new("a", vec![segment(1), rotate_only]), ScheduleError::MixedOps { position: 1 });
        for name in ["", "none", "identity", "a/b", "..", "ä", "-x", &"a".repeat(65), &"0".repeat(64)] {
            assert!(matches!(new(name, vec![segment(1)]), ScheduleError::Name { .. }), "{name:?}");
        }
    }
}
