//! The lock of a data directory.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use pba_files::Lock;
use tokio::time::{Instant, sleep};

use crate::error::{Cause, Error};
use crate::sync;

/// How long a new server waits for the lock: a server that was told to stop releases its port at once, but
/// its data directory only when its trainer has exited.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(100);
/// The file in a data directory that is locked with it.
const FILE: &str = "lock";
const HELD: &str = "another server uses this server's data directory, and hosts its jobs; use that server, or give \
     this one its own directory with --data-dir";

/// What a server is to its data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The one that writes to it.
    Writer,
    /// One that only streams what is there, and why.
    Replica(&'static str),
    /// Neither: it could be the writer, if it were not for a fault.
    Refused(String),
}

/// The right to write to a data directory, which one server has at a time.
///
/// Other servers are replicas that only stream its content; two writers would overwrite each other's
/// schedules and searches. A replica that finds it free takes it ([`DataLock::try_take`], [`DataLock::hold`]), reads what
/// is there as a writer does, and then lets requests change something ([`DataLock::admit`]).
pub(crate) struct DataLock {
    directory: PathBuf,
    lock: RwLock<Option<Arc<Lock>>>,
    /// Whether requests may change something.
    admits: AtomicBool,
    /// Why this server could not write when it started, and the remedy.
    refusal: Option<Error>,
}

impl DataLock {
    /// Locks a directory until dropped or until the process ends, if the lock is free or soon released. A
    /// directory that cannot be locked is not written to.
    pub(crate) async fn take(directory: &Path) -> DataLock {
        let deadline = Instant::now() + LOCK_PATIENCE;
        let lock = loop {
            match try_take(directory) {
                Ok(None) if Instant::now() < deadline => sleep(LOCK_POLL).await,
                Ok(None) => break Err(Error::conflict(HELD)),
                Ok(Some(lock)) => break Ok(lock),
                Err(error) => break Err(error),
            }
        };
        if let Err(Error { detail, .. }) = &lock {
            tracing::warn!(directory = %directory.display(), "{detail}; streams are not affected");
        }
        let directory = directory.to_owned();
        let (lock, refusal) = match lock {
            Ok(lock) => (Some(Arc::new(lock)), None),
            Err(refusal) => (None, Some(refusal)),
        };
        let admits = AtomicBool::new(lock.is_some());
        DataLock { directory, lock: RwLock::new(lock), admits, refusal }
    }

    /// The data directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The lock, if no server has it any more. Waits for the disk.
    pub(crate) fn try_take(&self) -> Option<Lock> {
        try_take(&self.directory).ok().flatten()
    }

    /// Makes this server the writer. Requests are still refused: what is there has to be read before.
    pub(crate) fn hold(&self, lock: Lock) {
        *sync::write(&self.lock) = Some(Arc::new(lock));
    }

    /// Leaves the directory to another server after all.
    pub(crate) fn release(&self) {
        *sync::write(&self.lock) = None;
    }

    /// Lets requests change something from now on.
    pub(crate) fn admit(&self) {
        self.admits.store(true, Ordering::Release);
    }

    /// Whether this server is the one that may write.
    pub(crate) fn is_writer(&self) -> bool {
        self.held().is_ok()
    }

    /// Refuses a request for a change if this server may not write, or has not read yet what it takes over.
    ///
    /// # Errors
    /// When another server writes to the data directory, or it cannot be locked, as on a disk that is read-only.
    pub(crate) fn check_writer(&self) -> Result<(), Error> {
        if self.admits.load(Ordering::Acquire) { Ok(()) } else { Err(self.refusal()) }
    }

    /// What this server is to the directory.
    pub(crate) fn standing(&self) -> Standing {
        match self.check_writer() {
            Ok(()) => Standing::Writer,
            Err(Error { detail, .. }) if detail == HELD => Standing::Replica("another server is the writer"),
            Err(Error { cause: Cause::ReadOnly, .. }) => Standing::Replica("its data directory is read-only"),
            Err(Error { detail, .. }) => Standing::Refused(detail),
        }
    }

    fn held(&self) -> Result<Arc<Lock>, Error> {
        sync::read(&self.lock).clone().ok_or_else(|| self.refusal())
    }

    fn refusal(&self) -> Error {
        self.refusal.clone().unwrap_or_else(|| Error::conflict(HELD))
    }

    /// Refuses a change if what was locked is no longer there, so that another server may write by now. Waits for the
    /// disk.
    ///
    /// # Errors
    /// Those of [`DataLock::check_writer`]; when the data directory was moved, removed or replaced.
    pub(crate) fn check_in_place(&self) -> Result<(), Error> {
        let lock = self.held()?;
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

/// Locks a directory if no other server has.
///
/// # Errors
/// When it cannot be locked.
fn try_take(directory: &Path) -> Result<Option<Lock>, Error> {
    Lock::take(directory, FILE).map_err(|error| {
        let detail = format!(
            "this server cannot write to its data directory, because {} cannot be locked: {error}; \
             give this server its own directory with --data-dir",
            directory.join(FILE).display()
        );
        match error.kind() {
            _ if pba_files::is_full(&error) => Error::new(Cause::DiskFull, detail),
            ErrorKind::ReadOnlyFilesystem => Error::new(Cause::ReadOnly, detail),
            _ => Error::conflict(detail),
        }
    })
}

#[cfg(test)]
impl DataLock {
    /// Locks a directory if it is free, without waiting.
    pub(crate) fn of_test(directory: &Path) -> Arc<DataLock> {
        let lock = Lock::take(directory, FILE).expect("it can be locked").map(Arc::new);
        let (admits, directory) = (AtomicBool::new(lock.is_some()), directory.to_owned());
        Arc::new(DataLock { directory, lock: RwLock::new(lock), admits, refusal: None })
    }
}
