//! `pba-trainer search`: runs a search in a folder, or resumes the one in it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pba_datasets::SplitName;
use pba_schedules::formats;
use pba_search::protocol::files;
use pba_search::{Event, Search, SearchSpec, Spec, run};

use crate::checkpoint::{Checkpoints, replace_file};
use crate::data::{self, Pictures, ScoreSet, TrainSet};
use crate::device::{self, Placement};
use crate::population::{Population, Setup};
use crate::report::{self, Meter, Ticker};
use crate::run_dir::{RunDir, resume};
use crate::signals;

/// Images that are scored at once, all members together on a GPU.
pub(crate) const SCORE_BATCH: usize = 500;

/// A search whose spec fits its dataset and this machine.
pub(crate) struct Checked {
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
pub(crate) fn check(spec: SearchSpec, dataset: &Path, cache: &Path) -> anyhow::Result<Checked> {
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
pub(crate) fn search(checked: Checked, run_dir: &Path, patience: Duration) -> anyhow::Result<()> {
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
        run(&mut search, &mut population, |event| {
            signals::check()?;
            journal.record::<Search>(event)
        })?
    };
    report::tell(&meter.progress());
    replace_file(&run_dir.path().join(files::SCHEDULE), formats::json::write(&schedule).as_bytes())?;
    Ok(())
}
