//! A trainer whose best policy is known, for tests and demonstrations.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Range;

use pba_schedules::{MAGNITUDE_MAX, PROBABILITY_MAX, Policy};

use crate::search::Trainer;
use pba_specs::SearchSpec;

/// Each member has one weight, which moves a tenth of the way to the quality of its policy every
/// epoch. The quality falls from 1 with the mean distance of the levels from the optimum: probability 7,
/// magnitude 6 throughout.
#[derive(Clone, Debug)]
pub struct ToyTrainer {
    /// One weight per member.
    pub weights: Vec<f64>,
    /// What was saved, by epoch.
    pub checkpoints: BTreeMap<u32, Vec<f64>>,
    /// Epochs that were trained, over all calls.
    pub epochs_trained: u32,
    /// Epochs that the members have trained.
    pub epoch: u32,
    /// Epochs after which it is asked to end the search.
    pub finish_after: Option<u32>,
}

impl ToyTrainer {
    /// A trainer for the members of `spec`.
    pub fn new(spec: &SearchSpec) -> ToyTrainer {
        ToyTrainer {
            weights: vec![0.0; spec.population as usize],
            checkpoints: BTreeMap::new(),
            epochs_trained: 0,
            epoch: 0,
            finish_after: None,
        }
    }

    /// 1 at the optimum, 0 at the far ends of all levels.
    pub fn quality(&self, policy: &Policy) -> f64 {
        let levels = policy.hyperparameters();
        let optimum = [(7, PROBABILITY_MAX), (6, MAGNITUDE_MAX)].into_iter().cycle();
        let share = |(&level, (best, max)): (&u8, (u8, u8))| f64::from(level.abs_diff(best)) / f64::from(max);
        let distance: f64 = levels.iter().zip(optimum).map(share).sum();
        1.0 - distance / levels.len() as f64
    }
}

impl Trainer for ToyTrainer {
    type Error = Infallible;

    fn restore(&mut self, epoch: u32) -> Result<(), Infallible> {
        match epoch {
            0 => self.weights.fill(0.0),
            _ => self.weights.clone_from(&self.checkpoints[&epoch]),
        }
        Ok(())
    }

    fn train(&mut self, policies: &[&Policy], epochs: Range<u32>) -> Result<(), Infallible> {
        self.epochs_trained += epochs.end - epochs.start;
        self.epoch = epochs.end;
        let qualities: Vec<f64> = policies.iter().map(|policy| self.quality(policy)).collect();
        for _ in epochs {
            for (weight, quality) in self.weights.iter_mut().zip(&qualities) {
                *weight += 0.1 * (quality - *weight);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<Vec<f64>, Infallible> {
        Ok(self.weights.clone())
    }

    fn copy(&mut self, from: u32, to: u32) -> Result<(), Infallible> {
        self.weights[to as usize] = self.weights[from as usize];
        Ok(())
    }

    fn save(&mut self, epoch: u32) -> Result<(), Infallible> {
        self.checkpoints.insert(epoch, self.weights.clone());
        Ok(())
    }

    fn is_asked_to_finish(&mut self) -> bool {
        self.finish_after == Some(self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use pba_schedules::Op;
    use pba_specs::Spec;

    use super::*;

    #[test]
    fn a_weight_approaches_the_quality_of_its_policy() {
        let spec = SearchSpec::from_json(r#"{"ops": ["Rotate"], "population": 3}"#).unwrap();
        let mut trainer = ToyTrainer::new(&spec);
        let policies = [[7, 6, 7, 6], [0; 4], [10, 0, 7, 9]]
            .map(|levels| Policy::from_hyperparameters(&[Op::Rotate], &levels).unwrap());
        // The mean of the distances of the levels: of 7 and 6 from 0; of 7 from 10, of 6 from 0, and of 6 from 9.
        let qualities = [1.0, 1.0 - (0.7 + 6.0 / 9.0) / 2.0, 1.0 - (0.3 + 6.0 / 9.0 + 3.0 / 9.0) / 4.0];
        for (policy, quality) in policies.iter().zip(qualities) {
            assert!((trainer.quality(policy) - quality).abs() < 1e-12, "{policy}");
        }
        trainer.train(&policies.each_ref(), 0..2).unwrap();
        trainer.train(&policies.each_ref(), 2..5).unwrap();
        for (weight, quality) in trainer.evaluate().unwrap().iter().zip(qualities) {
            assert!((weight - quality * (1.0 - 0.9f64.powi(5))).abs() < 1e-12, "{weight}");
        }
        assert_eq!((trainer.epochs_trained, trainer.epoch), (5, 5));
    }

    #[test]
    fn weights_are_copied_saved_and_restored() {
        let spec = SearchSpec::from_json(r#"{"ops": ["Rotate"], "population": 3}"#).unwrap();
        let mut trainer = ToyTrainer { weights: vec![0.1, 0.2, 0.3], ..ToyTrainer::new(&spec) };
        trainer.save(4).unwrap();
        trainer.copy(2, 0).unwrap();
        assert_eq!(trainer.weights, [0.3, 0.2, 0.3]);
        trainer.restore(4).unwrap();
        assert_eq!(trainer.weights, [0.1, 0.2, 0.3]);
        trainer.restore(0).unwrap();
        assert_eq!(trainer.weights, [0.0; 3]);
    }
}
