//! The batches of an epoch in order, produced ahead of the client by the pool.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::metrics::BROKEN_STREAM;
use crate::stream::encode::Layout;
use crate::stream::epoch::Epoch;
use crate::stream::making::{Making, Output};
use crate::stream::permits::Permit;
use crate::stream::running::{Maker, RunningStream};
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
/// Holds the stream's permit, and its place among the running ones, until it is dropped.
pub(crate) struct Batches<B> {
    pub(super) epoch: Arc<Epoch>,
    /// Batches that are being produced, in order.
    in_flight: VecDeque<Answer<anyhow::Result<B>>>,
    /// Next batch to ask the pool for.
    next: u64,
    /// Batches handed over.
    sent: u64,
    pub(super) running: RunningStream,
    permit: Permit,
}

impl<B: Send + 'static> Batches<B> {
    /// The batches of an epoch, none of which is being produced yet.
    pub(crate) fn new(epoch: Arc<Epoch>, permit: Permit, running: RunningStream) -> Batches<B> {
        epoch.engine.metrics.streams_active.inc();
        Batches { epoch, in_flight: VecDeque::new(), next: 0, sent: 0, running, permit }
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
        self.running.begin();
        let output = Told { output, maker: self.running.maker(self.next) };
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
            Ok(first) => first.map_err(|error| {
                self.running.refuse();
                self.end(error)
            }),
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
            Ok(None) => self.running.complete(),
            Err(broken) => {
                self.running.cut(&broken.to_string());
                tracing::error!(dataset = self.epoch.dataset, error = %broken, "stream aborted");
                self.epoch.engine.metrics.request_errors.with_label_values(&[BROKEN_STREAM]).inc();
            }
        }
        next
    }

    async fn take(&mut self, is_awaited: bool) -> anyhow::Result<Option<B>> {
        let is_late = self.in_flight.front().is_some_and(|answer| answer.is_late());
        if is_late && is_awaited {
            self.running.ask();
        }
        let Some(answer) = self.in_flight.front_mut() else { return Ok(None) };
        let batch = answer.await??;
        self.in_flight.pop_front();
        self.running.take(self.epoch.plan.len_of(self.sent));
        self.sent += 1;
        Ok(Some(batch))
    }

    /// Ends it because of an error.
    fn end(&mut self, error: anyhow::Error) -> BrokenStream {
        self.in_flight.clear();
        BrokenStream { batch: self.sent, error }
    }
}

impl<B> Drop for Batches<B> {
    fn drop(&mut self) {
        self.epoch.engine.metrics.streams_active.dec();
    }
}

/// An output that tells when it is complete.
struct Told<O> {
    output: O,
    maker: Maker,
}

impl<O: Output> Output for Told<O> {
    type Body = O::Body;
    type Batch = O::Batch;

    fn open(&mut self, epoch: &Epoch, len: usize) -> O::Body {
        self.output.open(epoch, len)
    }

    fn complete(self, epoch: &Epoch, n: u64, layout: &Layout, body: O::Body) -> anyhow::Result<O::Batch> {
        let batch = self.output.complete(epoch, n, layout, body);
        self.maker.made();
        batch
    }
}
