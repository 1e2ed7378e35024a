//! What every request shares.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::catalog::datasets::Catalog;
use crate::catalog::schedules::Registry;
use crate::config::Limits;
use crate::error::Error;
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::stream::buffers::BufferPool;
use crate::stream::decoded_cache::DecodedCache;
use crate::stream::pool::Pool;
use crate::stream::resolve::Resolver;
use crate::stream::shared_memory::Budget;

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
}

/// The running server's state.
pub(crate) struct App {
    /// The datasets.
    pub(crate) catalog: Catalog,
    /// The schedules.
    pub(crate) registry: Registry,
    /// The searches and evaluations.
    pub(crate) jobs: Jobs,
    /// The workers.
    pub(crate) pool: Pool,
    /// Idle batch buffers.
    pub(crate) buffers: BufferPool,
    /// Decoded pixels of images that are kept encoded.
    pub(crate) decoded: Arc<DecodedCache>,
    /// Memory that streams may share with their clients.
    pub(crate) shared_memory: Budget,
    /// The metrics.
    pub(crate) metrics: Metrics,
    /// The bounds.
    pub(crate) limits: Limits,
    /// Turns of previews and single ops on the workers: half of these at most, so that a crowd of
    /// them cannot hold up the streams.
    pub(crate) single_jobs: Semaphore,
    streams: Arc<Semaphore>,
    draining: AtomicBool,
    lock: DataLock,
}

impl App {
    /// Starts the workers.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(
        catalog: Catalog,
        registry: Registry,
        jobs: Jobs,
        limits: Limits,
        metrics: Metrics,
        lock: DataLock,
    ) -> anyhow::Result<App> {
        let pool = Pool::start(limits.threads, metrics.clone())?;
        metrics.ready.set(1);
        Ok(App {
            catalog,
            registry,
            jobs,
            pool,
            // One buffer per worker is being filled; the rest is on its way to a client.
            buffers: BufferPool::new(limits.threads + 2 * limits.batches_ahead),
            decoded: Arc::new(DecodedCache::new(limits.decoded_cache_bytes, metrics.clone())),
            shared_memory: Budget::new(limits.shared_memory_bytes_max, metrics.shared_memory_bytes.clone()),
            metrics,
            single_jobs: Semaphore::new((limits.threads / 2).max(1)),
            streams: Arc::new(Semaphore::new(limits.streams_max)),
            limits,
            draining: AtomicBool::new(false),
            lock,
        })
    }

    /// A place for one more stream, until the permit is dropped.
    ///
    /// # Errors
    /// When all places are taken.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| Error::full(self.limits.streams_max))
    }

    /// Whether this server may change schedules and searches.
    pub(crate) fn is_writer(&self) -> bool {
        self.lock.is_writer()
    }

    /// Refuses a change where this server may not write.
    ///
    /// # Errors
    /// When another server writes in the data directory, or it cannot be locked.
    pub(crate) fn check_writer(&self) -> Result<(), Error> {
        match &self.lock.refusal {
            None => Ok(()),
            Some(refusal) => Err(Error::conflict(refusal)),
        }
    }

    /// Streams that hold a place.
    pub(crate) fn streams(&self) -> usize {
        self.limits.streams_max - self.streams.available_permits()
    }

    /// Takes no new streams from now on.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.metrics.ready.set(0);
    }

    /// Refuses new work once the server was told to stop.
    ///
    /// # Errors
    /// When it was.
    pub(crate) fn check_draining(&self) -> Result<(), Error> {
        if self.draining.load(Ordering::Relaxed) { Err(Error::draining()) } else { Ok(()) }
    }

    /// What requests are checked against.
    pub(crate) fn resolver(&self) -> Resolver<'_> {
        Resolver {
            catalog: &self.catalog,
            registry: &self.registry,
            decoded: &self.decoded,
            batch_bytes_max: self.limits.batch_bytes_max,
        }
    }
}
