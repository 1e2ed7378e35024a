//! `pba-trainer search`: runs a search in a folder, or resumes the one in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pba_datasets::SplitName;
use pba_schedules::formats;
use pba_search::protocol::{files, flags};
use pba_search::{Event, Search, SearchSpec, Spec};

use crate::checkpoint::{Checkpoints, replace_file};
use crate::data::{self, Pictures, ScoreSet, TrainSet};
use crate::device::{self, Placement};
use crate::population::{Population, Setup};
use crate::report::{self, Meter, Ticker};
use crate::run_dir::{RunDir, resume};
use crate::signals;
use crate::work::Work;

/// Images that are scored at once, all members together on a GPU.
pub(crate) const SCORE_BATCH: usize = 500;

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
/// Those of [`check`] and [`search`].
pub(crate) fn run(Args { work, dir }: Args) -> anyhow::Result<()> {
    let checked = check(work.begin()?, &work.dataset, &work.cache(dir.as_deref()))?;
    match dir {
        Some(dir) if !work.check => search(checked, &dir, work.patience()),
        _ => Ok(()),
    }
}

/// A search whose spec fits its dataset and this machine.
struct Checked {
    spec: SearchSpec,
    dataset_digest: String,
    pictures: Pictures,
    base: pba_augment::Base,
    placement: Placement,
}

/// Checks everything that can be checked before anything starts.
///
/// # Errors
/// [`pba_search::SpecError`] for a wrong field; others when the dataset cannot be read.
fn check(spec: SearchSpec, dataset: &Path, cache: &Path) -> anyhow::Result<Checked> {
    let placement = Placement::new(device::resolve(spec.training.device)?, spec.strategy)?;
    let dataset = data::open(dataset, cache)?;
    let pictures = data::pictures(&dataset, SplitName::Train)?;
    let spec = spec.sized(pictures.images.len() as usize)?;
    let base = data::base(spec.training.base.as_deref(), &dataset)?;
    Ok(Checked { dataset_digest: dataset.digest().to_string(), spec, pictures, base, placement })
}

/// Runs the search to its end, once no other trainer has held its folder for `patience`.
///
/// # Errors
/// [`signals::Interrupted`] when told to stop; others when it cannot continue.
fn search(checked: Checked, run_dir: &Path, patience: Duration) -> anyhow::Result<()> {
    let Checked { spec, dataset_digest, pictures, base, placement } = checked;
    let run_dir = RunDir::open(run_dir, patience)?;
    let started = Event::Started { spec: Box::new(spec.clone()), dataset_digest };
    let (mut search, mut journal) = resume::<Search>(Some(&run_dir), &started)?;
    let training = &spec.training;
    let (train_size, val_size) = (spec.train_size.unwrap_or(0), spec.val_size.unwrap_or(0));
    let (train, val) = data::choose(&*pictures.images, training.seed, train_size, val_size);
    let score = ScoreSet::new(&pictures, &val, SCORE_BATCH, placement.device);
    let train = TrainSet { pictures, indices: train, base, batch_size: training.batch_size };
    let meter = Arc::new(Meter::new(training.epochs, spec.images_per_epoch()));
    let checkpoints = Checkpoints::new(run_dir.path(), training.model.to_string());
    let mut population = Population::new(Setup {
        training: training.clone(),
        members: spec.population,
        placement,
        train,
        score,
        checkpoints: Some(checkpoints),
        meter: meter.clone(),
    })?;
    report::tell(&placement.report());
    let schedule = {
        let _ticker = Ticker::new(meter.clone());
        pba_search::run(&mut search, &mut population, |event| {
            signals::check()?;
            journal.record::<Search>(event)
        })?
    };
    report::tell(&meter.progress());
    replace_file(&run_dir.path().join(files::SCHEDULE), formats::json::write(&schedule).as_bytes())?;
    Ok(())
}
