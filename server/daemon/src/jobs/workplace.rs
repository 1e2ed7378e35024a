//! The resources that all jobs of a server share.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
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

/// How far a trainer has got, from little to much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Got {
    /// It has said what it makes of a spec.
    Asked,
    /// It has told of a job that it runs.
    Started,
    /// It has saved a checkpoint, or is done.
    Saved,
}

/// What is wrong with a trainer, whatever it is asked to do.
#[derive(Default)]
pub(crate) struct Trouble(Mutex<Option<Wrong>>);

struct Wrong {
    reason: String,
    /// A trainer that gets so far shows that it is over.
    until: Got,
}

impl Trouble {
    /// Remembers a reason until a trainer gets so far.
    pub(crate) fn set(&self, reason: String, until: Got) {
        *self.wrong() = Some(Wrong { reason, until });
    }

    /// A trainer has got so far. What it did not get to before may still be wrong.
    pub(crate) fn got(&self, far: Got) {
        self.wrong().take_if(|wrong| far >= wrong.until);
    }

    /// What is wrong, if anything is.
    pub(crate) fn get(&self) -> Option<String> {
        self.wrong().as_ref().map(|wrong| wrong.reason.clone())
    }

    fn wrong(&self) -> MutexGuard<'_, Option<Wrong>> {
        lock(&self.0)
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
    fn a_trouble_is_over_when_a_trainer_gets_further() {
        let trouble = Trouble::default();
        for (until, over) in [
            (Got::Asked, [true, true, true]),
            (Got::Started, [false, true, true]),
            (Got::Saved, [false, false, true]),
        ] {
            for (far, over) in [Got::Asked, Got::Started, Got::Saved].into_iter().zip(over) {
                trouble.set("it died".to_owned(), until);
                trouble.got(far);
                assert_eq!(trouble.get().is_none(), over, "{until:?} {far:?}");
            }
        }
    }

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
