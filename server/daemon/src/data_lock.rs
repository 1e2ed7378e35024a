//! The lock of a data directory.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::error::Error;

/// A server that was told to stop has let go of its port, but not yet of its data directory, while its
/// trainer ends. Whoever is started in its place waits for so long.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(100);
const HELD: &str = "another server wrote in this server's data directory when this one was started; ask that one, \
     restart this one if it is gone, or give this one a directory of its own with --data-dir";

/// Who may write in a data directory: the first server that uses it.
///
/// Others, as replicas beside it, stream what is there; two writers would overwrite each other's
/// schedules and searches.
pub(crate) struct DataLock {
    /// Locked until it is closed.
    _file: Option<File>,
    /// Why this server may not write, and what to do; none if it may.
    refusal: Option<String>,
}

impl DataLock {
    /// Locks a directory, if nobody has or whoever has lets go before long, until dropped or until the
    /// process ends. What cannot be locked is not written in.
    pub(crate) async fn take(directory: &Path) -> DataLock {
        let path = directory.join("lock");
        let cannot = |error: std::io::Error| {
            format!(
                "nothing can be written in this server's data directory, because {} cannot be locked: {error}; \
                 give this server one of its own with --data-dir",
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

    /// Waits for the lock; answers why it cannot be had.
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

    /// Refuses a change where this server may not write.
    ///
    /// # Errors
    /// When another server writes in the data directory, or it cannot be locked.
    pub(crate) fn check_writer(&self) -> Result<(), Error> {
        match &self.refusal {
            None => Ok(()),
            Some(refusal) => Err(Error::conflict(refusal)),
        }
    }
}
