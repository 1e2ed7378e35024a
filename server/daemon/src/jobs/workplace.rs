//! What all jobs of a server share.

use std::path::PathBuf;

use tokio::sync::Notify;

use crate::jobs::trainer::Trainer;
use crate::metrics::Metrics;

/// Where jobs run, one at a time.
pub(crate) struct Workplace {
    /// What trains.
    pub(crate) trainer: Trainer,
    /// The folder of decoded datasets, which it shares with the server.
    pub(crate) cache: PathBuf,
    /// Whether this server is the one that hosts the jobs in its data directory.
    pub(crate) is_writer: bool,
    /// Told when a job is added to the line.
    pub(crate) queued: Notify,
    pub(crate) metrics: Metrics,
}
