//! What every request shares.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::buffers::BufferPool;
use crate::catalog::Catalog;
use crate::config::Limits;
use crate::decoded_cache::DecodedCache;
use crate::epoch::Resolver;
use crate::error::ApiError;
use crate::memory::Budget;
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::registry::Registry;
use crate::searches::Searches;

/// How often a server that does not write looks whether it may.
const LOCK_POLL: Duration = Duration::from_millis(250);

/// Who may write in a data directory: the first server that uses it.
///
/// Others, as replicas beside it, stream what is there; two writers would overwrite each other's
/// schedules and searches. When the writer ends, whether it was killed, replaced or restarted, one of them
/// takes its place.
pub struct DataLock {
    /// None where the directory cannot be written: each change is refused with a reason of its own.
    file: Option<std::fs::File>,
    is_writer: AtomicBool,
}

impl DataLock {
    /// Locks a directory, if nobody has, until dropped or until the process ends.
    pub fn open(directory: &Path) -> DataLock {
        let file = std::fs::File::create(directory.join("lock")).ok();
        let lock = DataLock { file, is_writer: AtomicBool::new(false) };
        lock.is_writer.store(lock.try_take(), Ordering::Release);
        if !lock.is_writer() {
            tracing::warn!(
                directory = %directory.display(),
                "another server writes in the data directory; until it ends, this one streams and refuses changes"
            );
        }
        lock
    }

    fn try_take(&self) -> bool {
        let lock = self.file.as_ref().map(std::fs::File::try_lock);
        !matches!(lock, Some(Err(std::fs::TryLockError::WouldBlock)))
    }

    /// Whether this server may write.
    pub fn is_writer(&self) -> bool {
        self.is_writer.load(Ordering::Acquire)
    }
}

/// The running server's state.
pub struct App {
    /// The datasets.
    pub catalog: Catalog,
    /// The schedules.
    pub registry: Registry,
    /// The searches.
    pub searches: Searches,
    /// The workers.
    pub pool: Pool,
    /// Idle batch buffers.
    pub buffers: BufferPool,
    /// Decoded pixels of images that are kept encoded.
    pub decoded: Arc<DecodedCache>,
    /// Memory that streams may share with their clients.
    pub shared_memory: Budget,
    /// The metrics.
    pub metrics: Metrics,
    /// The bounds.
    pub limits: Limits,
    /// Turns of previews and single ops on the workers: half of these at most, so that a crowd of
    /// them cannot hold up the streams.
    pub single_jobs: Semaphore,
    streams: Arc<Semaphore>,
    draining: AtomicBool,
    lock: DataLock,
}

impl App {
    /// Starts the workers.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        catalog: Catalog,
        registry: Registry,
        searches: Searches,
        limits: Limits,
        metrics: Metrics,
        lock: DataLock,
    ) -> anyhow::Result<App> {
        if lock.is_writer() {
            searches.remove_abandoned();
        }
        let pool = Pool::start(limits.threads, metrics.clone())?;
        metrics.ready.set(1);
        Ok(App {
            catalog,
            registry,
            searches,
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
    /// `503` while draining, `429` when all places are taken.
    pub fn admit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        if self.is_draining() {
            return Err(ApiError::draining());
        }
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| ApiError::full(self.limits.streams_max))
    }

    /// Becomes the server that writes in the data directory, when no other one does any more.
    pub async fn take_over(&self) {
        if self.lock.is_writer() {
            return;
        }
        while !self.lock.try_take() {
            tokio::time::sleep(LOCK_POLL).await;
        }
        self.searches.remove_abandoned();
        // The other one has changed them since; schedules are looked up on the disk in any case.
        if let Err(error) = self.searches.reload() {
            tracing::error!(error = format!("{error:#}"), "the searches of the server before cannot be read");
        }
        self.lock.is_writer.store(true, Ordering::Release);
        tracing::info!("the server that wrote in the data directory has ended; this one takes its place");
    }

    /// Refuses a change where another server writes.
    ///
    /// # Errors
    /// `409` when another server writes in the data directory.
    pub fn check_writer(&self) -> Result<(), ApiError> {
        if self.lock.is_writer() {
            return Ok(());
        }
        Err(ApiError::conflict(
            "another server writes in this server's data directory, and this one takes its place when it ends; \
             ask that one, or give this one its own with --data-dir",
        ))
    }

    /// Streams that hold a place.
    pub fn streams(&self) -> usize {
        self.limits.streams_max - self.streams.available_permits()
    }

    /// Takes no new streams from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.metrics.ready.set(0);
    }

    /// Whether new streams are refused.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// What requests are checked against.
    pub fn resolver(&self) -> Resolver<'_> {
        Resolver {
            catalog: &self.catalog,
            registry: &self.registry,
            decoded: &self.decoded,
            batch_bytes_max: self.limits.batch_bytes_max,
        }
    }
}
