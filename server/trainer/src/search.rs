//! `pba-trainer search`: runs a search in a folder, or resumes the one in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pba_schedules::formats;
use pba_search::protocol::{files, flags};
use pba_search::{Event, Search, SearchSpec};

use crate::checkpoint::replace_file;
use crate::data::{ScoreSet, choose};
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
    let job = Job::check(spec, strategy, SearchSpec::sized, &work.dataset, &work.cache(dir.as_deref()))?;
    match dir {
        Some(dir) if !work.check => search(job, &dir, work.patience()),
        _ => Ok(()),
    }
}

/// Runs the search to its end, once no other trainer has held its folder for `patience`.
///
/// # Errors
/// [`signals::Interrupted`] when told to stop; others when it cannot continue.
fn search(job: Job<SearchSpec>, run_dir: &Path, patience: Duration) -> anyhow::Result<()> {
    let Job { spec, dataset, pictures, placement, .. } = &job;
    let run_dir = RunDir::open(run_dir, patience)?;
    let dataset_digest = dataset.digest().to_string();
    let started = Event::Started { spec: Box::new(spec.clone()), dataset_digest };
    let (mut search, mut journal) = resume::<Search>(Some(&run_dir), &started)?;
    let (train_size, val_size) = (spec.train_size.unwrap_or(0), spec.val_size.unwrap_or(0));
    let (train, val) = choose(&pictures.labels(), spec.training.split_seed, train_size, val_size);
    let score = ScoreSet::new(pictures, &val, placement.device);
    let meter = Arc::new(Meter::of(spec));
    let members = Beginning::of_all(&job, spec.population, train);
    let mut population = Population::new(&job, members, score, Some(&run_dir.path), &meter)?;
    report::tell(&placement.report());
    let schedule = report::ticking(&meter, || {
        pba_search::run(&mut search, &mut population, |event| {
            signals::check()?;
            journal.record::<Search>(event)
        })
    })?;
    report::tell(&meter.progress());
    replace_file(&run_dir.path.join(files::SCHEDULE), formats::json::write(&schedule).as_bytes())?;
    Ok(())
}
