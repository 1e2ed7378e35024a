//! `pba-trainer evaluate`: one model from scratch, with or without a schedule, and its test error.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use pba_augment::{Base, Policies};
use pba_datasets::SplitName;
use pba_schedules::{Schedule, formats};
use pba_search::protocol::{files, flags};
use pba_search::{Evaluated, Evaluation, EvaluationEvent, EvaluationSpec, Run, Spec, Strategy, Trainer};

use crate::checkpoint::Checkpoints;
use crate::data::{self, Pictures, ScoreSet, TrainSet};
use crate::device::{self, Placement};
use crate::population::{Population, Setup};
use crate::report::{self, Meter, Ticker};
use crate::run_dir::{RunDir, resume};
use crate::search::SCORE_BATCH;
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
    let (dir, spec) = (dir.as_deref(), work.begin()?);
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
    let kept = dir.map(|dir| dir.join(files::SCHEDULE)).filter(|path| given.is_none() && path.exists());
    let published = || pba_schedules::library::all().into_iter().find(|known| known.name() == name);
    if let (None, Some(published)) = (&kept, published()) {
        return Ok(Some(Arc::new(published)));
    }
    let path = kept.unwrap_or_else(|| name.into());
    let cannot = || format!("cannot read the schedule {}", path.display());
    let text = fs::read_to_string(&path).with_context(cannot)?;
    Ok(Some(Arc::new(formats::read(&text, None, None).with_context(cannot)?)))
}

/// An evaluation whose spec fits its dataset and this machine.
struct Checked {
    spec: EvaluationSpec,
    dataset_digest: String,
    pictures: Pictures,
    tested_on: SplitName,
    tested: Pictures,
    base: Base,
    placement: Placement,
}

/// Checks everything that can be checked before anything starts.
///
/// # Errors
/// [`pba_search::SpecError`] for a wrong field; others when the dataset cannot be read.
fn check(spec: EvaluationSpec, dataset: &Path, cache: &Path) -> anyhow::Result<Checked> {
    let placement = Placement::new(device::resolve(spec.training.device)?, STRATEGY)?;
    let dataset = data::open(dataset, cache)?;
    let pictures = data::pictures(&dataset, SplitName::Train)?;
    let spec = spec.sized(pictures.images.len() as usize)?;
    let base = data::base(spec.training.base.as_deref(), &dataset)?;
    let tested_on = if dataset.split(SplitName::Test).is_some() { SplitName::Test } else { SplitName::Val };
    let tested = data::pictures(&dataset, tested_on)
        .map_err(|error| anyhow!("there is neither a test nor a val split to test on: {error:#}"))?;
    ensure!(
        tested.shape == pictures.shape,
        "the images of the {tested_on} split are {}x{}, those of the train split {}x{}",
        tested.shape.height,
        tested.shape.width,
        pictures.shape.height,
        pictures.shape.width
    );
    Ok(Checked {
        spec,
        dataset_digest: dataset.digest().to_string(),
        pictures,
        tested_on,
        tested,
        base,
        placement,
    })
}

/// Runs the evaluation to its end, in a folder once no other trainer has held it for `patience`; after
/// each epoch it can be resumed there.
///
/// # Errors
/// [`crate::signals::Interrupted`] when told to stop; others when it cannot continue.
fn evaluate(
    checked: Checked,
    schedule: Option<Arc<Schedule>>,
    run_dir: Option<&Path>,
    patience: Duration,
) -> anyhow::Result<()> {
    let Checked { mut spec, dataset_digest, pictures, tested_on, tested, base, placement } = checked;
    let run_dir = run_dir.map(|path| RunDir::open(path, patience)).transpose()?;
    spec.schedule =
        schedule.as_ref().map_or(EvaluationSpec::NO_SCHEDULE, |schedule| schedule.name()).to_owned();
    let schedule_digest = schedule.as_ref().map(|schedule| schedule.digest().to_string());
    let started = EvaluationEvent::Evaluating {
        spec: Box::new(spec.clone()),
        schedule_digest: schedule_digest.clone(),
        dataset_digest,
    };
    let (mut evaluation, mut journal) = resume::<Evaluation>(run_dir.as_ref(), &started)?;
    ensure!(
        evaluation.schedule_digest() == schedule_digest.as_deref(),
        "the run folder holds an evaluation of a schedule {:?} with different content",
        spec.schedule
    );
    if evaluation.outcome().is_some() {
        return Ok(());
    }
    report::tell(&placement.report());
    let mut record = |evaluation: &mut Evaluation, event: EvaluationEvent| {
        evaluation.apply(&event).map_err(anyhow::Error::msg)?;
        journal.record::<Evaluation>(&event)
    };
    let training = &spec.training;
    let all: Vec<u64> = (0..tested.images.len()).collect();
    let score = ScoreSet::new(&tested, &all, SCORE_BATCH, placement.device);
    let train_size = spec.train_size.unwrap_or(0);
    let (indices, _) = data::choose(&*pictures.images, training.seed, train_size, 0);
    let train = TrainSet { pictures, indices, base, batch_size: training.batch_size };
    let meter = Arc::new(Meter::new(training.epochs, spec.images_per_epoch()));
    let checkpoints = run_dir.as_ref().map(|dir| Checkpoints::new(dir.path(), training.model.to_string()));
    let mut population = Population::new(Setup {
        training: training.clone(),
        members: 1,
        placement,
        train,
        score,
        checkpoints,
        meter: meter.clone(),
    })?;
    population.restore(evaluation.epoch())?;
    let ticker = Ticker::new(meter.clone());
    for epoch in evaluation.epoch()..training.epochs {
        let policies = match &schedule {
            None => Policies::None,
            Some(schedule) => match schedule.ablated(spec.ablation, epoch, training.epochs, training.seed)? {
                Some(policy) => Policies::One(policy.clone()),
                None => Policies::AnyEpochOf(schedule.clone()),
            },
        };
        population.train_epoch(&[policies], epoch)?;
        let train_loss = number(population.take_losses(1)[0].into());
        population.save(epoch + 1)?;
        record(&mut evaluation, EvaluationEvent::Trained { epoch: epoch + 1, train_loss })?;
    }
    drop(ticker);
    let accuracy = population.evaluate()?[0];
    report::tell(&meter.progress());
    let outcome = Evaluated {
        epoch: training.epochs,
        split: tested_on.to_string(),
        images: all.len(),
        test_error: number(1.0 - accuracy),
        train_loss: evaluation.train_loss(),
    };
    record(&mut evaluation, EvaluationEvent::Evaluated(outcome))
}

/// A figure in JSON: rounded, and null if a model diverged.
fn number(value: f64) -> Option<f64> {
    (!value.is_nan()).then_some((value * 1e6).round() / 1e6)
}
