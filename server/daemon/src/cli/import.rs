//! Files and folders that hold schedules.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use pba_schedules::{Schedule, ScheduleError, formats};

use crate::cli::experiment::{self, GLOBAL_LOG};
use crate::cli::file;

/// What was read.
pub(crate) struct Imported {
    pub(crate) schedule: Schedule,
    /// Of a log, the tag of the trial whose lineage it is.
    pub(crate) trial: Option<String>,
}

/// A schedule in any format that can be read; `path` may also be Ray Tune's folder of an experiment.
///
/// # Errors
/// When there is none, or the arguments are not those of its format.
pub(crate) fn read(
    path: &Path,
    name: Option<&str>,
    epochs: Option<u32>,
    trial: Option<&str>,
) -> anyhow::Result<Imported> {
    let (path, trial) = match (experiment::folder_of(path), trial) {
        (Some(folder), Some(trial)) => experiment::log_of(folder, trial)?,
        (Some(folder), None) => (folder.join(GLOBAL_LOG), None),
        (None, trial) => (path.to_owned(), trial),
    };
    let shown = path.display();
    let text = file::read(&path)?;
    let is_log = !formats::is_document(&text);
    if is_log && path.ends_with(GLOBAL_LOG) && trial.is_none() {
        // It may look like the lineage of its last trial, which need not be the one that is wanted.
        bail!(
            "{shown} is the log of a whole population; name the trial whose lineage is wanted with --trial"
        );
    }
    let schedule = formats::read(&text, name, epochs, trial)
        .map_err(|error| match error {
            ScheduleError::Population { .. } => {
                anyhow::Error::new(error).context("--trial is missing, or lines of the log are")
            }
            _ => error.into(),
        })
        .with_context(|| format!("{shown} is not a schedule"))?;
    ensure!(name.is_some() || !is_log, "{shown} is a log, which contains no name; set one with --name");
    ensure!(
        epochs.is_none() || is_log,
        "{shown} already states the epochs of its search, {}; --epochs is for logs, and a schedule is \
         stretched by the `epochs` of a stream",
        schedule.epochs()
    );
    ensure!(
        trial.is_none() || is_log,
        "{shown} is one schedule; --trial is for the log of a population, {GLOBAL_LOG}"
    );
    let trial = formats::lineage_of(&text, trial)?;
    Ok(Imported { schedule, trial })
}

/// A schedule in our own format.
///
/// # Errors
/// When it is in another one, or wrong.
pub(crate) fn document(path: &Path) -> anyhow::Result<Schedule> {
    let shown = path.display();
    let text = file::read(path)?;
    ensure!(formats::is_document(&text), "{shown} is not a pba-schedule document; a log is imported first");
    formats::json::read(&text).with_context(|| format!("{shown} is not a schedule"))
}
