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
