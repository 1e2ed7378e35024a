//! The lock of a data directory.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::{sleep, timeout};

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
    /// The file that is locked until it is closed; or why this server may not write, and the remedy.
    file: Result<File, String>,
}

impl DataLock {
    /// Locks a directory until dropped or until the process ends, if the lock is free or soon released. A
    /// directory that cannot be locked is not written to.
    pub(crate) async fn take(directory: &Path) -> DataLock {
        let path = directory.join("lock");
        let locked = async {
            let file = File::create(&path)?;
            loop {
                match file.try_lock() {
                    Ok(()) => return Ok(file),
                    Err(TryLockError::Error(error)) => return Err(error),
                    Err(TryLockError::WouldBlock) => sleep(LOCK_POLL).await,
                }
            }
        };
        let file = match timeout(LOCK_PATIENCE, locked).await {
            Ok(file) => file.map_err(|error: io::Error| {
                format!(
                    "this server cannot write to its data directory, because {} cannot be locked: {error}; \
                     give this server its own directory with --data-dir",
                    path.display()
                )
            }),
            Err(_) => Err(HELD.to_owned()),
        };
        if let Err(refusal) = &file {
            tracing::warn!(directory = %directory.display(), "{refusal}; streams are not affected");
        }
        DataLock { file }
    }

    /// Whether this server is the one that may write.
    pub(crate) fn is_writer(&self) -> bool {
        self.file.is_ok()
    }

    /// Refuses a change if this server may not write.
    ///
    /// # Errors
    /// When another server writes to the data directory, or it cannot be locked.
    pub(crate) fn check_writer(&self) -> Result<(), Error> {
        self.file.as_ref().map(drop).map_err(Error::conflict)
    }
}
