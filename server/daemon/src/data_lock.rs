//! The lock of a data directory.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::error::Error;

/// How long a new server waits for the lock: a server that was told to stop releases its port at once, but
/// its data directory only when its trainer has exited.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(100);
const HELD: &str = "another server was using this server's data directory when this one started; use that \
     server, restart this one if the other has ended, or give this one its own directory with --data-dir";

/// The right to write to a data directory, which the first server that uses it has.
///
/// Other servers are replicas that only stream its content; two writers would overwrite each other's
/// schedules and searches.
pub(crate) struct DataLock {
    /// Locked until it is closed.
    _file: Option<File>,
    /// Why this server may not write, and the remedy; none if it may.
    refusal: Option<String>,
}

impl DataLock {
    /// Locks a directory until dropped or until the process ends, if the lock is free or soon released. A
    /// directory that cannot be locked is not written to.
    pub(crate) async fn take(directory: &Path) -> DataLock {
        let path = directory.join("lock");
        let cannot = |error: std::io::Error| {
            format!(
                "this server cannot write to its data directory, because {} cannot be locked: {error}; \
                 give this server its own directory with --data-dir",
                path.display()
            )
        };
        let (file, refusal) = match File::create(&path) {
            Ok(file) => {
                let refusal = DataLock::wait(&file).await.map_err(cannot);
                (Some(file), refusal.unwrap_or_else(Some))
            }
            Err(error) => (None, Some(cannot(error))),
        };
        if let Some(refusal) = &refusal {
            tracing::warn!(directory = %directory.display(), "{refusal}; streams are not affected");
        }
        DataLock { _file: file, refusal }
    }

    /// Waits for the lock; returns why it is not available.
    async fn wait(file: &File) -> std::io::Result<Option<String>> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_POLL).await,
                Err(TryLockError::WouldBlock) => return Ok(Some(HELD.to_owned())),
            }
        }
    }

    /// Whether this server is the one that may write.
    pub(crate) fn is_writer(&self) -> bool {
        self.refusal.is_none()
    }

    /// Refuses a change if this server may not write.
    ///
    /// # Errors
    /// When another server writes to the data directory, or it cannot be locked.
    pub(crate) fn check_writer(&self) -> Result<(), Error> {
        match &self.refusal {
            None => Ok(()),
            Some(refusal) => Err(Error::conflict(refusal)),
        }
    }
}
