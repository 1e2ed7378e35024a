//! `pba-trainer evaluate`: one model from scratch, with or without a schedule, and its test error.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::ensure;
use pba_augment::Policies;
use pba_datasets::SplitName;
use pba_schedules::{Ablation, Schedule};
use pba_search::protocol::flags;
use pba_search::{Evaluated, Evaluation, EvaluationEvent, EvaluationSpec, Run, SpecError, Strategy, Trainer};

use crate::data::{Pictures, ScoreSet, Source, choose};
use crate::job::Job;
use crate::population::{Beginning, Population};
use crate::report::{self, Meter, number};
use crate::run_dir::{RunDir, resume};
use crate::schedules;
use crate::work::Work;

/// With one network, what is left of the strategies is how its steps reach the device.
const STRATEGY: Strategy = Strategy::Auto;

/// Train one model from scratch with or without a schedule, and report its test error.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    work: Work,
    /// Folder of the run, needed to resume it: journal, checkpoints, and the schedule that the spec names.
    #[arg(long = flags::DIR)]
    dir: Option<PathBuf>,
    /// A schedule file, the name of a published schedule or policy, as `randaugment:2:9`, or `none`: base
    /// augmentation only
    /// [default: the one that the spec names].
    #[arg(long)]
    schedule: Option<String>,
}

/// Does what the command line says.
///
/// # Errors
/// Those of [`schedules::named`], [`check`] and [`evaluate`].
pub(crate) fn run(Args { work, dir, schedule: given }: Args) -> anyhow::Result<()> {
    let (dir, spec): (_, EvaluationSpec) = (dir.as_deref(), work.begin()?);
    let is_scheduled = given.as_deref().unwrap_or(&spec.schedule) != EvaluationSpec::NO_SCHEDULE;
    if !is_scheduled && spec.ablation != Ablation::Scheduled {
        let allowed = "scheduled, as there is no schedule to ablate";
        return Err(SpecError::new("ablation", spec.ablation, allowed).into());
    }
    // With --check, the schedule that the spec names may be put in the folder later.
    let schedule = match &given {
        _ if !is_scheduled => None,
        None if work.check => None,
        Some(name) => Some(schedules::named(name, None)?),
        None => Some(schedules::named(&spec.schedule, dir)?),
    };
    let checked = check(spec, &work.source(dir))?;
    if work.check {
        return Ok(());
    }
    let run_dir = dir.map(|dir| RunDir::open(dir, work.patience(), work.save_interval()));
    evaluate(checked, schedule, run_dir.transpose()?)
}

/// An evaluation that is ready to start, and what it is tested on.
struct Checked {
    job: Job<EvaluationSpec>,
    tested_on: SplitName,
    tested: Pictures,
}

/// Checks everything that can be checked before anything starts; errors as [`Job::check`].
fn check(spec: EvaluationSpec, source: &Source) -> anyhow::Result<Checked> {
    let job = Job::check(spec, STRATEGY, EvaluationSpec::sized, source)?;
    let has_test = job.dataset.split(SplitName::Test).is_some();
    let tested_on = if has_test { SplitName::Test } else { SplitName::Val };
    if job.dataset.split(tested_on).is_none() {
        let allowed = "one with a test or a val split, to test on";
        return Err(SpecError::new("dataset", format!("{:?}", job.spec.training.dataset), allowed).into());
    }
    let tested = job.scored_on(tested_on)?;
    job.check_hours()?;
    Ok(Checked { job, tested_on, tested })
}

/// Runs the evaluation to its end; in a folder, it can be resumed there.
///
/// # Errors
/// [`crate::signals::Interrupted`] when told to stop; others when it cannot continue.
fn evaluate(
    Checked { mut job, tested_on, tested }: Checked,
    schedule: Option<Arc<Schedule>>,
    run_dir: Option<RunDir>,
) -> anyhow::Result<()> {
    let name = schedule.as_ref().map_or(EvaluationSpec::NO_SCHEDULE, |schedule| schedule.name());
    job.spec.schedule = name.to_owned();
    let Job { spec, dataset, pictures, placement, .. } = &job;
    let schedule_digest = schedule.as_ref().map(|schedule| schedule.digest().to_string());
    let started = EvaluationEvent::Evaluating {
        spec: Box::new(spec.clone()),
        schedule_digest: schedule_digest.clone(),
        dataset_digest: job.digest_with([tested_on]).to_string(),
    };
    let (mut evaluation, mut journal) = resume::<Evaluation>(run_dir.as_ref(), &started, dataset)?;
    ensure!(
        evaluation.schedule_digest == schedule_digest,
        "the job's folder holds an evaluation of a schedule {:?} with different content",
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
    let score = ScoreSet::new(&tested, &all, placement.device)?;
    let (train, _) = choose(&pictures.labels()?, training.split_seed, spec.train_size.unwrap_or(0), 0);
    let meter = Arc::new(Meter::of(spec));
    let members = Beginning::of_all(&job, 1, train);
    let mut population = Population::new(&job, members, score, run_dir.as_ref(), &meter)?;
    population.restore(evaluation.epoch())?;
    let trained = report::ticking(&meter, || {
        for epoch in evaluation.epoch()..training.epochs {
            let policies = match &schedule {
                None => Policies::None,
                Some(schedule) => {
                    schedules::policies(schedule, spec.ablation, epoch, training.epochs, training.seed)?
                }
            };
            population.train_epoch(&[policies], epoch)?;
            let train_loss = number(population.take_losses(1)[0].into());
            record(&mut evaluation, EvaluationEvent::Trained { epoch: epoch + 1, train_loss })?;
            population.save(epoch + 1)?;
        }
        Ok(())
    });
    population.keep_latest(trained)?;
    let accuracy = population.evaluate()?[0];
    report::tell(&meter.progress());
    let outcome = Evaluated {
        epoch: training.epochs,
        split: tested_on.to_string(),
        images: all.len(),
        test_error: number(1.0 - accuracy),
        train_loss: evaluation.train_loss,
    };
    record(&mut evaluation, EvaluationEvent::Evaluated(outcome))?;
    journal.sync()
}
