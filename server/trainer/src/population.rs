//! The members of a search, or the runs of another job, as their trainer.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use pba_augment::{Base, Policies};
use pba_schedules::Policy;
use pba_search::protocol::{Report, files};
use pba_search::{Spec, Trainer, TrainingSpec};
use tch::Kind;

use crate::checkpoint::{Owner, Snapshot};
use crate::checkpoints::Checkpoints;
use crate::data::{ScoreSet, TrainSet, member_seed};
use crate::device::Placement;
use crate::job::Job;
use crate::members::{EpochWork, Train};
use crate::network::model::Model;
use crate::network::net::Net;
use crate::network::rows::Rows;
use crate::report::{self, Meter};
use crate::run_dir::RunDir;
use crate::{models, torch};

/// What a member begins with.
pub(crate) struct Beginning {
    /// The seed of everything that it draws: weights, order, augmentation.
    pub(crate) seed: u64,
    /// The images that it trains on: as many for every member.
    pub(crate) images: Arc<[u64]>,
    pub(crate) base: Base,
}

impl Beginning {
    /// The members of a population, which train on the same images.
    pub(crate) fn of_all<S: Spec>(job: &Job<S>, members: u32, images: Vec<u64>) -> Vec<Beginning> {
        let (seed, images) = (job.spec.training().seed, Arc::from(images));
        let begin = |member| Beginning {
            seed: member_seed(seed, member),
            images: Arc::clone(&images),
            base: job.base,
        };
        (0..members).map(begin).collect()
    }
}

/// More than a number of epochs takes.
const FINISH_BYTES_MAX: u64 = 64;
/// The parts of [`Population::spent`].
const TRAIN: usize = 0;
const SCORE: usize = 1;
const COPY: usize = 2;

/// The members, and what they share.
pub(crate) struct Population {
    training: TrainingSpec,
    placement: Placement,
    /// What each member trains on.
    train: Vec<TrainSet>,
    /// What each member draws from.
    seeds: Vec<u64>,
    score: ScoreSet,
    /// Where the members are kept; without it they are lost when the process ends.
    checkpoints: Option<Checkpoints>,
    /// How far the members are.
    pub(crate) meter: Arc<Meter>,
    model: Arc<Model>,
    /// The members in their order, as many in each network.
    nets: Vec<Net>,
    way: Box<dyn Train>,
    /// A file that is there when the search should end: as in `pba_search::protocol::files`.
    finish: Option<PathBuf>,
    /// What was trained, scored and copied in.
    spent: [Duration; 3],
    /// Epochs that the members have trained: in the middle of a generation, more than the run's.
    epoch: u32,
    /// Epochs and images of the job's earlier populations, which meter and checkpoints count too.
    pub(crate) before: (u32, u64),
}

impl Population {
    /// Members of a job, which are saved in `run_dir` if there is one. They have no weights:
    /// [`Trainer::restore`] gives them.
    pub(crate) fn new<S: Spec>(
        job: &Job<S>,
        members: Vec<Beginning>,
        score: ScoreSet,
        run_dir: Option<&RunDir>,
        meter: &Arc<Meter>,
    ) -> anyhow::Result<Population> {
        torch::backward_on_caller()?;
        let placement = job.placement;
        torch::deterministic(placement.cudnn_measures)?;
        // One thread per member at work, so results do not depend on the number of cores: sums
        // inside of libtorch would be split by it.
        tch::set_num_threads(1);
        let training = job.spec.training().clone();
        let pictures = job.pictures.clone();
        let model = Arc::new(models::build(training.model, pictures.classes));
        let count = members.len() as u32;
        let per_net = if placement.way.is_stacked { count } else { 1 };
        let net = |_| {
            let (normalization, kinds) = (pictures.normalization, (Kind::Float, placement.compute));
            let decay = training.weight_decay;
            let mut net = Net::new(&model, per_net.into(), normalization, decay, placement.device, kinds);
            // Three channels to a group are too few for the tensor cores of a GPU.
            net.set_stem_as_product(placement.way.is_stacked && placement.device.is_cuda());
            net
        };
        let checkpoints =
            |dir: &RunDir| Checkpoints::new(&dir.path, Owner::of(&training, dir.run()), dir.save_interval);
        let set = |Beginning { images, base, .. }: &Beginning| TrainSet {
            pictures: pictures.clone(),
            indices: Arc::clone(images),
            base: *base,
            batch_size: training.batch_size,
            shakes: model.layers.shakes.clone(),
        };
        Ok(Population {
            nets: (0..count / per_net).map(net).collect(),
            way: (placement.way.train)(placement.streams),
            checkpoints: run_dir.map(checkpoints),
            finish: run_dir.map(|dir| dir.path.join(files::FINISH)),
            meter: Arc::clone(meter),
            train: members.iter().map(set).collect(),
            seeds: members.iter().map(|member| member.seed).collect(),
            training,
            placement,
            score,
            model,
            spent: [Duration::ZERO; 3],
            epoch: 0,
            before: (0, 0),
        })
    }

    /// Trains every member through one epoch, on images that are still what was packed after it.
    pub(crate) fn train_epoch(&mut self, policies: &[Policies], epoch: u32) -> anyhow::Result<()> {
        let Population { training, train, seeds, meter, .. } = self;
        let epochs = (train.iter().zip(seeds.iter()).zip(policies))
            .map(|((train, &seed), policies)| train.epoch(policies.clone(), seed, epoch))
            .collect::<Result<Vec<_>, _>>()?;
        let steps = train[0].steps() as u64;
        let first = u64::from(epoch) * steps;
        let rate = |step| training.lr * training.lr_schedule.factor(step, steps, training.epochs);
        let rates = (first..first + steps).map(rate).collect();
        let epochs = epochs.chunks(epochs.len() / self.nets.len()).collect();
        self.way.train(&mut self.nets, &EpochWork { epochs, rates, meter })?;
        TrainSet::check_again(train)?;
        // Asked between epochs: a question in the middle of a graph's capture would end the capture.
        meter.finished(self.before.0 + epoch + 1, self.placement.gpu_memory_used_bytes());
        self.epoch = epoch + 1;
        Ok(())
    }

    /// What the process has spent its time on.
    pub(crate) fn spent(&self) -> Report {
        let [train, score, copy] = self.spent.map(|spent| (spent.as_secs_f64() * 1e3).round() / 1e3);
        Report::Spent { train, score, copy }
    }

    /// Adds the time since `start` to what was spent on a part. Waits for the device, whose work it is.
    fn spend(&mut self, part: usize, start: Instant) {
        self.placement.wait();
        self.spent[part] += start.elapsed();
    }

    /// Each member's mean loss over the `epochs` epochs since the last call.
    pub(crate) fn take_losses(&mut self, epochs: u32) -> Vec<f32> {
        let steps = (self.train[0].steps() as u32 * epochs) as f32;
        self.nets.iter_mut().flat_map(Net::take_loss_sums).map(|sum| sum / steps).collect()
    }

    /// Trains every member through `epochs` (0-based) with the `policies` of each, from wherever the members
    /// stand; saves them on the way where that takes long.
    pub(crate) fn train_epochs(
        &mut self,
        epochs: Range<u32>,
        policies: impl Fn(u32) -> anyhow::Result<Vec<Policies>>,
    ) -> anyhow::Result<()> {
        for epoch in epochs.start.max(self.epoch)..epochs.end {
            self.train_epoch(&policies(epoch)?, epoch)?;
            // The last epoch's members are taken once they have copied each other.
            if self.epoch < epochs.end {
                self.keep(epochs.start)?;
            }
        }
        Ok(())
    }

    /// Takes what the members are now, to be saved for the generation that began after `generation` epochs.
    fn keep(&mut self, generation: u32) -> anyhow::Result<()> {
        match &mut self.checkpoints {
            Some(checkpoints) => {
                let rows = snapshot(&self.nets);
                let before = self.before.0;
                checkpoints.take(Snapshot {
                    generation: before + generation,
                    epoch: before + self.epoch,
                    rows,
                })
            }
            None => Ok(()),
        }
    }

    /// Waits until what is being saved is on disk, to measure what that costs.
    pub(crate) fn settle(&mut self) -> anyhow::Result<()> {
        self.checkpoints.as_mut().map_or(Ok(()), Checkpoints::settle)
    }

    /// Saves the members as they are now while the caller waits, to measure how long that takes.
    pub(crate) fn save_in_line(&mut self) -> anyhow::Result<()> {
        self.keep(self.epoch)?;
        self.checkpoints.as_mut().map_or(Ok(()), Checkpoints::finish)
    }

    /// After a run has ended early, as by an interruption: saves the members after their last finished epoch.
    ///
    /// # Errors
    /// The one that ended it.
    pub(crate) fn keep_latest<T>(&mut self, ended: anyhow::Result<T>) -> anyhow::Result<T> {
        if let (Err(_), Some(checkpoints)) = (&ended, &mut self.checkpoints)
            && let Err(error) = checkpoints.finish()
        {
            eprintln!("warning: {error:#}");
        }
        ended
    }

    /// What every member starts as: it follows from the member's seed.
    fn initial_rows(&self) -> Rows {
        Rows::cat(&self.seeds.iter().map(|&seed| self.model.initial_rows(seed)).collect::<Vec<_>>())
    }

    /// Makes the members what the rows say.
    fn set_rows(&mut self, rows: &Rows) {
        let mut first = 0;
        for net in &mut self.nets {
            net.set_rows(&rows.map(|tensor| tensor.narrow(0, first, net.members())));
            first += net.members();
        }
    }
}

/// A copy of what the members of some networks are now, on the device.
fn snapshot(nets: &[Net]) -> Rows {
    Rows::cat(&nets.iter().map(Net::rows).collect::<Vec<_>>())
}

impl Trainer for Population {
    type Error = anyhow::Error;

    fn restore(&mut self, epoch: u32) -> anyhow::Result<()> {
        let members = self.seeds.len() as u32;
        let before = self.before.0;
        let saved = self.checkpoints.as_mut().map(|checkpoints| checkpoints.restore(before + epoch, members));
        let saved = saved.transpose()?.flatten();
        let is_saved = saved.is_some();
        let (epoch, rows) = match saved {
            Some((saved, rows)) => (saved - before, rows),
            None => {
                ensure!(epoch == 0, "there is no checkpoint of epoch {epoch}");
                (0, self.initial_rows())
            }
        };
        self.set_rows(&rows);
        self.epoch = epoch;
        let images = (self.train.len() * self.train[0].steps() * self.training.batch_size) as u64;
        let (epoch, images) = (before + epoch, self.before.1 + images * u64::from(epoch));
        self.meter.resume(epoch, images);
        if is_saved {
            report::tell(&Report::Restored { epoch, images });
            report::tell(&Report::Saved { epoch });
        }
        Ok(())
    }

    fn train(&mut self, policies: &[&Policy], epochs: Range<u32>) -> anyhow::Result<()> {
        let start = Instant::now();
        let policies: Vec<Policies> = policies.iter().map(|&policy| Policies::One(policy.clone())).collect();
        let trained = self.train_epochs(epochs, |_| Ok(policies.clone()));
        self.spend(TRAIN, start);
        trained
    }

    fn evaluate(&mut self) -> anyhow::Result<Vec<f64>> {
        let start = Instant::now();
        let scores = self.way.scores(&mut self.nets, &self.score)?.concat();
        self.spend(SCORE, start);
        Ok(scores)
    }

    fn copy(&mut self, from: u32, to: u32) -> anyhow::Result<()> {
        let start = Instant::now();
        let per_net = self.nets[0].members();
        let place = |member: u32| ((i64::from(member) / per_net) as usize, i64::from(member) % per_net);
        let ((from_net, from_row), (to_net, to_row)) = (place(from), place(to));
        let donor = self.nets[from_net].rows().map(|tensor| tensor.narrow(0, from_row, 1));
        let mut rows = self.nets[to_net].rows();
        rows.set(to_row, &donor);
        self.nets[to_net].set_rows(&rows);
        self.spend(COPY, start);
        Ok(())
    }

    fn save(&mut self, epoch: u32) -> anyhow::Result<()> {
        let start = Instant::now();
        self.keep(epoch)?;
        let is_last = self.is_asked_to_finish();
        match &mut self.checkpoints {
            Some(checkpoints) if epoch == self.training.epochs || is_last => checkpoints.finish()?,
            _ => {}
        }
        self.spend(COPY, start);
        Ok(())
    }

    fn is_asked_to_finish(&mut self) -> bool {
        let Some(finish) = self.finish.as_deref() else { return false };
        match pba_files::read_text(finish, FINISH_BYTES_MAX) {
            Ok(reached) => self.epoch > reached.trim().parse().unwrap_or(0),
            // In doubt, now.
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pba_schedules::Op;
    use pba_search::{SearchSpec, Strategy};

    use super::*;
    use crate::data::Source;

    const MEMBERS: u32 = 3;

    /// A population that trains on the built-in dataset, in a folder if there is one.
    fn population(strategy: Strategy, device: &str, folder: Option<&Path>) -> Population {
        population_of("tiny", strategy, device, folder)
    }

    fn population_of(model: &str, strategy: Strategy, device: &str, folder: Option<&Path>) -> Population {
        let text = r#"{"model": "MODEL", "batch_size": 16, "epochs": 6, "lr": 0.02, "device": "DEVICE", "precision": "PRECISION"}"#;
        let (device, precision) = device.split_once(' ').unwrap_or((device, "auto"));
        let text = text.replace("MODEL", model).replace("DEVICE", device).replace("PRECISION", precision);
        let spec = SearchSpec::from_json(&text).unwrap();
        let source = Source::of_built_in(std::env::temp_dir().join("pba-trainer"));
        let job = Job::check(spec, strategy, SearchSpec::sized, &source).unwrap();
        let scored: Vec<u64> = (64..600).collect();
        let score = ScoreSet::new(&job.pictures, &scored, job.placement.device).unwrap();
        let open = |folder| RunDir::open(folder, Duration::ZERO, Some(Duration::ZERO)).unwrap();
        let folder = folder.map(open);
        let members = Beginning::of_all(&job, MEMBERS, (0..64).collect());
        Population::new(&job, members, score, folder.as_ref(), &Arc::new(Meter::of(&job.spec))).unwrap()
    }

    fn policies() -> Vec<Policy> {
        (0..MEMBERS as u8).map(|n| Policy::from_hyperparameters(&Op::PAPER, &[3 * n; 60]).unwrap()).collect()
    }

    fn train(population: &mut Population, epochs: Range<u32>) {
        population.train(&policies().iter().collect::<Vec<_>>(), epochs).unwrap();
    }

    /// Largest difference of any parameter between two populations.
    fn difference(one: &Population, other: &Population) -> f64 {
        (snapshot(&one.nets).parameters - snapshot(&other.nets).parameters).abs().max().double_value(&[])
    }

    #[test]
    fn members_are_copied_as_a_whole() {
        for strategy in [Strategy::Sequential, Strategy::Stacked] {
            let mut population = population(strategy, "cpu", None);
            population.restore(0).unwrap();
            train(&mut population, 0..1);
            let before = snapshot(&population.nets);
            population.copy(2, 0).unwrap();
            let after = snapshot(&population.nets);
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

    /// Whoever asked for the end gets it, though the disk fails.
    #[test]
    fn a_wish_to_finish_that_cannot_be_read_is_one_to_finish_now() {
        let folder = tempfile::tempdir().unwrap();
        let mut population = population(Strategy::Sequential, "cpu", Some(folder.path()));
        assert!(!population.is_asked_to_finish());
        for (wish, is_asked) in
            [(&b"0"[..], false), (b"\xff", true), (&[b'0'; FINISH_BYTES_MAX as usize + 1], true)]
        {
            std::fs::write(folder.path().join(files::FINISH), wish).unwrap();
            assert_eq!(population.is_asked_to_finish(), is_asked, "{wish:?}");
        }
    }

    #[test]
    fn what_is_restored_goes_on_as_if_never_interrupted() {
        for strategy in [Strategy::Sequential, Strategy::Stacked] {
            let folder = tempfile::tempdir().unwrap();
            let mut uninterrupted = population(strategy, "cpu", Some(folder.path()));
            uninterrupted.restore(0).unwrap();
            train(&mut uninterrupted, 0..2);
            uninterrupted.save(2).unwrap();
            uninterrupted.checkpoints.as_mut().unwrap().finish().unwrap();
            // A generation is saved before its end, too.
            train(&mut uninterrupted, 2..4);
            uninterrupted.checkpoints.as_mut().unwrap().finish().unwrap();
            for mid_generation in [true, false] {
                let mut resumed = population(strategy, "cpu", Some(folder.path()));
                resumed.restore(2).unwrap();
                assert_eq!(resumed.epoch, if mid_generation { 3 } else { 2 });
                train(&mut resumed, 2..4);
                assert_eq!(difference(&uninterrupted, &resumed), 0.0, "{strategy}");
                assert_eq!(uninterrupted.evaluate().unwrap(), resumed.evaluate().unwrap());
                if mid_generation {
                    std::fs::remove_file(folder.path().join("checkpoint-000003.safetensors")).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_member_that_diverged_scores_nan() {
        let mut population = population(Strategy::Stacked, "cpu", None);
        population.restore(0).unwrap();
        let rows = snapshot(&population.nets);
        let _ = rows.parameters.get(1).fill_(f64::NAN);
        population.set_rows(&rows);
        let scores = population.evaluate().unwrap();
        assert_eq!(scores.iter().map(|score| score.is_nan()).collect::<Vec<_>>(), [false, true, false]);
    }

    /// Scores of the same members by several ways: a few images near a border may fall on either side of it.
    #[track_caller]
    fn assert_alike(scores: &[f64], others: &[f64], tolerance: f64) {
        assert_eq!(scores.len(), others.len());
        for (score, other) in scores.iter().zip(others) {
            assert!((score - other).abs() <= tolerance, "{scores:?} and {others:?}");
        }
    }

    /// A graph scores the members that it is given as one operator after another does, whatever they are.
    #[test]
    #[ignore = "needs a GPU"]
    fn gpu_graphs_score_as_eager() {
        for model in ["tiny", "wrn-10-1"] {
            let mut graphs = population_of(model, Strategy::Graphs, "cuda fp32", None);
            let mut eager = population_of(model, Strategy::Sequential, "cuda fp32", None);
            graphs.restore(0).unwrap();
            for epoch in 0..3 {
                train(&mut graphs, epoch..epoch + 1);
                // The second and third time, the graph of the first is replayed with other weights.
                let scores = graphs.evaluate().unwrap();
                eager.restore(0).unwrap();
                eager.set_rows(&snapshot(&graphs.nets));
                let others = eager.evaluate().unwrap();
                println!("{model}, epoch {epoch}: graphs {scores:?}, eager {others:?}");
                assert_alike(&scores, &others, 0.01);
            }
        }
    }

    /// On a GPU, all strategies train alike, up to the rounding of bf16, and each repeats itself; so do networks
    /// that are random themselves, whose random numbers a captured graph is given at each step.
    #[test]
    #[ignore = "needs a GPU"]
    fn gpu_strategies_agree() {
        for model in ["tiny", "shake-shake-8-2x16d", "pyramidnet-11-a48-shakedrop"] {
            let run = |strategy, device| {
                let mut population = population_of(model, strategy, device, None);
                population.restore(0).unwrap();
                train(&mut population, 0..3);
                let losses = population.take_losses(3);
                let scores = population.evaluate().unwrap();
                (population, losses, scores)
            };
            let (_, on_cpu, scores_on_cpu) = run(Strategy::Sequential, "cpu");
            for strategy in [Strategy::Sequential, Strategy::Stacked, Strategy::Graphs] {
                let (one, losses, scores) = run(strategy, "cuda");
                println!("{model}, {strategy}: losses {losses:?}, on the CPU {on_cpu:?}; scores {scores:?}");
                for (loss, on_cpu) in losses.iter().zip(&on_cpu) {
                    assert!((loss - on_cpu).abs() < 0.05 * on_cpu, "{model}, {strategy}");
                }
                assert_alike(&scores, &scores_on_cpu, 0.1);
                let (other, _, scores_again) = run(strategy, "cuda");
                assert_eq!(scores, scores_again, "{model}, {strategy} scores as before");
                println!("{model}, {strategy}: two runs differ by {:.1e}", difference(&one, &other));
                assert_eq!(difference(&one, &other), 0.0, "{model}, {strategy} repeats itself");
            }
        }
    }

    /// In fp32, a GPU trains the same weights on the same batches as a CPU does.
    #[test]
    #[ignore = "needs a GPU"]
    fn gpu_equals_cpu_in_fp32() {
        let run = |strategy, device| {
            let mut population = population(strategy, device, None);
            population.restore(0).unwrap();
            train(&mut population, 0..1);
            (population.take_losses(1), population.evaluate().unwrap())
        };
        let (on_cpu, scores_on_cpu) = run(Strategy::Sequential, "cpu");
        for strategy in [Strategy::Sequential, Strategy::Stacked, Strategy::Graphs] {
            let (losses, scores) = run(strategy, "cuda fp32");
            println!("{strategy}: losses {losses:?}, on the CPU {on_cpu:?}; scores {scores:?}");
            for (loss, on_cpu) in losses.iter().zip(&on_cpu) {
                assert!((loss - on_cpu).abs() < 0.002 * on_cpu, "{strategy}");
            }
            assert_alike(&scores, &scores_on_cpu, 0.02);
        }
    }

    /// On a GPU, too, what is restored goes on as if never interrupted.
    #[test]
    #[ignore = "needs a GPU"]
    fn gpu_resumes() {
        for strategy in [Strategy::Sequential, Strategy::Stacked, Strategy::Graphs] {
            let folder = tempfile::tempdir().unwrap();
            let mut uninterrupted = population(strategy, "cuda", Some(folder.path()));
            uninterrupted.restore(0).unwrap();
            train(&mut uninterrupted, 0..2);
            uninterrupted.save(2).unwrap();
            uninterrupted.checkpoints.as_mut().unwrap().finish().unwrap();
            let mut resumed = population(strategy, "cuda", Some(folder.path()));
            resumed.restore(2).unwrap();
            for population in [&mut uninterrupted, &mut resumed] {
                train(population, 2..3);
            }
            println!("{strategy}: a resumed run differs by {:.1e}", difference(&uninterrupted, &resumed));
            assert_eq!(difference(&uninterrupted, &resumed), 0.0, "{strategy}");
            assert_eq!(uninterrupted.evaluate().unwrap(), resumed.evaluate().unwrap());
        }
    }
}
