//! Explore: how the search perturbs a policy that it copied.

use rand::Rng;

use pba_types::rng::below;

use crate::op::{MAGNITUDE_MAX, PROBABILITY_MAX};
use crate::policy::Policy;

/// Perturbs each level of a policy of pairs (Ho et al. 2019, Algorithm 1). A policy of another
/// family has no levels to explore, and stays as it is.
///
/// With probability `resample_probability` (the paper's is 0.2) a level is drawn uniformly from its range. Otherwise
/// it moves by 0, 1, 2 or 3, up or down with equal odds, and is clipped to its range. Three words
/// of `rng` are used per level, whatever they decide.
///
/// ```
/// use pba_schedules::{Op, Policy, explore, rng::{Address, Purpose}};
/// let mut rng = Address { seed: 1, purpose: Purpose::Search, epoch: 3, item: 0 }.stream();
/// let child = explore(&Policy::zero(&Op::PAPER)?, 0.2, &mut rng);
/// assert_eq!(child.slots().len(), 30);
/// # Ok::<(), pba_schedules::ScheduleError>(())
/// ```
pub fn explore(policy: &Policy, resample_probability: f64, rng: &mut impl Rng) -> Policy {
    let Some(pairs) = policy.as_pairs() else { return policy.clone() };
    let ops: Vec<_> = pairs.ops().collect();
    let mut levels = pairs.hyperparameters();
    for (position, level) in levels.iter_mut().enumerate() {
        let level_max = if position % 2 == 0 { PROBABILITY_MAX } else { MAGNITUDE_MAX };
        let [resample, amount, direction] = [rng.next_u32(), rng.next_u32(), rng.next_u32()];
        *level = if f64::from(resample) < resample_probability * (u32::MAX as f64 + 1.0) {
            below(amount, u32::from(level_max) + 1) as u8
        } else {
            let amount = below(amount, 4) as u8;
            match below(direction, 2) {
                0 => level.saturating_add(amount).min(level_max),
                _ => level.saturating_sub(amount),
            }
        };
    }
    Policy::from_hyperparameters(&ops, &levels).expect("explored levels stay in range")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use pba_types::rng::{Address, Purpose, Stream};
    use rand::TryRng;

    use super::*;
    use crate::op::Op;

    fn stream(item: u64) -> Stream {
        Address { seed: 0, purpose: Purpose::Search, epoch: 0, item }.stream()
    }

    /// Exact distribution of one explored level, from the definition.
    fn expected(level: u8, level_max: u8) -> Vec<f64> {
        let mut odds = vec![0.2 / (f64::from(level_max) + 1.0); usize::from(level_max) + 1];
        for amount in 0..4u8 {
            odds[usize::from((level + amount).min(level_max))] += 0.8 / 8.0;
            odds[usize::from(level.saturating_sub(amount))] += 0.8 / 8.0;
        }
        odds
    }

    #[test]
    fn levels_move_as_the_paper_says() {
        let runs = 20_000;
        let start: Vec<u8> = (0..60).map(|i| if i % 2 == 0 { i / 2 % 11 } else { i / 2 % 10 }).collect();
        let policy = Policy::from_hyperparameters(&Op::PAPER, &start).unwrap();
        let mut counts = vec![[0u32; 11]; 60];
        for run in 0..runs {
            let child = explore(&policy, 0.2, &mut stream(run));
            for (count, level) in counts.iter_mut().zip(child.hyperparameters()) {
                count[usize::from(level)] += 1;
            }
        }
        for (position, count) in counts.iter().enumerate() {
            let level_max = if position % 2 == 0 { PROBABILITY_MAX } else { MAGNITUDE_MAX };
            let odds = expected(start[position], level_max);
            let chi_square: f64 = odds
                .iter()
                .zip(count)
                .map(|(odds, &count)| (f64::from(count) - odds * runs as f64).powi(2) / (odds * runs as f64))
                .sum();
            // 10 degrees of freedom, 60 tests: p = 0.001 / 60 is at 43.6.
            assert!(chi_square < 43.6, "level {position}: chi square {chi_square:.1}");
        }
    }

    /// What is explored at an address, for ever: other programs that explore so are compared with it
    /// (`client/python/tests/test_tune.py`).
    #[test]
    fn explored_levels_are_pinned() {
        let start: Vec<u8> = (0..60).map(|i| if i % 2 == 0 { i / 2 % 11 } else { i / 2 % 10 }).collect();
        let policy = Policy::from_hyperparameters(&Op::PAPER, &start).unwrap();
        let mut rng = Address { seed: 1 << 40 | 7, purpose: Purpose::Search, epoch: 3, item: 5 }.stream();
        let child = explore(&policy, 0.2, &mut rng);
        let expected = [
            0, 0, 6, 2, 4, 0, 8, 3, 4, 5, 8, 2, 1, 6, 9, 7, 9, 9, 9, 0, 3, 0, 0, 3, 0, 1, 3, 0, 5, 1, //
            5, 7, 5, 8, 8, 7, 10, 2, 7, 9, 10, 0, 10, 1, 0, 1, 0, 8, 1, 4, 3, 3, 8, 8, 2, 7, 6, 7, 9, 8,
        ];
        assert_eq!(child.hyperparameters(), expected);
    }

    /// The same three words for every level.
    struct Words([u32; 3], usize);

    impl TryRng for Words {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            self.1 += 1;
            Ok(self.0[(self.1 - 1) % 3])
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            unreachable!("words of 32 bits are asked for")
        }

        fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Infallible> {
            unreachable!("words of 32 bits are asked for")
        }
    }

    /// Of the 2^32 words, exactly the share of the resample probability resamples.
    #[test]
    fn a_word_below_the_resample_probability_resamples() {
        // With 0 as the other words a level moves by 0, or is resampled as 0.
        let policy = Policy::from_hyperparameters(&[Op::Rotate], &[9, 9, 9, 9]).unwrap();
        for (probability, word, resamples) in [
            (0.0, 0, false),
            (0.25, (1 << 30) - 1, true),
            (0.25, 1 << 30, false),
            (0.5, (1 << 31) - 1, true),
            (0.5, 1 << 31, false),
            (1.0, u32::MAX, true),
        ] {
            let child = explore(&policy, probability, &mut Words([word, 0, 0], 0));
            let expected = if resamples { [0; 4] } else { [9; 4] };
            assert_eq!(child.hyperparameters(), expected, "word {word} at probability {probability}");
        }
    }

    #[test]
    fn extremes_of_the_resample_probability() {
        let policy = Policy::from_hyperparameters(&Op::PAPER, &[0; 60]).unwrap();
        let moved = explore(&policy, 0.0, &mut stream(1));
        assert!(moved.hyperparameters().iter().all(|&level| level <= 3));
        let resampled = explore(&policy, 1.0, &mut stream(1));
        assert!(resampled.hyperparameters().iter().any(|&level| level > 3));
    }
}
