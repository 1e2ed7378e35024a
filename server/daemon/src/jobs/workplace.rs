//! The resources that all jobs of a server share.

use std::path::PathBuf;

use tokio::sync::{Notify, Semaphore};

use crate::jobs::trainer::Trainer;
use crate::metrics::Metrics;

/// Where jobs run.
pub(crate) struct Workplace {
    /// The trainer.
    pub(crate) trainer: Trainer,
    /// The folder of decoded datasets, shared with the server.
    pub(crate) cache: PathBuf,
    /// Whether this server hosts the jobs in its data directory.
    pub(crate) is_writer: bool,
    /// Permits to ask a trainer whether a job could run; each question is a process.
    pub(crate) checks: Semaphore,
    /// Notified when a job is queued.
    pub(crate) queued: Notify,
    pub(crate) metrics: Metrics,
}
