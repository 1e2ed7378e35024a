//! `pba-trainer compare`: arms and seeds from scratch, and a report of their differences.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::ensure;
use pba_augment::{Base, Policies};
use pba_datasets::SplitName;
use pba_schedules::{Ablation, Schedule, random_schedule};
use pba_search::protocol::{Report, files, flags};
use pba_search::{
    Arm, Comparison, ComparisonEvent, ComparisonSpec, Run, RunKey, Score, Spec, SpecError, Stage, Trainer,
};

use crate::data::{Pictures, ScoreSet, Source, choose, member_seed};
use crate::disk::replace_file;
use crate::job::Job;
use crate::population::{Beginning, Population};
use crate::report::{self, Meter, number};
use crate::run_dir::{RunDir, resume};
use crate::schedules;
use crate::work::Work;

/// Train arms and seeds from scratch in a folder, or resume the comparison in it.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    work: Work,
    /// Folder of the run: journal, checkpoints, and the schedules that the arms name.
    #[arg(long = flags::DIR, required_unless_present = flags::CHECK)]
    dir: Option<PathBuf>,
}

/// Does what the command line says.
///
/// # Errors
/// Those of [`check`] and [`compare`].
pub(crate) fn run(Args { work, dir }: Args) -> anyhow::Result<()> {
    let spec: ComparisonSpec = work.begin()?;
    let checked = check(spec, &work.source(dir.as_deref()))?;
    match dir {
        Some(dir) if !work.check => {
            compare(&checked, &RunDir::open(&dir, work.patience(), work.save_interval())?)
        }
        _ => Ok(()),
    }
}

/// A comparison that is ready to start.
struct Checked {
    job: Job<ComparisonSpec>,
    /// The dataset's own validation split, if it has one.
    val: Option<Pictures>,
    /// The test split, if it is to be opened.
    test: Option<Pictures>,
}

/// Checks everything that can be checked before anything starts; errors as [`Job::check`].
fn check(spec: ComparisonSpec, source: &Source) -> anyhow::Result<Checked> {
    let (score, validates) = (spec.score, spec.validates());
    let as_it_is = |spec, _| Ok(spec);
    let mut job = Job::check(spec.clone(), spec.strategy, as_it_is, source)?;
    let has = |split| job.dataset.split(split).is_some();
    let val = (validates && has(SplitName::Val)).then(|| job.scored_on(SplitName::Val)).transpose()?;
    if score == Score::Test && !has(SplitName::Test) {
        let allowed = "\"val\", because the dataset has no test split";
        return Err(SpecError::new("score", "\"test\"", allowed).into());
    }
    let test = (score == Score::Test).then(|| job.scored_on(SplitName::Test)).transpose()?;
    let val_images = val.as_ref().map(|val| val.images.len() as usize);
    job.spec = job.spec.sized(job.pictures.images.len() as usize, val_images)?;
    job.check_hours()?;
    Ok(Checked { job, val, test })
}

/// Runs the comparison to its end.
///
/// # Errors
/// [`crate::signals::Interrupted`] when told to stop; others when it cannot continue.
fn compare(checked: &Checked, run_dir: &RunDir) -> anyhow::Result<()> {
    let Job { spec, dataset, placement, .. } = &checked.job;
    let trial = Trial::new(checked, &run_dir.path)?;
    let schedule_digests: Vec<Option<String>> = spec.arms.iter().map(|arm| trial.digest(arm)).collect();
    let scored_on = [(&checked.val, SplitName::Val), (&checked.test, SplitName::Test)];
    let scored_on = scored_on.into_iter().filter_map(|(pictures, split)| pictures.as_ref().map(|_| split));
    let begun = ComparisonEvent::Comparing {
        spec: Box::new(spec.clone()),
        schedule_digests: schedule_digests.clone(),
        dataset_digest: checked.job.digest_with(scored_on).to_string(),
    };
    let (mut comparison, mut journal) = resume::<Comparison>(Some(run_dir), &begun, dataset)?;
    ensure!(
        comparison.schedule_digests == schedule_digests,
        "the job's folder holds a comparison of schedules of these names with different content"
    );
    let write_report = |comparison: &Comparison| {
        let text = pba_search::markdown(spec, &comparison.report(), None);
        replace_file(&run_dir.path.join(files::REPORT), text.as_bytes())
    };
    if comparison.is_complete() {
        return Ok(write_report(&comparison)?);
    }
    report::tell(&placement.report());
    let meter = Arc::new(Meter::of(spec));
    report::ticking(&meter, || {
        let mut record = |comparison: &mut Comparison, event: ComparisonEvent| {
            comparison.apply(&event).map_err(anyhow::Error::msg)?;
            journal.record::<Comparison>(&event)?;
            journal.sync()?;
            report::tell(&Report::Saved { epoch: comparison.epoch() });
            anyhow::Ok(())
        };
        loop {
            // Before the first round that needs it, though the trainer was killed between the two.
            if let Some(tuning) = comparison.choose() {
                record(&mut comparison, ComparisonEvent::Tuned(tuning))?;
            }
            let Some((number, round)) = comparison.current() else { break };
            let (split, score) = trial.scored_on(round.stage);
            let (images, arms) =
                (score.images, round.runs.iter().map(|&run| comparison.arm(round.stage, run)));
            let runs: Vec<_> = round.runs.iter().copied().zip(arms).collect();
            let before = comparison.trained_models();
            let errors = trial.train(&runs, score, run_dir, &meter, before)?;
            let split = split.to_string();
            record(&mut comparison, ComparisonEvent::Scored { round: number, split, images, errors })?;
        }
        record(&mut comparison, ComparisonEvent::Compared)
    })?;
    report::tell(&meter.progress());
    Ok(write_report(&comparison)?)
}

/// What the runs of a comparison train on, and are scored with.
struct Trial<'a> {
    job: &'a Job<ComparisonSpec>,
    /// The schedule of each arm that has one, and of each candidate of a tuned arm.
    schedules: HashMap<Arm, Arc<Schedule>>,
    /// Images of the training split that runs may train on, with their classes.
    trainable: Vec<u64>,
    labels: Vec<i64>,
    /// The images that the tuning is scored with, and with them the arms if the score is `val`.
    validation: Option<(SplitName, ScoreSet)>,
    test: Option<(SplitName, ScoreSet)>,
}

impl<'a> Trial<'a> {
    fn new(Checked { job, val, test }: &'a Checked, path: &Path) -> anyhow::Result<Trial<'a>> {
        let Job { spec, pictures, placement, .. } = job;
        let candidates = if spec.tunes() { Arm::candidates() } else { Vec::new() };
        let mut schedules = HashMap::new();
        for arm in spec.arms.iter().chain(&candidates) {
            let schedule = match arm {
                Arm::Schedule { name, .. } => schedules::named(name, Some(path))?,
                Arm::Random(seed) => Arc::new(random_schedule(*seed)),
                Arm::Base | Arm::Identity | Arm::Cutout(_) | Arm::Tuned => continue,
            };
            schedules.insert(arm.clone(), schedule);
        }
        // The validation images are the same for every seed, so that they are kept from all training.
        let all = |pictures: &Pictures| (0..pictures.images.len()).collect::<Vec<u64>>();
        let (seed, val_size, labels) =
            (spec.training.split_seed, spec.val_size.unwrap_or(0), pictures.labels()?);
        let set = |split, pictures: &Pictures, images: &[u64]| {
            anyhow::Ok((split, ScoreSet::new(pictures, images, placement.device)?))
        };
        let (mut trainable, mut validation) = (all(pictures), None);
        if let Some(val) = val {
            let (chosen, _) = choose(&val.labels()?, seed, val_size, 0);
            validation = Some(set(SplitName::Val, val, &chosen)?);
        } else if spec.validates() {
            let (chosen, _) = choose(&labels, seed, val_size, 0);
            validation = Some(set(SplitName::Train, pictures, &chosen)?);
            let chosen: HashSet<u64> = chosen.into_iter().collect();
            trainable.retain(|image| !chosen.contains(image));
        }
        let labels = trainable.iter().map(|&image| labels[image as usize]).collect();
        let test = test.as_ref().map(|test| set(SplitName::Test, test, &all(test))).transpose()?;
        Ok(Trial { job, schedules, trainable, labels, validation, test })
    }

    fn digest(&self, arm: &Arm) -> Option<String> {
        self.schedules.get(arm).map(|schedule| schedule.digest().to_string())
    }

    /// The images that the runs of a stage are scored with.
    fn scored_on(&self, stage: Stage) -> (SplitName, ScoreSet) {
        let set = match stage {
            Stage::Tuning => &self.validation,
            Stage::Comparing => self.test.as_ref().map_or(&self.validation, |_| &self.test),
        };
        let (split, set) = set.as_ref().expect("a checked comparison has what it is scored with");
        (*split, set.handle())
    }

    /// The images that every run of a seed trains on.
    fn images(&self, seed: u32) -> Arc<[u64]> {
        let seed = member_seed(self.job.spec.training.split_seed, seed);
        let (chosen, _) = choose(&self.labels, seed, self.job.spec.train_size.unwrap_or(0), 0);
        chosen.into_iter().map(|position| self.trainable[position as usize]).collect()
    }

    /// Trains some runs side by side, after `models_before` others; gives the error of each, and none where it
    /// diverged.
    fn train(
        &self,
        runs: &[(RunKey, Arm)],
        score: ScoreSet,
        run_dir: &RunDir,
        meter: &Arc<Meter>,
        (rounds_before, models_before): (u32, u32),
    ) -> anyhow::Result<Vec<Option<f64>>> {
        let (training, base) = (&self.job.spec.training, self.job.base);
        let seeds: Vec<u64> = runs.iter().map(|(run, _)| member_seed(training.seed, run.seed)).collect();
        let mut by_seed = HashMap::new();
        let begin = |(&seed, (run, arm)): (&u64, &(RunKey, Arm))| Beginning {
            seed,
            images: by_seed.entry(run.seed).or_insert_with(|| self.images(run.seed)).clone(),
            base: match arm {
                Arm::Identity => Base::IDENTITY,
                Arm::Cutout(size) => Base { cutout: Some(*size), ..base },
                _ => base,
            },
        };
        let members = seeds.iter().zip(runs).map(begin).collect();
        let mut population = Population::new(self.job, members, score, Some(run_dir), meter)?;
        let images_of_a_model = self.job.spec.images() / u64::from(self.job.spec.models());
        population.before = (rounds_before * training.epochs, u64::from(models_before) * images_of_a_model);
        population.restore(0)?;
        let trained = population.train_epochs(0..training.epochs, |epoch| {
            let policies = |(&seed, (_, arm)): (&u64, &(RunKey, Arm))| {
                let Some(schedule) = self.schedules.get(arm) else { return Ok(Policies::None) };
                let ablation = match arm {
                    Arm::Schedule { ablation, .. } => *ablation,
                    _ => Ablation::Scheduled,
                };
                schedules::policies(schedule, ablation, epoch, training.epochs, seed)
            };
            seeds.iter().zip(runs).map(policies).collect()
        });
        let scored = trained.and_then(|()| population.evaluate());
        Ok(population.keep_latest(scored)?.into_iter().map(|accuracy| number(1.0 - accuracy)).collect())
    }
}
