//! What is wrong with a server that serves streams all the same, for `/readyz` and its metrics. Nothing here waits for a
//! disk.

use pba_types::shortened;
use pba_wire::datasets::DatasetState;

use crate::app::App;

/// Most lines of details; what is left out is counted.
const DETAILS_MAX: usize = 32;
/// Characters of each.
const DETAIL_MAX: usize = 300;

/// What is wrong, a line each.
pub(crate) fn details(app: &App) -> Vec<String> {
    let mut details = Vec::new();
    for entry in app.catalog.list() {
        let (state, troubles) = entry.standing();
        let name = entry.name();
        // Of one that is ready, these are of its splits.
        let state = if state == DatasetState::Ready { String::new() } else { format!("{state}: ") };
        details.extend(troubles.into_iter().map(|trouble| format!("dataset {name:?}: {state}{trouble}")));
    }
    if let Some(reason) = app.health.directory() {
        let directory = app.lock.directory().display();
        details.push(format!("the data directory {directory} cannot be written to: {reason}"));
    }
    if let Err(refused) = app.lock.check_writer() {
        details.push(format!("this server is not the writer: {}", refused.detail));
    }
    details.extend(trainer(app).map(|reason| format!("jobs wait or fail: {reason}")));
    details.extend(app.registry.ignored().into_iter().chain(app.jobs.ignored()));
    let count = details.len();
    if count > DETAILS_MAX {
        details.truncate(DETAILS_MAX - 1);
        details.push(format!("and {} more", count - details.len()));
    }
    let line = |detail: String| shortened(&detail.replace(char::is_control, " "), DETAIL_MAX).into_owned();
    details.into_iter().map(line).collect()
}

/// Sets the gauges that say the same.
pub(crate) fn count(app: &App) {
    let metrics = &app.engine.metrics;
    let states: Vec<DatasetState> = app.catalog.list().iter().map(|entry| entry.standing().0).collect();
    for state in DatasetState::ALL {
        let count = states.iter().filter(|found| **found == state).count();
        metrics.datasets.with_label_values(&[state.name()]).set(count as i64);
    }
    metrics.data_directory_free_bytes.set(i64::try_from(app.health.free_bytes()).unwrap_or(i64::MAX));
    metrics.data_directory_writable.set(app.health.directory().is_none().into());
    metrics.trainer_ready.set(trainer(app).is_none().into());
}

/// Why no trainer can be counted on.
fn trainer(app: &App) -> Option<String> {
    app.health.trainer().or_else(|| app.jobs.trainer_trouble())
}
