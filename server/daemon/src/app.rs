//! What every request shares.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

/// A server that was told to stop has let go of its port, but not yet of its data directory, while its
/// trainer ends. Whoever is started in its place waits for so long.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Who may write in a data directory: the first server that uses it.
///
/// Others, as replicas beside it, stream what is there; two writers would overwrite each other's
/// schedules and searches.
pub struct DataLock {
    _file: Option<std::fs::File>,
    is_writer: bool,
}

impl DataLock {
    /// Locks a directory, if nobody has or whoever has lets go before long, until dropped or until the
    /// process ends.
    pub async fn take(directory: &Path) -> DataLock {
        // A directory that cannot be written refuses each write with a reason of its own.
        let Ok(file) = std::fs::File::create(directory.join("lock")) else {
            return DataLock { _file: None, is_writer: true };
        };
        let is_held = || matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock));
        let deadline = Instant::now() + LOCK_PATIENCE;
        let mut is_writer = !is_held();
        while !is_writer && Instant::now() < deadline {
            tokio::time::sleep(LOCK_POLL).await;
            is_writer = !is_held();
        }
        if !is_writer {
            tracing::warn!(
                directory = %directory.display(),
                "another server writes in the data directory; this one streams, and refuses changes"
            );
        }
        DataLock { _file: Some(file), is_writer }
    }

    /// Whether this server is the one that may write.
    pub fn is_writer(&self) -> bool {
        self.is_writer
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

    /// Whether this server may change schedules and searches.
    pub fn is_writer(&self) -> bool {
        self.lock.is_writer
    }

    /// Refuses a change where another server writes.
    ///
    /// # Errors
    /// `409` when another server writes in the data directory.
    pub fn check_writer(&self) -> Result<(), ApiError> {
        if self.is_writer() {
            return Ok(());
        }
        Err(ApiError::conflict(
            "another server writes in this server's data directory; ask that one, or give this one its own with --data-dir",
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
