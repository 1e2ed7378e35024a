//! `pba-trainer search`: runs a search in a folder, or resumes the one in it.

use std::path::PathBuf;
use std::sync::Arc;

use pba_datasets::SplitName;
use pba_schedules::formats;
use pba_search::protocol::{files, flags};
use pba_search::{Event, Search, SearchSpec, SpecError};

use crate::data::{Pictures, ScoreSet, choose};
use crate::disk::replace_file;
use crate::job::Job;
use crate::population::{Beginning, Population};
use crate::report::Meter;
use crate::run_dir::{RunDir, resume};
use crate::work::Work;
use crate::{report, signals};

/// Run a search in a folder, or resume the one in it.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    work: Work,
    /// Folder of the run: journal, checkpoints, schedule.
    #[arg(long = flags::DIR, required_unless_present = flags::CHECK)]
    dir: Option<PathBuf>,
}

/// Does what the command line says.
///
/// # Errors
/// Those of [`Job::check`] and [`search`].
pub(crate) fn run(Args { work, dir }: Args) -> anyhow::Result<()> {
    let spec: SearchSpec = work.begin()?;
    let strategy = spec.strategy;
    let job = Job::check(spec, strategy, SearchSpec::sized, &work.source(dir.as_deref()))?;
    let checked = check(job)?;
    match dir {
        Some(dir) if !work.check => {
            search(checked, RunDir::open(&dir, work.patience(), work.save_interval())?)
        }
        _ => Ok(()),
    }
}

/// A search that is ready to start, and the split that its members are scored with if it is one of its own.
struct Checked {
    job: Job<SearchSpec>,
    own_val: Option<Pictures>,
}

/// Fits a search to the split that its members are scored with.
fn check(mut job: Job<SearchSpec>) -> anyhow::Result<Checked> {
    if !job.spec.is_scored_with_val() {
        job.check_hours()?;
        return Ok(Checked { job, own_val: None });
    }
    if job.dataset.split(SplitName::Val).is_none() {
        let allowed = "train, as the dataset has no val split";
        return Err(SpecError::new("val_split", "\"val\"", allowed).into());
    }
    let val = job.scored_on(SplitName::Val)?;
    job.spec = job.spec.sized_for_val(val.images.len() as usize)?;
    job.check_hours()?;
    Ok(Checked { job, own_val: Some(val) })
}

/// Runs the search to its end.
///
/// # Errors
/// [`signals::Interrupted`] when told to stop; others when it cannot continue.
fn search(Checked { job, own_val }: Checked, run_dir: RunDir) -> anyhow::Result<()> {
    let Job { spec, dataset, pictures, placement, .. } = &job;
    let own = own_val.as_ref().map(|_| SplitName::Val);
    let dataset_digest = job.digest_with(own).to_string();
    let started = Event::Started { spec: Box::new(spec.clone()), dataset_digest };
    let (mut search, mut journal) = resume::<Search>(Some(&run_dir), &started, dataset)?;
    let (train_size, val_size) = (spec.train_size.unwrap_or(0), spec.val_size.unwrap_or(0));
    let split_seed = spec.training.split_seed;
    let (train, score) = match &own_val {
        None => {
            let (train, val) = choose(&pictures.labels()?, split_seed, train_size, val_size);
            (train, ScoreSet::new(pictures, &val, placement.device)?)
        }
        Some(own_val) => {
            let (train, _) = choose(&pictures.labels()?, split_seed, train_size, 0);
            let (val, _) = choose(&own_val.labels()?, split_seed, val_size, 0);
            (train, ScoreSet::new(own_val, &val, placement.device)?)
        }
    };
    let meter = Arc::new(Meter::of(spec));
    let members = Beginning::of_all(&job, spec.population, train);
    let mut population = Population::new(&job, members, score, Some(&run_dir), &meter)?;
    report::tell(&placement.report());
    let schedule = report::ticking(&meter, || {
        let learned = pba_search::run(&mut search, &mut population, |event| {
            signals::check()?;
            journal.record::<Search>(event)
        });
        population.keep_latest(learned)
    });
    report::tell(&population.spent());
    let schedule = schedule?;
    journal.sync()?;
    report::tell(&meter.progress());
    replace_file(&run_dir.path.join(files::SCHEDULE), formats::json::write(&schedule).as_bytes())?;
    Ok(())
}
