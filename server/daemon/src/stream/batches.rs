//! The batches of an epoch in order, produced ahead of the client by the pool.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::metrics::Stage;
use crate::stream::epoch::Epoch;
use crate::stream::making::{Making, Output};
use crate::stream::permits::Permit;
use crate::stream::work::Answer;

/// How long an answer waits for its first batch. That is longer than almost any takes, and what cannot be read is
/// known by then, so that the request is refused. With a batch that takes longer, the answer begins without it.
const FIRST_MAX: Duration = Duration::from_secs(1);

/// Why a stream has no further batch.
#[derive(Debug, thiserror::Error)]
#[error("batch {batch}: {error:#}")]
pub(crate) struct BrokenStream {
    batch: u64,
    /// What went wrong with it.
    pub(crate) error: anyhow::Error,
}

/// The batches of one stream, of a kind `B`: bytes to send, or a slot that was filled.
///
/// Holds the stream's permit, and records whether client or server waits, until it is dropped.
pub(crate) struct Batches<B> {
    pub(super) epoch: Arc<Epoch>,
    /// Batches that are being produced, in order.
    in_flight: VecDeque<Answer<anyhow::Result<B>>>,
    /// Next batch to ask the pool for.
    next: u64,
    /// Batches handed over.
    sent: u64,
    ended: bool,
    /// Whether the client has asked for a batch that is not ready, since then; else it has a batch, and has
    /// not asked for more.
    is_client_waiting: bool,
    since: Instant,
    permit: Permit,
}

impl<B: Send + 'static> Batches<B> {
    /// The batches of an epoch, none of which is being produced yet.
    pub(crate) fn new(epoch: Arc<Epoch>, permit: Permit) -> Batches<B> {
        epoch.engine.metrics.streams_active.inc();
        Batches {
            epoch,
            in_flight: VecDeque::new(),
            next: 0,
            sent: 0,
            ended: false,
            is_client_waiting: false,
            since: Instant::now(),
            permit,
        }
    }

    /// Whether to start one more batch.
    pub(crate) fn wants_more(&self) -> bool {
        self.in_flight.len() < self.epoch.engine.limits.batches_ahead && self.next < self.epoch.plan.batches()
    }

    /// Whether [`Batches::next`] would return something, now or later, without starting more.
    pub(crate) fn has_next(&self) -> bool {
        !self.in_flight.is_empty() || self.next == self.epoch.plan.batches()
    }

    /// Makes the pool produce the next batch.
    pub(crate) fn ask<O: Output<Batch = B>>(&mut self, output: O) {
        let making = Making::new(Arc::clone(&self.epoch), self.next, output);
        self.in_flight.push_back(self.epoch.engine.pool.start_work(self.permit.owner(), making));
        self.next += 1;
    }

    /// The first batch, unless there is none, or it takes long: then it is the next one.
    ///
    /// # Errors
    /// When it cannot be made. The client has been told nothing yet, and is to be refused.
    pub(crate) async fn first(&mut self) -> Result<Option<B>, BrokenStream> {
        match timeout(FIRST_MAX, self.take(true)).await {
            Ok(first) => first.map_err(|error| self.end(error)),
            Err(_late) => Ok(None),
        }
    }

    /// The next batch in order; none after the last. `is_awaited` says whether the client has
    /// nothing to do until it comes. May be dropped while it waits.
    ///
    /// # Errors
    /// When it cannot be made: the stream, which has begun, is to be aborted.
    pub(crate) async fn next(&mut self, is_awaited: bool) -> Result<Option<B>, BrokenStream> {
        let next = self.take(is_awaited).await.map_err(|error| self.end(error));
        match &next {
            Ok(Some(_)) => {}
            Ok(None) => self.ended = true,
            Err(broken) => {
                tracing::error!(dataset = self.epoch.dataset, error = %broken, "stream aborted");
                self.epoch.engine.metrics.request_errors.with_label_values(&["broken-stream"]).inc();
            }
        }
        next
    }

    async fn take(&mut self, is_awaited: bool) -> anyhow::Result<Option<B>> {
        let is_late = self.in_flight.front().is_some_and(|answer| answer.is_late());
        if is_late && is_awaited && !self.is_client_waiting {
            self.turn(true);
        }
        let Some(answer) = self.in_flight.front_mut() else { return Ok(None) };
        let batch = answer.await??;
        self.in_flight.pop_front();
        self.turn(false);
        self.sent += 1;
        self.epoch.engine.metrics.batches_sent.inc();
        Ok(Some(batch))
    }

    /// Ends it because of an error.
    fn end(&mut self, error: anyhow::Error) -> BrokenStream {
        self.ended = true;
        self.in_flight.clear();
        BrokenStream { batch: self.sent, error }
    }

    /// Records that the other side waits from now on.
    fn turn(&mut self, is_client_waiting: bool) {
        self.count_wait();
        if !self.is_client_waiting {
            self.epoch.engine.metrics.stage(Stage::Send).observe(self.since.elapsed().as_secs_f64());
        }
        (self.is_client_waiting, self.since) = (is_client_waiting, Instant::now());
    }
}

impl<B> Batches<B> {
    fn count_wait(&self) {
        let metrics = &self.epoch.engine.metrics;
        let waits =
            if self.is_client_waiting { &metrics.client_wait_seconds } else { &metrics.backpressure_seconds };
        waits.inc_by(self.since.elapsed().as_secs_f64());
    }
}

impl<B> Drop for Batches<B> {
    /// Records the time of the last batch: a client that stalled and then left was slow, too.
    fn drop(&mut self) {
        if !self.ended {
            tracing::info!(
                dataset = self.epoch.dataset,
                sent = self.sent,
                batches = self.epoch.plan.batches(),
                "the client left, or was cut off"
            );
        }
        self.count_wait();
        self.epoch.engine.metrics.streams_active.dec();
    }
}
