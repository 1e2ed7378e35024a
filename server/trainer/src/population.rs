//! The members of a search, trained on a device.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pba_augment::{Policies, Scratch};
use pba_schedules::Policy;
use pba_search::{Strategy, Trainer, TrainingSpec};
use tch::{Device, Kind, Tensor};

use crate::checkpoint::Checkpoints;
use crate::data::{Batch, Epoch, ScoreSet, TrainSet, member_seed};
use crate::graphs::GraphedStep;
use crate::models::Model;
use crate::net::{Net, Rows, initial_rows};
use crate::report::Meter;
use crate::{cuda, device, native, prefetch, signals};

/// A generation that takes longer than this is saved in between, so that an interruption never
/// costs much more.
const SAVE_INTERVAL: Duration = Duration::from_secs(20);

/// What all members have in common, and the members.
pub(crate) struct Population {
    spec: TrainingSpec,
    members: u32,
    model: Arc<Model>,
    train: TrainSet,
    score: ScoreSet,
    device: Device,
    strategy: Strategy,
    /// Networks of one member each, or one network of all.
    nets: Vec<Net>,
    graphs: Vec<GraphedStep>,
    /// Epochs that the members have trained. Ahead of the search's after a save in between.
    epoch: u32,
    checkpoints: Option<Checkpoints>,
    generation_saved: u32,
    saved_at: Instant,
    meter: Arc<Meter>,
}

impl Population {
    /// Members without weights: [`Trainer::restore`] gives them.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        spec: &TrainingSpec,
        members: u32,
        train: TrainSet,
        score: ScoreSet,
        device: Device,
        strategy: Strategy,
        checkpoints: Option<Checkpoints>,
        meter: Arc<Meter>,
    ) -> anyhow::Result<Population> {
        native::backward_on_caller()?;
        native::deterministic(true)?;
        // One thread per member at work, so results do not depend on the number of cores: sums
        // inside of libtorch would be split by it.
        tch::set_num_threads(1);
        let model = Arc::new(Model::new(spec.model, train.pictures.classes));
        let (nets, members_per_net) = match strategy {
            Strategy::Stacked => (1, members),
            _ => (members, 1),
        };
        let normalization = train.pictures.normalization;
        let net = |_| Net::new(&model, members_per_net.into(), normalization, spec.weight_decay, device);
        Ok(Population {
            spec: spec.clone(),
            members,
            nets: (0..nets).map(net).collect(),
            graphs: Vec::new(),
            model,
            train,
            score,
            device,
            strategy,
            epoch: 0,
            checkpoints,
            generation_saved: 0,
            saved_at: Instant::now(),
            meter,
        })
    }

    /// Trains every member through one epoch.
    pub(crate) fn train_epoch(&mut self, policies: &[Policies], epoch: u32) -> anyhow::Result<()> {
        let epochs = (0..self.members)
            .zip(policies)
            .map(|(member, policies)| {
                self.train.epoch(policies.clone(), member_seed(self.spec.seed, member), epoch)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let steps = self.train.steps();
        let rates: Vec<f64> = (0..steps)
            .map(|step| {
                let step = u64::from(epoch) * steps as u64 + step as u64;
                self.spec.lr * self.spec.lr_schedule.factor(step, steps as u64, self.spec.epochs)
            })
            .collect();
        let per_net = epochs.len() / self.nets.len();
        let work: Vec<(&mut Net, &[Epoch<'_>])> = self.nets.iter_mut().zip(epochs.chunks(per_net)).collect();
        match self.device {
            Device::Cuda(number) => {
                on_gpu(work, &rates, number, self.strategy, &mut self.graphs, &self.meter)?;
            }
            _ => on_cpu(work, &rates, &self.meter)?,
        }
        // Asked between epochs: a question in the middle of a graph's capture would end the capture.
        let gpu_memory_used_bytes = match self.device {
            Device::Cuda(number) => cuda::gpu(number).ok().map(|gpu| gpu.memory_used_bytes()),
            _ => None,
        };
        self.meter.finished(epoch + 1, gpu_memory_used_bytes);
        self.epoch = epoch + 1;
        Ok(())
    }

    /// Each member's mean loss since the last call.
    pub(crate) fn take_losses(&mut self, epochs: u32) -> Vec<f32> {
        let steps = (self.train.steps() as u32 * epochs) as f32;
        self.nets.iter_mut().flat_map(Net::take_loss_sums).map(|sum| sum / steps).collect()
    }

    /// Images of an epoch over all members.
    pub(crate) fn images_per_epoch(train: &TrainSet, members: u32) -> u64 {
        (train.steps() * train.batch_size) as u64 * u64::from(members)
    }

    /// Gives every member the weights that its seed says.
    pub(crate) fn initialize(&mut self) {
        let rows: Vec<Rows> = (0..self.members)
            .map(|member| initial_rows(&self.model, member_seed(self.spec.seed, member)))
            .collect();
        self.set_rows(&Rows::cat(&rows));
        self.epoch = 0;
    }

    fn rows(&self) -> Rows {
        let rows: Vec<Rows> = self.nets.iter().map(|net| net.rows().to_device(Device::Cpu)).collect();
        Rows::cat(&rows)
    }

    fn set_rows(&mut self, rows: &Rows) {
        let mut first = 0;
        for net in &mut self.nets {
            net.set_rows(&rows.narrow(first, net.members()));
            first += net.members();
        }
    }

    fn saved(&mut self, save: impl FnOnce(&Checkpoints, &Rows) -> anyhow::Result<()>) -> anyhow::Result<()> {
        if let Some(checkpoints) = &self.checkpoints {
            save(checkpoints, &self.rows())?;
        }
        self.saved_at = Instant::now();
        Ok(())
    }
}

impl Trainer for Population {
    type Error = anyhow::Error;

    fn restore(&mut self, epoch: u32) -> anyhow::Result<()> {
        self.generation_saved = epoch;
        let Some(checkpoints) = &self.checkpoints else {
            self.initialize();
            return Ok(());
        };
        // A save in between is as good as training up to it again: training is deterministic.
        let between = checkpoints.load_between(epoch, self.members);
        let loaded = match between {
            Some(between) => Some(between),
            None if epoch == 0 => None,
            None => Some((epoch, checkpoints.load(epoch, self.members)?)),
        };
        match loaded {
            None => self.initialize(),
            Some((epoch, rows)) => {
                self.set_rows(&rows);
                self.epoch = epoch;
            }
        }
        self.meter.resume(self.epoch);
        Ok(())
    }

    fn train(&mut self, policies: &[&Policy], epochs: Range<u32>) -> anyhow::Result<()> {
        let policies: Vec<Policies> = policies.iter().map(|&policy| Policies::One(policy.clone())).collect();
        let start = epochs.start.max(self.epoch);
        for epoch in start..epochs.end {
            self.train_epoch(&policies, epoch)?;
            if epoch + 1 < epochs.end && self.saved_at.elapsed() > SAVE_INTERVAL {
                let generation = self.generation_saved;
                self.saved(|checkpoints, rows| checkpoints.save_between(generation, epoch + 1, rows))?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> anyhow::Result<Vec<f64>> {
        let images = self.score.images() as f64;
        let count = |net: &mut Net, set: &ScoreSet| -> anyhow::Result<Vec<f64>> {
            let mut correct: Option<Tensor> = None;
            for (images, labels) in set.batches() {
                signals::check()?;
                let of_batch = net.correct(images, labels);
                correct = Some(correct.map_or_else(|| of_batch.shallow_clone(), |sum| sum + &of_batch));
            }
            let correct: Vec<i64> = correct.map_or(Ok(Vec::new()), Vec::try_from)?;
            let finite = net.finite();
            let score =
                |(correct, finite): (i64, bool)| if finite { correct as f64 / images } else { f64::NAN };
            Ok(correct.into_iter().zip(finite).map(score).collect())
        };
        let scores = match self.device {
            Device::Cuda(_) => {
                self.nets.iter_mut().map(|net| count(net, &self.score)).collect::<Result<Vec<_>, _>>()?
            }
            _ => {
                let handles: Vec<ScoreSet> = self.nets.iter().map(|_| self.score.handle()).collect();
                over_cores(self.nets.iter_mut().zip(handles).collect(), |(net, set)| count(net, &set))?
            }
        };
        Ok(scores.into_iter().flatten().collect())
    }

    fn copy(&mut self, from: u32, to: u32) -> anyhow::Result<()> {
        let per_net = self.members as usize / self.nets.len();
        let place = |member: u32| (member as usize / per_net, (member as usize % per_net) as i64);
        let ((from_net, from_row), (to_net, to_row)) = (place(from), place(to));
        let donor = self.nets[from_net].rows().narrow(from_row, 1);
        let mut rows = self.nets[to_net].rows();
        rows.set(to_row, &donor);
        self.nets[to_net].set_rows(&rows);
        Ok(())
    }

    fn save(&mut self, epoch: u32) -> anyhow::Result<()> {
        let before = self.generation_saved;
        self.saved(|checkpoints, rows| {
            checkpoints.save(epoch, rows)?;
            checkpoints.keep(&[before, epoch])
        })?;
        self.generation_saved = epoch;
        Ok(())
    }
}

/// A thread per core; each takes the next network and trains its members' epochs, rendering the
/// batches as it goes: on a CPU that is a small part of the work.
fn on_cpu(work: Vec<(&mut Net, &[Epoch<'_>])>, rates: &[f64], meter: &Meter) -> anyhow::Result<()> {
    over_cores(work, |(net, epochs)| {
        let mut scratch = Scratch::new();
        for (step, &lr) in rates.iter().enumerate() {
            signals::check()?;
            let batch = Batch::render(epochs, step, &mut scratch);
            net.set_lr(lr);
            net.step(&batch.images, &batch.labels);
            meter.trained(batch.labels.numel());
        }
        Ok(())
    })?;
    Ok(())
}

/// One thread feeds the GPU, the others render ahead of it. With graphs, the members take turns
/// step by step, so that their streams overlap; otherwise each trains its epoch in one go.
fn on_gpu(
    mut work: Vec<(&mut Net, &[Epoch<'_>])>,
    rates: &[f64],
    device: usize,
    strategy: Strategy,
    graphs: &mut Vec<GraphedStep>,
    meter: &Meter,
) -> anyhow::Result<()> {
    let (nets, steps) = (work.len(), rates.len());
    let place = |item: usize| match strategy {
        Strategy::Graphs => (item % nets, item / nets),
        _ => (item / steps, item % steps),
    };
    let epochs: Vec<&[Epoch<'_>]> = work.iter().map(|(_, epochs)| *epochs).collect();
    let threads = device::threads().saturating_sub(1).max(1);
    prefetch::in_order(
        nets * steps,
        threads,
        || {
            tch::set_num_threads(1);
            Scratch::new()
        },
        |scratch, item| {
            let (net, step) = place(item);
            Batch::render(epochs[net], step, scratch)
        },
        |item, batch| {
            signals::check()?;
            let (position, step) = place(item);
            let net = &mut *work[position].0;
            if strategy == Strategy::Graphs {
                if graphs.len() <= position {
                    graphs.push(GraphedStep::capture(net, &batch, device)?);
                }
                graphs[position].step(net, &batch, rates[step], device)?;
            } else {
                let batch = batch.to_device(Device::Cuda(device));
                net.set_lr(rates[step]);
                net.step(&batch.images, &batch.labels);
            }
            meter.trained(batch.labels.numel());
            anyhow::Ok(())
        },
    )?;
    graphs.iter().try_for_each(GraphedStep::join)
}

/// Does all the work, each item on one core, and returns the results in the order of the items.
fn over_cores<W: Send, R: Send>(
    work: Vec<W>,
    body: impl Fn(W) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let threads = device::threads().min(work.len());
    let queue = Mutex::new(work.into_iter().enumerate());
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let worker = || -> anyhow::Result<Vec<(usize, R)>> {
            tch::set_num_threads(1);
            native::backward_on_caller()?;
            let mut results = Vec::new();
            loop {
                let next = queue.lock().expect("no worker panics while it takes work").next();
                let Some((position, item)) = next else { return Ok(results) };
                results.push((position, body(item)?));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().map(|worker| worker.join().expect("a worker does not panic"));
        joined.collect::<Vec<_>>().into_iter().collect::<anyhow::Result<Vec<_>>>()
    })?
    .into_iter()
    .flatten()
    .collect();
    results.sort_by_key(|(position, _)| *position);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

impl Rows {
    /// Rows one below the other.
    fn cat(rows: &[Rows]) -> Rows {
        let cat = |of: fn(&Rows) -> &Tensor| Tensor::cat(&rows.iter().map(of).collect::<Vec<_>>(), 0);
        Rows {
            parameters: cat(|rows| &rows.parameters),
            momentum: cat(|rows| &rows.momentum),
            statistics: cat(|rows| &rows.statistics),
        }
    }

    fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> Rows {
        Rows {
            parameters: change(&self.parameters),
            momentum: change(&self.momentum),
            statistics: change(&self.statistics),
        }
    }

    fn narrow(&self, first: i64, count: i64) -> Rows {
        self.map(|tensor| tensor.narrow(0, first, count))
    }

    fn to_device(&self, device: Device) -> Rows {
        self.map(|tensor| tensor.to_device(device))
    }

    /// Overwrites one row by another's first.
    fn set(&mut self, row: i64, other: &Rows) {
        for (tensor, other) in [
            (&self.parameters, &other.parameters),
            (&self.momentum, &other.momentum),
            (&self.statistics, &other.statistics),
        ] {
            tensor.narrow(0, row, 1).copy_(other);
        }
    }
}

impl Net {
    /// Whether each member's parameters are all finite.
    fn finite(&self) -> Vec<bool> {
        let sums = self.rows().parameters.sum_dim_intlist(1, false, Kind::Float).isfinite();
        Vec::try_from(sums).expect("a vector of truths")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pba_augment::Base;
    use pba_schedules::Op;
    use pba_search::SearchSpec;

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
        Population::new(&spec.training, MEMBERS, train, score, device, strategy, checkpoints, meter).unwrap()
    }

    fn policies() -> Vec<Policy> {
        (0..MEMBERS as u8).map(|n| Policy::from_hyperparameters(&Op::PAPER, &[3 * n; 60]).unwrap()).collect()
    }

    fn train(population: &mut Population, epochs: Range<u32>) {
        population.train(&policies().iter().collect::<Vec<_>>(), epochs).unwrap();
    }

    /// Largest difference of any parameter between two populations.
    fn difference(one: &Population, other: &Population) -> f64 {
        (one.rows().parameters - other.rows().parameters).abs().max().double_value(&[])
    }

    #[test]
    fn members_are_copied_as_a_whole() {
        for strategy in [Strategy::Sequential, Strategy::Stacked] {
            let mut population = population(strategy, Device::Cpu, None);
            population.restore(0).unwrap();
            train(&mut population, 0..1);
            let before = population.rows();
            population.copy(2, 0).unwrap();
            let after = population.rows();
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
            let mut whole = population(strategy, Device::Cpu, Some(folder.path()));
            whole.restore(0).unwrap();
            train(&mut whole, 0..2);
            whole.save(2).unwrap();
            train(&mut whole, 2..3);
            // A long generation is saved in between.
            whole.saved(|checkpoints, rows| checkpoints.save_between(2, 3, rows)).unwrap();
            train(&mut whole, 3..4);
            for between in [true, false] {
                let mut resumed = population(strategy, Device::Cpu, Some(folder.path()));
                resumed.restore(2).unwrap();
                assert_eq!(resumed.epoch, if between { 3 } else { 2 });
                train(&mut resumed, 2..4);
                assert_eq!(difference(&whole, &resumed), 0.0, "{strategy}");
                assert_eq!(whole.evaluate().unwrap(), resumed.evaluate().unwrap());
                if between {
                    std::fs::remove_file(folder.path().join("between.safetensors")).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_member_that_diverged_scores_nan() {
        let mut population = population(Strategy::Stacked, Device::Cpu, None);
        population.restore(0).unwrap();
        let rows = population.rows();
        let _ = rows.parameters.get(1).fill_(f64::NAN);
        population.set_rows(&rows);
        let scores = population.evaluate().unwrap();
        assert_eq!(scores.iter().map(|score| score.is_nan()).collect::<Vec<_>>(), [false, true, false]);
    }

    /// On a GPU, all strategies train alike, up to the rounding of bf16, and each repeats itself.
    #[test]
    #[ignore = "needs a GPU"]
    fn gpu_strategies_agree() {
        crate::cuda::load().unwrap();
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
