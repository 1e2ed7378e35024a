//! What a ready server says of itself, for `/readyz` and its metrics: each problem that does not stop it from streaming.
//! Nothing here waits for a disk.

use pba_types::shortened;
use pba_wire::Readiness;
use pba_wire::datasets::DatasetState;

use crate::app::App;
use crate::data_lock::Standing;

/// Most lines of details; what is left out is counted.
const DETAILS_MAX: usize = 32;
/// Characters of each.
const DETAIL_MAX: usize = 300;

/// All that there is to say. Of a replica, that is what is wrong with a replica: it writes nothing and hosts no jobs.
pub(crate) fn shown(app: &App) -> Readiness {
    let mut details = Vec::new();
    for entry in app.catalog.list() {
        let (state, troubles) = entry.standing();
        let name = entry.name();
        // Of one that is ready, these are of its splits.
        let state = if state == DatasetState::Ready { String::new() } else { format!("{state}: ") };
        details.extend(troubles.into_iter().map(|trouble| format!("dataset {name:?}: {state}{trouble}")));
    }
    let directory = app.lock.directory().display();
    let unwritable = |reason| format!("the data directory {directory} cannot be written to: {reason}");
    let unreadable = |reason| format!("the data directory {directory} cannot be used: {reason}");
    let standing = app.lock.standing();
    details.extend(match standing {
        Standing::Replica(_) => app.health.unreadable().map(unreadable),
        Standing::Writer | Standing::Refused(_) => app.health.unwritable().map(unwritable),
    });
    let replica = match standing {
        Standing::Writer => {
            details.extend(trainer(app).map(|reason| format!("jobs wait or fail: {reason}")));
            None
        }
        Standing::Replica(reason) => Some(reason.to_owned()),
        Standing::Refused(reason) => {
            details.push(format!("this server is not the writer: {reason}"));
            None
        }
    };
    details.extend(app.registry.ignored().into_iter().chain(app.jobs.ignored()));
    let count = details.len();
    if count > DETAILS_MAX {
        details.truncate(DETAILS_MAX - 1);
        details.push(format!("and {} more", count - details.len()));
    }
    let line = |detail: String| shortened(&detail.replace(char::is_control, " "), DETAIL_MAX).into_owned();
    Readiness::Shown { replica, details: details.into_iter().map(line).collect() }
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
    metrics.data_directory_writable.set(app.health.unwritable().is_none().into());
    metrics.trainer_ready.set(trainer(app).is_none().into());
}

/// Why no trainer can be counted on.
fn trainer(app: &App) -> Option<String> {
    app.health.trainer().or_else(|| app.jobs.trainer_trouble())
}
