//! The resources that all jobs of a server share.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, Semaphore};

use crate::data_lock::DataLock;
use crate::jobs::trainer::Trainer;
use crate::metrics::Metrics;
use crate::sync::lock;

/// Where jobs run.
pub(crate) struct Workplace {
    /// The trainer.
    pub(crate) trainer: Trainer,
    /// The folder of decoded datasets, shared with the server.
    pub(crate) cache: PathBuf,
    /// The right to host the jobs in the data directory.
    pub(crate) lock: Arc<DataLock>,
    /// Permits to ask a trainer whether a job could run; each question is a process.
    pub(crate) checks: Semaphore,
    /// Notified when a job is queued.
    pub(crate) queued: Notify,
    pub(crate) metrics: Metrics,
    /// Most jobs of a kind that are kept; more are refused.
    pub(crate) jobs_max: usize,
    /// When the latest job was requested.
    pub(crate) latest: Latest,
    /// What went wrong with the trainer last, unless it went well since.
    pub(crate) trouble: Trouble,
}

/// What is wrong with a trainer, whatever it is asked to do.
#[derive(Default)]
pub(crate) struct Trouble(Mutex<Option<String>>);

impl Trouble {
    /// Remembers a reason, or that there is none any more.
    pub(crate) fn set(&self, reason: Option<String>) {
        *lock(&self.0) = reason;
    }

    /// What is wrong, if anything is.
    pub(crate) fn get(&self) -> Option<String> {
        lock(&self.0).clone()
    }
}

/// Orders jobs by when they were requested, in milliseconds since 1970 as far as the clock knows: one that is
/// requested later has a later time, though the clock was put back meanwhile, or the server restarted.
#[derive(Default)]
pub(crate) struct Latest(Mutex<u128>);

impl Latest {
    /// The time of a job that is requested now.
    pub(crate) fn now(&self) -> u128 {
        self.after(SystemTime::now())
    }

    /// The time of a job that was requested before.
    pub(crate) fn saw(&self, created: u128) {
        let mut latest = lock(&self.0);
        *latest = created.max(*latest);
    }

    fn after(&self, time: SystemTime) -> u128 {
        let clock = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut latest = lock(&self.0);
        *latest = clock.max(latest.saturating_add(1));
        *latest
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_requested_later_has_a_later_time_whatever_the_clock_says() {
        let (latest, day) = (Latest::default(), Duration::from_secs(86_400));
        let times = [10, 10, 3, 20].map(|days| latest.after(UNIX_EPOCH + days * day));
        assert_eq!(times[0], 10 * day.as_millis());
        assert!(times.is_sorted_by(|before, after| before < after), "{times:?}");
        assert_eq!(times[3], 20 * day.as_millis());
        assert_eq!(latest.after(UNIX_EPOCH - day), times[3] + 1);
        // Of a server before, whose clock was ahead.
        latest.saw(30 * day.as_millis());
        latest.saw(5);
        assert_eq!(latest.after(UNIX_EPOCH + 21 * day), 30 * day.as_millis() + 1);
    }
}
