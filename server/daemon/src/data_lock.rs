//! The lock of a data directory.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use pba_files::Lock;
use tokio::time::{Instant, sleep};

use crate::error::{Cause, Error};

/// How long a new server waits for the lock: a server that was told to stop releases its port at once, but
/// its data directory only when its trainer has exited.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(100);
/// The file in a data directory that is locked with it.
const FILE: &str = "lock";
const HELD: &str = "another server was using this server's data directory when this one started; use that \
     server, restart this one if the other has ended, or give this one its own directory with --data-dir";

/// The right to write to a data directory, which the first server that uses it has.
///
/// Other servers are replicas that only stream its content; two writers would overwrite each other's
/// schedules and searches.
pub(crate) struct DataLock {
    /// The lock; or why this server may not write, and the remedy.
    lock: Result<Lock, Error>,
}

impl DataLock {
    /// Locks a directory until dropped or until the process ends, if the lock is free or soon released. A
    /// directory that cannot be locked is not written to.
    pub(crate) async fn take(directory: &Path) -> DataLock {
        let deadline = Instant::now() + LOCK_PATIENCE;
        let lock = loop {
            match Lock::take(directory, FILE) {
                Ok(Some(lock)) => break Ok(lock),
                Ok(None) if Instant::now() < deadline => sleep(LOCK_POLL).await,
                Ok(None) => break Err(Error::conflict(HELD)),
                Err(error) => {
                    let detail = format!(
                        "this server cannot write to its data directory, because {} cannot be locked: {error}; \
                         give this server its own directory with --data-dir",
                        directory.join(FILE).display()
                    );
                    break Err(match error.kind() {
                        ErrorKind::ReadOnlyFilesystem => Error::new(Cause::ReadOnly, detail),
                        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                            Error::new(Cause::DiskFull, detail)
                        }
                        _ => Error::conflict(detail),
                    });
                }
            }
        };
        if let Err(Error { detail, .. }) = &lock {
            tracing::warn!(directory = %directory.display(), "{detail}; streams are not affected");
        }
        DataLock { lock }
    }

    /// Whether this server is the one that may write.
    pub(crate) fn is_writer(&self) -> bool {
        self.lock.is_ok()
    }

    /// Refuses a change if this server may not write.
    ///
    /// # Errors
    /// When another server writes to the data directory, or it cannot be locked, as on a disk that is read-only.
    pub(crate) fn check_writer(&self) -> Result<(), Error> {
        self.lock.as_ref().map(drop).map_err(Error::clone)
    }

    /// Refuses a change if what was locked is no longer there, so that another server may write by now. Waits for the
    /// disk.
    ///
    /// # Errors
    /// Those of [`DataLock::check_writer`]; when the data directory was moved, removed or replaced.
    pub(crate) fn check_in_place(&self) -> Result<(), Error> {
        let lock = self.lock.as_ref().map_err(Error::clone)?;
        let what = match lock.is_in_place() {
            Ok(true) => return Ok(()),
            Ok(false) => "was moved away or removed, and something else is in its place".to_owned(),
            Err(error) => format!("was moved away or removed: {error}"),
        };
        Err(Error::conflict(format!(
            "{} {what}; this server changes nothing there, because another one may; put it back, or restart this server",
            lock.path().display()
        )))
    }
}

#[cfg(test)]
impl DataLock {
    /// Locks a directory if it is free, without waiting.
    pub(crate) fn of_test(directory: &Path) -> std::sync::Arc<DataLock> {
        let lock = Lock::take(directory, FILE).expect("it can be locked");
        std::sync::Arc::new(DataLock { lock: lock.ok_or_else(|| Error::conflict(HELD)) })
    }
}
