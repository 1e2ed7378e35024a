//! An epoch cut into batches.

use std::ops::Range;

use pba_types::limits::BATCH_SIZE_MAX;

use crate::order::Permutation;

/// One job's part of an epoch: of `count` shards the one numbered `index`, from 0.
///
/// It holds the positions `index`, `index + count`, `index + 2 * count` ... of the epoch's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    /// Which shard: below `count`.
    pub index: u32,
    /// How many shards: at least 1.
    pub count: u32,
}

impl Shard {
    /// The whole epoch: `0/1`.
    pub const WHOLE: Shard = Shard { index: 0, count: 1 };
}

/// What fixes the batches of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanSpec {
    /// Samples of the dataset's split.
    pub samples: u64,
    /// Seed of the order; unused without `shuffle`.
    pub seed: u64,
    /// Epoch of the order, 0-based; unused without `shuffle`.
    pub epoch: u32,
    /// Whether the order is a seeded permutation; otherwise it is the dataset's own.
    pub shuffle: bool,
    /// The job's part of the epoch.
    pub shard: Shard,
    /// Samples of a batch: 1..=[`BATCH_SIZE_MAX`].
    pub batch_size: u32,
    /// Drop the last short batch, and the positions that would make shards unequal.
    pub drop_last: bool,
    /// Number of the shard's batch that comes first, from 0.
    pub start: u64,
    /// Every so many-th batch from there on: at least 1.
    pub step: u64,
}

impl PlanSpec {
    /// Every batch of all samples, in a seeded order.
    pub const fn shuffled(samples: u64, seed: u64, epoch: u32, batch_size: u32) -> PlanSpec {
        PlanSpec {
            samples,
            seed,
            epoch,
            shuffle: true,
            shard: Shard::WHOLE,
            batch_size,
            drop_last: false,
            start: 0,
            step: 1,
        }
    }
}

/// Why a plan was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No shard at all.
    #[error("0 shards; an epoch has at least 1")]
    NoShard,
    /// A shard after the last one.
    #[error("shard {} of {} does not exist; allowed are 0..={}", .0.index, .0.count, .0.count - 1)]
    Shard(Shard),
    /// A batch of nothing, or too large.
    #[error("batch size {batch_size} is out of range; allowed are 1..={BATCH_SIZE_MAX}")]
    BatchSize {
        /// The offending value.
        batch_size: u32,
    },
    /// A step of 0, which would send one batch for ever.
    #[error("step 0 is out of range; allowed are 1 and more")]
    Step,
    /// More left out than there is.
    #[error("skip {skip} is out of range; this epoch has {samples} samples, so allowed are 0..={samples}")]
    Skip {
        /// The offending value.
        skip: u64,
        /// Samples of the epoch.
        samples: u64,
    },
    /// A start after the end.
    #[error(
        "start {start} is out of range; this shard has {batches} batches, so allowed are 0..={batches}, where \
         {batches} means that nothing is left"
    )]
    Start {
        /// The offending value.
        start: u64,
        /// Batches of the shard.
        batches: u64,
    },
}

/// The batches of one answer: which samples stand in which.
///
/// With S samples, shard i of n has `ceil((S - i) / n)` positions, and its last batch may be
/// short. With `drop_last` every shard has `floor(S / n)` positions and only whole batches. More
/// shards than samples leave some empty. The answer holds the shard's batches `start`,
/// `start + step`, `start + 2 * step` ...
///
/// The first b batches of n shards, together, are the first b * n * `batch_size` positions of the order. So an
/// epoch can be continued with other shards and batches, by [`Plan::after`] so many positions.
#[derive(Clone, Debug)]
pub struct Plan {
    spec: PlanSpec,
    /// Positions before those that are cut into shards.
    skip: u64,
    order: Option<Permutation>,
    shard_rows: u64,
    batches: u64,
}

impl Plan {
    /// Checks a specification and counts its batches.
    ///
    /// # Errors
    /// When a field is out of its range.
    pub fn new(spec: PlanSpec) -> Result<Plan, PlanError> {
        Plan::after(0, spec)
    }

    /// The same of the rest of an epoch: its order without the first `skip` positions is cut into shards and batches.
    ///
    /// # Errors
    /// When a field is out of its range, or the epoch has fewer samples.
    pub fn after(skip: u64, spec: PlanSpec) -> Result<Plan, PlanError> {
        let Shard { index, count } = spec.shard;
        if count == 0 {
            return Err(PlanError::NoShard);
        }
        if index >= count {
            return Err(PlanError::Shard(spec.shard));
        }
        if !(1..=BATCH_SIZE_MAX).contains(&spec.batch_size) {
            return Err(PlanError::BatchSize { batch_size: spec.batch_size });
        }
        if spec.step == 0 {
            return Err(PlanError::Step);
        }
        let Some(samples) = spec.samples.checked_sub(skip) else {
            return Err(PlanError::Skip { skip, samples: spec.samples });
        };
        let [index, count, batch_size] = [index, count, spec.batch_size].map(u64::from);
        let (shard_rows, shard_batches) = if spec.drop_last {
            let batches = samples / count / batch_size;
            (batches * batch_size, batches)
        } else {
            let rows = samples.saturating_sub(index).div_ceil(count);
            (rows, rows.div_ceil(batch_size))
        };
        if spec.start > shard_batches {
            return Err(PlanError::Start { start: spec.start, batches: shard_batches });
        }
        let batches = (shard_batches - spec.start).div_ceil(spec.step);
        let order = spec.shuffle.then(|| Permutation::new(spec.samples, spec.seed, spec.epoch));
        Ok(Plan { spec, skip, order, shard_rows, batches })
    }

    /// Batches of this answer.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Rows of this answer, over all its batches.
    pub fn rows(&self) -> u64 {
        // Only the last batch of a shard can be short.
        match self.batches {
            0 => 0,
            batches => (batches - 1) * u64::from(self.spec.batch_size) + self.len_of(batches - 1) as u64,
        }
    }

    /// Row within the shard that the `n`-th batch of this answer begins with.
    fn first_row(&self, n: u64) -> u64 {
        assert!(n < self.batches, "batch {n} of {}", self.batches);
        (self.spec.start + n * self.spec.step) * u64::from(self.spec.batch_size)
    }

    /// Rows of the `n`-th batch of this answer.
    ///
    /// # Panics
    /// When `n` is not below [`Plan::batches`].
    pub fn len_of(&self, n: u64) -> usize {
        (self.shard_rows - self.first_row(n)).min(self.spec.batch_size.into()) as usize
    }

    /// Samples of the `n`-th batch of this answer, as positions in the dataset.
    ///
    /// # Panics
    /// When `n` is not below [`Plan::batches`].
    pub fn indices(&self, n: u64) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.indices_of(n, 0..self.len_of(n))
    }

    /// Samples of some rows of the `n`-th batch of this answer, as positions in the dataset.
    ///
    /// # Panics
    /// When `n` is not below [`Plan::batches`], or the batch has fewer rows.
    pub fn indices_of(&self, n: u64, rows: Range<usize>) -> impl ExactSizeIterator<Item = u64> + '_ {
        assert!(rows.end <= self.len_of(n), "rows {rows:?} of {}", self.len_of(n));
        let first = self.first_row(n);
        let Shard { index, count } = self.spec.shard;
        rows.map(move |row| {
            let position = self.skip + (first + row as u64) * u64::from(count) + u64::from(index);
            self.order.as_ref().map_or(position, |order| order.at(position))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPEC: PlanSpec = PlanSpec {
        samples: 10,
        seed: 0,
        epoch: 0,
        shuffle: false,
        shard: Shard::WHOLE,
        batch_size: 3,
        drop_last: false,
        start: 0,
        step: 1,
    };

    fn batches(spec: PlanSpec) -> Vec<Vec<u64>> {
        batches_after(0, spec)
    }

    fn batches_after(skip: u64, spec: PlanSpec) -> Vec<Vec<u64>> {
        let plan = Plan::after(skip, spec).unwrap();
        let batches: Vec<Vec<u64>> = (0..plan.batches()).map(|n| plan.indices(n).collect()).collect();
        for (n, batch) in batches.iter().enumerate() {
            assert_eq!(batch.len(), plan.len_of(n as u64));
            let middle = batch.len() / 3..batch.len() - batch.len() / 4;
            assert_eq!(plan.indices_of(n as u64, middle.clone()).collect::<Vec<_>>(), batch[middle]);
        }
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>() as u64, plan.rows());
        batches
    }

    /// The definition, word for word.
    fn batches_by_definition(skip: u64, spec: PlanSpec) -> Vec<Vec<u64>> {
        let permutation = Permutation::new(spec.samples, spec.seed, spec.epoch);
        let order: Vec<u64> =
            (0..spec.samples).map(|at| if spec.shuffle { permutation.at(at) } else { at }).collect();
        let (index, count) = (spec.shard.index as usize, spec.shard.count as usize);
        let rest: Vec<u64> = order.into_iter().skip(skip as usize).collect();
        let mut shard: Vec<u64> = rest.iter().copied().skip(index).step_by(count).collect();
        if spec.drop_last {
            shard.truncate(rest.len() / count);
        }
        let mut batches: Vec<Vec<u64>> =
            shard.chunks(spec.batch_size as usize).map(<[u64]>::to_vec).collect();
        if spec.drop_last {
            batches.retain(|batch| batch.len() == spec.batch_size as usize);
        }
        batches.into_iter().skip(spec.start as usize).step_by(spec.step as usize).collect()
    }

    #[test]
    fn an_epoch_in_batches() {
        assert_eq!(batches(SPEC), [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7, 8], vec![9]]);
        assert_eq!(batches(PlanSpec { start: 1, step: 2, ..SPEC }), [vec![3, 4, 5], vec![9]]);
        let shard = Shard { index: 1, count: 4 };
        assert_eq!(batches(PlanSpec { shard, ..SPEC }), [[1, 5, 9]]);
        assert_eq!(batches(PlanSpec { shard, batch_size: 2, drop_last: true, ..SPEC }), [[1, 5]]);
        let plan = Plan::new(PlanSpec { start: 1, step: 2, ..SPEC }).unwrap();
        assert_eq!((plan.first_row(0), plan.first_row(1)), (3, 9));
    }

    #[track_caller]
    fn refuse(spec: PlanSpec, says: &str) {
        let error = Plan::new(spec).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }

    #[test]
    fn wrong_plans_are_refused_by_value() {
        refuse(PlanSpec { batch_size: 0, ..SPEC }, "batch size 0 is out of range; allowed are 1..=65536");
        refuse(PlanSpec { batch_size: 65_537, ..SPEC }, "batch size 65537");
        refuse(PlanSpec { step: 0, ..SPEC }, "step 0");
        refuse(PlanSpec { start: 5, ..SPEC }, "start 5 is out of range; this shard has 4 batches");
        refuse(PlanSpec { shard: Shard { index: 0, count: 0 }, ..SPEC }, "0 shards");
        refuse(PlanSpec { shard: Shard { index: 3, count: 3 }, ..SPEC }, "shard 3 of 3 does not exist");
        assert_eq!(
            Plan::after(11, SPEC).unwrap_err().to_string(),
            "skip 11 is out of range; this epoch has 10 samples, so allowed are 0..=10"
        );
    }

    #[test]
    fn nothing_left_is_no_error() {
        for spec in [
            PlanSpec { start: 4, ..SPEC },
            PlanSpec { samples: 0, ..SPEC },
            PlanSpec { samples: 0, shuffle: true, ..SPEC },
            PlanSpec { shard: Shard { index: 11, count: 12 }, ..SPEC },
            PlanSpec { batch_size: 11, drop_last: true, ..SPEC },
        ] {
            let plan = Plan::new(spec).unwrap();
            assert_eq!((plan.batches(), plan.rows()), (0, 0), "{spec:?}");
        }
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        let samples = u64::MAX;
        for shuffle in [false, true] {
            let spec = PlanSpec {
                samples,
                shuffle,
                shard: Shard { index: u32::MAX - 1, count: u32::MAX },
                step: u64::MAX,
                ..SPEC
            };
            let plan = Plan::new(spec).unwrap();
            assert_eq!(plan.batches(), 1);
            assert!(plan.indices(0).all(|index| index < samples));
            let batches = Plan::new(PlanSpec { step: 1, ..spec }).unwrap().batches();
            let last = Plan::new(PlanSpec { start: batches - 1, ..spec }).unwrap();
            assert!(last.indices(0).all(|index| index < samples));
        }
    }

    proptest! {
        #[test]
        fn plans_follow_the_definition(
            samples in 0u64..200,
            shuffle: bool,
            (index, count) in (1u32..9).prop_flat_map(|count| (0..count, Just(count))),
            batch_size in 1u32..20,
            drop_last: bool,
            start in 0u64..5,
            step in 1u64..5,
            skipped in 0f64..=1.0,
        ) {
            let skip = (skipped * samples as f64) as u64;
            let shard = Shard { index, count };
            let spec = PlanSpec { samples, shuffle, shard, batch_size, drop_last, start, step, ..SPEC };
            let all = batches_by_definition(skip, PlanSpec { start: 0, step: 1, ..spec });
            match Plan::after(skip, spec) {
                Ok(_) => prop_assert_eq!(batches_after(skip, spec), batches_by_definition(skip, spec)),
                Err(error) => {
                    let batches = all.len() as u64;
                    prop_assert!(start > batches);
                    prop_assert_eq!(error, PlanError::Start { start, batches });
                }
            }
        }

        /// What some shards have read in step, others go on with: each sample once.
        #[test]
        fn an_epoch_continues_in_other_shards(
            samples in 0u64..500,
            shuffle: bool,
            (before, after) in (1u32..9, 1u32..9),
            (batch_size, other_size) in (1u32..20, 1u32..20),
            read in 0u64..20,
        ) {
            let spec = PlanSpec { samples, shuffle, seed: 7, ..SPEC };
            let mut seen = Vec::new();
            for index in 0..before {
                let spec = PlanSpec { shard: Shard { index, count: before }, batch_size, ..spec };
                seen.extend(batches(spec).into_iter().take(read as usize).flatten());
            }
            let skip = samples.min(read * u64::from(before) * u64::from(batch_size));
            prop_assert_eq!(seen.len() as u64, skip);
            for index in 0..after {
                let spec = PlanSpec { shard: Shard { index, count: after }, batch_size: other_size, ..spec };
                seen.extend(batches_after(skip, spec).into_iter().flatten());
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..samples).collect::<Vec<_>>());
        }

        #[test]
        fn with_drop_last_shards_are_equal(samples in 0u64..500, count in 1u32..9, batch_size in 1u32..9) {
            let sizes = |index| {
                let shard = Shard { index, count };
                let plan = Plan::new(PlanSpec { samples, shard, batch_size, drop_last: true, ..SPEC }).unwrap();
                (plan.batches(), plan.rows())
            };
            for index in 0..count {
                prop_assert_eq!(sizes(index), sizes(0));
            }
        }
    }
}
