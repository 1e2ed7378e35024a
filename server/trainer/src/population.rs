//! The members of a search as its trainer.

use std::ops::Range;
use std::sync::Arc;

use pba_augment::Policies;
use pba_schedules::Policy;
use pba_search::{Trainer, TrainingSpec};

use crate::checkpoint::Checkpoints;
use crate::data::{ScoreSet, TrainSet, member_seed};
use crate::device::Placement;
use crate::members::Members;
use crate::network::model::Model;
use crate::network::net::Net;
use crate::network::rows::Rows;
use crate::network::weights::initial_rows;
use crate::report::Meter;
use crate::{models, torch};

/// The parts of a population.
pub(crate) struct Setup {
    pub(crate) training: TrainingSpec,
    pub(crate) members: u32,
    pub(crate) placement: Placement,
    pub(crate) train: TrainSet,
    pub(crate) score: ScoreSet,
    /// Where the members are kept; without it they are lost when the process ends.
    pub(crate) checkpoints: Option<Checkpoints>,
    pub(crate) meter: Arc<Meter>,
}

/// The members, and what they share.
pub(crate) struct Population {
    setup: Setup,
    model: Arc<Model>,
    members: Members,
    /// Epochs that the members have trained. Ahead of the search's after a save in mid-generation.
    epoch: u32,
}

impl Population {
    /// Members without weights: [`Trainer::restore`] gives them.
    pub(crate) fn new(setup: Setup) -> anyhow::Result<Population> {
        torch::backward_on_caller()?;
        torch::deterministic(true)?;
        // One thread per member at work, so results do not depend on the number of cores: sums
        // inside of libtorch would be split by it.
        tch::set_num_threads(1);
        let Setup { ref training, placement: Placement { device, way }, .. } = setup;
        let pictures = &setup.train.pictures;
        let model = Arc::new(models::build(training.model, pictures.classes));
        let per_net = if way.is_stacked { setup.members } else { 1 };
        let net = |_| Net::new(&model, per_net.into(), pictures.normalization, training.weight_decay, device);
        let nets = (0..setup.members / per_net).map(net).collect();
        Ok(Population { members: Members::new(nets, (way.train)()), setup, model, epoch: 0 })
    }

    /// Trains every member through one epoch.
    pub(crate) fn train_epoch(&mut self, policies: &[Policies], epoch: u32) -> anyhow::Result<()> {
        let Setup { training, train, meter, placement, .. } = &self.setup;
        let epochs = (0..)
            .zip(policies)
            .map(|(member, policies)| {
                train.epoch(policies.clone(), member_seed(training.seed, member), epoch)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let steps = train.steps() as u64;
        let rate = |step| training.lr * training.lr_schedule.factor(step, steps, training.epochs);
        let first = u64::from(epoch) * steps;
        self.members.train(&epochs, (first..first + steps).map(rate).collect(), meter)?;
        // Asked between epochs: a question in the middle of a graph's capture would end the capture.
        meter.finished(epoch + 1, placement.gpu_memory_used_bytes());
        self.epoch = epoch + 1;
        Ok(())
    }

    /// Each member's mean loss over the `epochs` epochs since the last call.
    pub(crate) fn take_losses(&mut self, epochs: u32) -> Vec<f32> {
        let steps = (self.setup.train.steps() as u32 * epochs) as f32;
        self.members.take_loss_sums().into_iter().map(|sum| sum / steps).collect()
    }

    /// Gives every member the weights that follow from its seed.
    pub(crate) fn initialize(&mut self) {
        let Setup { training, members, .. } = &self.setup;
        let seeds = (0..*members).map(|member| member_seed(training.seed, member));
        let rows: Vec<Rows> = seeds.map(|seed| initial_rows(&self.model, seed)).collect();
        self.members.restore(&Rows::cat(&rows));
        self.epoch = 0;
    }
}

impl Trainer for Population {
    type Error = anyhow::Error;

    fn restore(&mut self, epoch: u32) -> anyhow::Result<()> {
        let Setup { checkpoints, members, .. } = &mut self.setup;
        let saved = checkpoints.as_mut().map(|checkpoints| checkpoints.restore(epoch, *members));
        match saved.transpose()?.flatten() {
            None => self.initialize(),
            Some((epoch, rows)) => {
                self.members.restore(&rows);
                self.epoch = epoch;
            }
        }
        self.setup.meter.resume(self.epoch);
        Ok(())
    }

    fn train(&mut self, policies: &[&Policy], epochs: Range<u32>) -> anyhow::Result<()> {
        let policies: Vec<Policies> = policies.iter().map(|&policy| Policies::One(policy.clone())).collect();
        let start = epochs.start.max(self.epoch);
        for epoch in start..epochs.end {
            self.train_epoch(&policies, epoch)?;
            match &mut self.setup.checkpoints {
                Some(checkpoints) if self.epoch < epochs.end && checkpoints.is_due() => {
                    checkpoints.save_mid_generation(self.epoch, &self.members.snapshot())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> anyhow::Result<Vec<f64>> {
        self.members.scores(&self.setup.score)
    }

    fn copy(&mut self, from: u32, to: u32) -> anyhow::Result<()> {
        self.members.copy(from, to);
        Ok(())
    }

    fn save(&mut self, epoch: u32) -> anyhow::Result<()> {
        match &mut self.setup.checkpoints {
            Some(checkpoints) => checkpoints.save(epoch, &self.members.snapshot()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pba_augment::Base;
    use pba_schedules::Op;
    use pba_search::{SearchSpec, Spec, Strategy};
    use tch::Device;

    use super::*;
    use crate::data::Noise;

    const MEMBERS: u32 = 3;

    fn population(strategy: Strategy, device: Device, folder: Option<&Path>) -> Population {
        let spec =
            SearchSpec::from_json(r#"{"model": "tiny", "batch_size": 16, "epochs": 6, "lr": 0.02}"#).unwrap();
        let pictures = Noise::pictures(96);
        let score = ScoreSet::new(&pictures, &(64..96).collect::<Vec<_>>(), 20, device);
        let train = TrainSet { pictures, indices: (0..64).collect(), base: Base::cifar(), batch_size: 16 };
        let checkpoints = folder.map(|folder| Checkpoints::new(folder, "tiny".to_owned()));
        let meter = Arc::new(Meter::new(6, 0));
        let placement = Placement::new(device, strategy).unwrap();
        let setup =
            Setup { training: spec.training, members: MEMBERS, placement, train, score, checkpoints, meter };
        Population::new(setup).unwrap()
    }

    fn policies() -> Vec<Policy> {
        (0..MEMBERS as u8).map(|n| Policy::from_hyperparameters(&Op::PAPER, &[3 * n; 60]).unwrap()).collect()
    }

    fn train(population: &mut Population, epochs: Range<u32>) {
        population.train(&policies().iter().collect::<Vec<_>>(), epochs).unwrap();
    }

    /// Largest difference of any parameter between two populations.
    fn difference(one: &Population, other: &Population) -> f64 {
        (one.members.snapshot().parameters - other.members.snapshot().parameters)
            .abs()
            .max()
            .double_value(&[])
    }

    #[test]
    fn members_are_copied_as_a_whole() {
        for strategy in [Strategy::Sequential, Strategy::Stacked] {
            let mut population = population(strategy, Device::Cpu, None);
            population.restore(0).unwrap();
            train(&mut population, 0..1);
            let before = population.members.snapshot();
            population.copy(2, 0).unwrap();
            let after = population.members.snapshot();
            for of in [
                |rows: &Rows| rows.parameters.copy(),
                |rows: &Rows| rows.momentum.copy(),
                |rows: &Rows| rows.statistics.copy(),
            ] {
                assert_eq!(of(&after).get(0), of(&before).get(2), "{strategy}");
                assert_eq!(of(&after).get(1), of(&before).get(1), "{strategy}");
                assert_ne!(of(&before).get(0), of(&before).get(2), "{strategy}");
            }
        }
    }

    #[test]
    fn what_is_restored_goes_on_as_if_never_interrupted() {
        for strategy in [Strategy::Sequential, Strategy::Stacked] {
            let folder = tempfile::tempdir().unwrap();
            let mut uninterrupted = population(strategy, Device::Cpu, Some(folder.path()));
            uninterrupted.restore(0).unwrap();
            train(&mut uninterrupted, 0..2);
            uninterrupted.save(2).unwrap();
            train(&mut uninterrupted, 2..3);
            // A long generation is saved before its end.
            let rows = uninterrupted.members.snapshot();
            uninterrupted.setup.checkpoints.as_mut().unwrap().save_mid_generation(3, &rows).unwrap();
            train(&mut uninterrupted, 3..4);
            for mid_generation in [true, false] {
                let mut resumed = population(strategy, Device::Cpu, Some(folder.path()));
                resumed.restore(2).unwrap();
                assert_eq!(resumed.epoch, if mid_generation { 3 } else { 2 });
                train(&mut resumed, 2..4);
                assert_eq!(difference(&uninterrupted, &resumed), 0.0, "{strategy}");
                assert_eq!(uninterrupted.evaluate().unwrap(), resumed.evaluate().unwrap());
                if mid_generation {
                    std::fs::remove_file(folder.path().join("between.safetensors")).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_member_that_diverged_scores_nan() {
        let mut population = population(Strategy::Stacked, Device::Cpu, None);
        population.restore(0).unwrap();
        let rows = population.members.snapshot();
        let _ = rows.parameters.get(1).fill_(f64::NAN);
        population.members.restore(&rows);
        let scores = population.evaluate().unwrap();
        assert_eq!(scores.iter().map(|score| score.is_nan()).collect::<Vec<_>>(), [false, true, false]);
    }

    /// On a GPU, all strategies train alike, up to the rounding of bf16, and each repeats itself.
    #[test]
    #[ignore = "needs a GPU"]
    fn gpu_strategies_agree() {
        crate::gpu::cuda::load().unwrap();
        let run = |strategy, device| {
            let mut population = population(strategy, device, None);
            population.restore(0).unwrap();
            train(&mut population, 0..3);
            let losses = population.take_losses(3);
            let scores = population.evaluate().unwrap();
            (population, losses, scores)
        };
        let (_, on_cpu, _) = run(Strategy::Sequential, Device::Cpu);
        for strategy in [Strategy::Sequential, Strategy::Stacked, Strategy::Graphs] {
            let (one, losses, scores) = run(strategy, Device::Cuda(0));
            println!("{strategy}: losses {losses:?}, on the CPU {on_cpu:?}; scores {scores:?}");
            for (loss, on_cpu) in losses.iter().zip(&on_cpu) {
                assert!((loss - on_cpu).abs() < 0.05 * on_cpu, "{strategy}");
            }
            let (other, _, _) = run(strategy, Device::Cuda(0));
            println!("{strategy}: two runs differ by {:.1e}", difference(&one, &other));
            assert_eq!(difference(&one, &other), 0.0, "{strategy} repeats itself");
        }
    }
}
