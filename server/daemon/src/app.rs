//! What every request shares.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::buffers::BufferPool;
use crate::catalog::Catalog;
use crate::config::Limits;
use crate::epoch::Resolver;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::registry::Registry;
use crate::searches::Searches;

/// Holds a data directory for one server: two would overwrite each other's schedules and searches.
pub struct DataLock {
    _file: Option<std::fs::File>,
}

impl DataLock {
    /// Locks a directory until dropped, or until the process ends in whatever way.
    ///
    /// A directory that cannot be written needs no lock.
    ///
    /// # Errors
    /// When another server holds it.
    pub fn take(directory: &Path) -> anyhow::Result<DataLock> {
        let Ok(file) = std::fs::File::create(directory.join("lock")) else {
            return Ok(DataLock { _file: None });
        };
        match file.try_lock() {
            Ok(()) => Ok(DataLock { _file: Some(file) }),
            Err(std::fs::TryLockError::WouldBlock) => anyhow::bail!(
                "another server uses the data directory {}; give this one its own with --data-dir",
                directory.display()
            ),
            // A file system without locks.
            Err(std::fs::TryLockError::Error(error)) => {
                tracing::warn!(%error, directory = %directory.display(), "the data directory cannot be locked");
                Ok(DataLock { _file: Some(file) })
            }
        }
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
    /// The metrics.
    pub metrics: Metrics,
    /// The bounds.
    pub limits: Limits,
    /// Turns of previews and single ops on the workers: half of these at most, so that a crowd of
    /// them cannot hold up the streams.
    pub single_jobs: Semaphore,
    streams: Arc<Semaphore>,
    draining: AtomicBool,
    _lock: DataLock,
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
            metrics,
            single_jobs: Semaphore::new((limits.threads / 2).max(1)),
            streams: Arc::new(Semaphore::new(limits.streams_max)),
            limits,
            draining: AtomicBool::new(false),
            _lock: lock,
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
            batch_bytes_max: self.limits.batch_bytes_max,
        }
    }
}
