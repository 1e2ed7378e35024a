//! `pba-trainer evaluate`: one model from scratch, with or without a schedule, and its test error.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use pba_augment::Policies;
use pba_datasets::SplitName;
use pba_schedules::{Ablation, Schedule, formats};
use pba_search::protocol::{files, flags};
use pba_search::{Evaluated, Evaluation, EvaluationEvent, EvaluationSpec, Run, SpecError, Strategy, Trainer};

use crate::data::{self, Pictures, ScoreSet, choose};
use crate::job::Job;
use crate::population::Population;
use crate::report;
use crate::run_dir::{RunDir, resume};
use crate::work::Work;

/// One network after the other is the only way where there is only one.
const STRATEGY: Strategy = Strategy::Sequential;

/// Train one model from scratch with or without a schedule, and report its test error.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    work: Work,
    /// Folder of the run, needed to resume it: journal, checkpoints, and the schedule that the spec names.
    #[arg(long = flags::DIR)]
    dir: Option<PathBuf>,
    /// A schedule file, the name of a published schedule, or `none`: base augmentation only
    /// [default: the one that the spec names].
    #[arg(long)]
    schedule: Option<String>,
}

/// Does what the command line says.
///
/// # Errors
/// Those of [`schedule`], [`check`] and [`evaluate`].
pub(crate) fn run(Args { work, dir, schedule: given }: Args) -> anyhow::Result<()> {
    let (dir, spec): (_, EvaluationSpec) = (dir.as_deref(), work.begin()?);
    let is_scheduled = given.as_deref().unwrap_or(&spec.schedule) != EvaluationSpec::NO_SCHEDULE;
    if !is_scheduled && spec.ablation != Ablation::Scheduled {
        let allowed = "scheduled, as there is no schedule to ablate";
        return Err(SpecError::new("ablation", spec.ablation, allowed).into());
    }
    // With --check, the schedule that the spec names may be put in the folder later.
    let schedule = match &given {
        None if work.check => None,
        given => schedule(given.as_deref(), &spec, dir)?,
    };
    let checked = check(spec, &work.dataset, &work.cache(dir))?;
    if work.check { Ok(()) } else { evaluate(checked, schedule, dir, work.patience()) }
}

/// Reads the schedule to train with: the one that is given, or else the one that the spec names, which
/// the run folder holds unless it is published. None is base augmentation only.
fn schedule(
    given: Option<&str>,
    spec: &EvaluationSpec,
    dir: Option<&Path>,
) -> anyhow::Result<Option<Arc<Schedule>>> {
    let name = given.unwrap_or(&spec.schedule);
    if name == EvaluationSpec::NO_SCHEDULE {
        return Ok(None);
    }
    let saved = dir.map(|dir| dir.join(files::SCHEDULE)).filter(|path| given.is_none() && path.exists());
    let published = || pba_schedules::library::all().into_iter().find(|known| known.name() == name);
    if let (None, Some(published)) = (&saved, published()) {
        return Ok(Some(Arc::new(published)));
    }
    let path = saved.unwrap_or_else(|| name.into());
    let cannot = || format!("cannot read the schedule {}", path.display());
    let text = fs::read_to_string(&path).with_context(cannot)?;
    Ok(Some(Arc::new(formats::read(&text, None, None).with_context(cannot)?)))
}

/// An evaluation that is ready to start, and what it is tested on.
struct Checked {
    job: Job<EvaluationSpec>,
    tested_on: SplitName,
    tested: Pictures,
}

/// Checks everything that can be checked before anything starts; errors as [`Job::check`].
fn check(spec: EvaluationSpec, dataset: &Path, cache: &Path) -> anyhow::Result<Checked> {
    let job = Job::check(spec, STRATEGY, EvaluationSpec::sized, dataset, cache)?;
    let has_test = job.dataset.split(SplitName::Test).is_some();
    let tested_on = if has_test { SplitName::Test } else { SplitName::Val };
    let tested = data::pictures(&job.dataset, tested_on)
        .map_err(|error| anyhow!("there is neither a test nor a val split to test on: {error:#}"))?;
    let (one, other) = (tested.shape, job.pictures.shape);
    ensure!(
        one == other,
        "the images of the {tested_on} split are {}x{}, those of the train split {}x{}",
        one.height,
        one.width,
        other.height,
        other.width
    );
    Ok(Checked { job, tested_on, tested })
}

/// Runs the evaluation to its end, in a folder once no other trainer has held it for `patience`; after
/// each epoch it can be resumed there.
///
/// # Errors
/// [`crate::signals::Interrupted`] when told to stop; others when it cannot continue.
fn evaluate(
    Checked { mut job, tested_on, tested }: Checked,
    schedule: Option<Arc<Schedule>>,
    run_dir: Option<&Path>,
    patience: Duration,
) -> anyhow::Result<()> {
    let run_dir = run_dir.map(|path| RunDir::open(path, patience)).transpose()?;
    let name = schedule.as_ref().map_or(EvaluationSpec::NO_SCHEDULE, |schedule| schedule.name());
    job.spec.schedule = name.to_owned();
    let Job { spec, dataset, pictures, placement, .. } = &job;
    let schedule_digest = schedule.as_ref().map(|schedule| schedule.digest().to_string());
    let started = EvaluationEvent::Evaluating {
        spec: Box::new(spec.clone()),
        schedule_digest: schedule_digest.clone(),
        dataset_digest: dataset.digest().to_string(),
    };
    let (mut evaluation, mut journal) = resume::<Evaluation>(run_dir.as_ref(), &started)?;
    ensure!(
        evaluation.schedule_digest == schedule_digest,
        "the run folder holds an evaluation of a schedule {:?} with different content",
        spec.schedule
    );
    if evaluation.outcome.is_some() {
        return Ok(());
    }
    report::tell(&placement.report());
    let mut record = |evaluation: &mut Evaluation, event: EvaluationEvent| {
        evaluation.apply(&event).map_err(anyhow::Error::msg)?;
        journal.record::<Evaluation>(&event)
    };
    let training = &spec.training;
    let all: Vec<u64> = (0..tested.images.len()).collect();
    let score = ScoreSet::new(&tested, &all, placement.device);
    let (train, _) = choose(&pictures.labels(), training.seed, spec.train_size.unwrap_or(0), 0);
    let mut population = Population::new(&job, 1, train, score, run_dir.as_ref())?;
    population.restore(evaluation.epoch())?;
    let meter = population.meter.clone();
    report::ticking(&meter, || {
        for epoch in evaluation.epoch()..training.epochs {
            let policies = match &schedule {
                None => Policies::None,
                Some(schedule) => {
                    match schedule.ablated(spec.ablation, epoch, training.epochs, training.seed)? {
                        Some(policy) => Policies::One(policy.clone()),
                        None => Policies::AnyEpochOf(schedule.clone()),
                    }
                }
            };
            population.train_epoch(&[policies], epoch)?;
            let train_loss = number(population.take_losses(1)[0].into());
            population.save(epoch + 1)?;
            record(&mut evaluation, EvaluationEvent::Trained { epoch: epoch + 1, train_loss })?;
        }
        anyhow::Ok(())
    })?;
    let accuracy = population.evaluate()?[0];
    report::tell(&meter.progress());
    let outcome = Evaluated {
        epoch: training.epochs,
        split: tested_on.to_string(),
        images: all.len(),
        test_error: number(1.0 - accuracy),
        train_loss: evaluation.train_loss,
    };
    record(&mut evaluation, EvaluationEvent::Evaluated(outcome))
}

/// A figure in JSON: rounded, and null if a model diverged.
fn number(value: f64) -> Option<f64> {
    (!value.is_nan()).then_some((value * 1e6).round() / 1e6)
}
