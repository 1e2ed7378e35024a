//! The resources that streams share: the workers, the memory, and the bounds of both.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::error::{Cause, Error};
use crate::metrics::Metrics;
use crate::stream::budget::Budget;
use crate::stream::buffers::BufferPool;
use crate::stream::decoded_cache::DecodedCache;
use crate::stream::pool::Pool;

/// The resources that all streams share.
pub(crate) struct Engine {
    pub(crate) pool: Pool,
    pub(crate) buffers: BufferPool,
    pub(crate) decoded: DecodedCache,
    pub(crate) shared_memory: Budget,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    /// Permits of previews and single ops: they use at most half of the workers, so that they cannot delay
    /// the streams.
    pub(crate) single_tasks: Semaphore,
    streams: Arc<Semaphore>,
}

impl Engine {
    /// Starts the workers.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(limits: Limits, metrics: Metrics) -> anyhow::Result<Engine> {
        let decoded = Budget::new(limits.decoded_cache_bytes as u64, metrics.decoded_cache_bytes.clone());
        Ok(Engine {
            pool: Pool::start(limits.threads, metrics.clone())?,
            // One buffer per worker is being filled; the rest is on its way to a client.
            buffers: BufferPool::new(limits.threads + 2 * limits.batches_ahead),
            decoded: DecodedCache::new(decoded),
            shared_memory: Budget::new(limits.shared_memory_bytes_max, metrics.shared_memory_bytes.clone()),
            metrics,
            single_tasks: Semaphore::new((limits.threads / 2).max(1)),
            streams: Arc::new(Semaphore::new(limits.streams_max)),
            limits,
        })
    }

    /// A permit for one more stream, until it is dropped.
    ///
    /// # Errors
    /// When all permits are taken.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let streams_max = self.limits.streams_max;
            Error::new(Cause::Full, format!("all {streams_max} streams are taken; try again in a second"))
        })
    }

    /// Streams that hold a permit.
    pub(crate) fn streams(&self) -> usize {
        self.limits.streams_max - self.streams.available_permits()
    }
}
