//! What is known of the disk under the data directory and of the trainer, without waiting for either: a thread looks
//! every so often, and what last failed is remembered.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use crate::error::{Cause, Error};
use crate::sync::lock;

/// How often the thread looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A disk that takes longer than this to say how much room it has does not answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// A disk with less room is full: a schedule may take as much.
const FREE_BYTES_MIN: u64 = 1 << 20;
/// How long a change that the disk did not take is told of, unless another one is taken before.
const FAILURE_TOLD: Duration = Duration::from_secs(60);

/// What is known.
#[derive(Default)]
pub(crate) struct Health {
    looked: Mutex<Looked>,
    /// When the disk did not take a change last, and why.
    failed: Mutex<Option<(Instant, String)>>,
}

/// What the last look found.
#[derive(Clone, Default)]
struct Looked {
    /// None before the first.
    at: Option<Instant>,
    free_bytes: u64,
    /// Why the data directory can be neither read nor written to.
    gone: Option<String>,
    /// Why it cannot be written to.
    unwritable: Option<String>,
    /// Why the trainer cannot be run.
    trainer: Option<String>,
}

impl Health {
    /// Looks at the data directory; `moved` says whether another one is in its place, and `trainer` why that cannot be
    /// run. Waits for the disk.
    pub(crate) fn look(&self, directory: &Path, moved: Option<String>, trainer: Option<String>) {
        let (free_bytes, gone, unwritable) = match statvfs(directory) {
            Err(error) => (0, Some(std::io::Error::from(error).to_string()), None),
            Ok(found) => {
                let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
                let is_read_only = found.f_flag.contains(StatVfsMountFlags::RDONLY);
                let reason = match access(directory, Access::WRITE_OK) {
                    _ if is_read_only => Some("it is on a file system that is mounted read-only".to_owned()),
                    Err(error) => Some(std::io::Error::from(error).to_string()),
                    Ok(()) if free_bytes < FREE_BYTES_MIN => {
                        Some(format!("its disk is full: {free_bytes} bytes are free"))
                    }
                    Ok(()) => None,
                };
                (free_bytes, None, reason)
            }
        };
        let gone = moved.or(gone);
        *self.looked() = Looked { at: Some(Instant::now()), free_bytes, gone, unwritable, trainer };
    }

    /// Remembers how a change ended that was asked for: with an error, if there is one.
    pub(crate) fn changed(&self, error: Option<&Error>) {
        match error {
            None => *self.failed() = None,
            Some(error) if [Cause::DiskFull, Cause::ReadOnly].contains(&error.cause) => {
                *self.failed() = Some((Instant::now(), error.detail.clone()));
            }
            // It says nothing of the disk.
            Some(_) => {}
        }
    }

    /// Bytes that are free for the data directory.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.looked().free_bytes
    }

    /// Why the data directory can be neither read nor written to, if that is known.
    pub(crate) fn unreadable(&self) -> Option<String> {
        let Looked { at, gone, .. } = self.looked().clone();
        let silent = at.map(|at| at.elapsed()).filter(|silent| *silent > ANSWER_MAX);
        silent.map(|silent| format!("its disk has not answered for {} s", silent.as_secs())).or(gone)
    }

    /// Why the data directory cannot be written to, if that is known.
    pub(crate) fn unwritable(&self) -> Option<String> {
        let failed = || {
            let failed = self.failed();
            failed.as_ref().filter(|(at, _)| at.elapsed() < FAILURE_TOLD).map(|(_, reason)| reason.clone())
        };
        self.unreadable().or_else(|| self.looked().unwritable.clone()).or_else(failed)
    }

    /// Why the trainer cannot be run, as far as a look at its file tells.
    pub(crate) fn trainer(&self) -> Option<String> {
        self.looked().trainer.clone()
    }

    fn looked(&self) -> MutexGuard<'_, Looked> {
        lock(&self.looked)
    }

    fn failed(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        lock(&self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_tells_of_the_directory_as_it_is() {
        let (health, folder) = (Health::default(), tempfile::tempdir().unwrap());
        assert_eq!((health.unwritable(), health.trainer()), (None, None), "nothing is known yet");
        health.look(folder.path(), None, Some("there is none".to_owned()));
        assert_eq!((health.unwritable(), health.trainer().as_deref()), (None, Some("there is none")));
        assert!(health.free_bytes() > 0);
        health.look(&folder.path().join("missing"), None, None);
        assert!(health.unwritable().unwrap().contains("No such file"));
        assert_eq!(health.unreadable(), health.unwritable());
        health.look(folder.path(), Some("it was moved away".to_owned()), None);
        assert_eq!(health.unwritable().as_deref(), Some("it was moved away"));
    }

    #[test]
    fn what_failed_is_told_until_something_is_taken() {
        let health = Health::default();
        health.changed(Some(&Error::new(Cause::NotFound, "no schedule")));
        assert_eq!(health.unwritable(), None);
        health.changed(Some(&Error::new(Cause::DiskFull, "cannot write a: no space")));
        health.changed(Some(&Error::new(Cause::NotFound, "no schedule")));
        assert_eq!(health.unwritable().as_deref(), Some("cannot write a: no space"));
        assert_eq!(health.unreadable(), None, "a full disk can be read");
        health.changed(None);
        assert_eq!(health.unwritable(), None);
    }
}
