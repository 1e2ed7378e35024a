//! The batches of an epoch in order, produced ahead of the client by the pool.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::OwnedSemaphorePermit;

use crate::metrics::{Live, Stage};
use crate::stream::engine::Engine;
use crate::stream::epoch::Epoch;
use crate::stream::pool::{Answer, Workspace};

/// Why a stream was aborted after it had started.
#[derive(Debug, thiserror::Error)]
#[error("batch {batch}: {reason}")]
pub(crate) struct BrokenStream {
    /// The batch of the answer.
    batch: u64,
    /// The error.
    reason: String,
}

/// The batches of one stream, of a kind `B`: bytes to send, or a slot that was filled.
///
/// Holds the stream's permit, and records whether client or server waits, until it is dropped.
pub(crate) struct Batches<B> {
    engine: Arc<Engine>,
    epoch: Arc<Epoch>,
    /// Batches that are being produced, in order.
    in_flight: VecDeque<Answer<anyhow::Result<B>>>,
    /// Next batch to ask the pool for.
    next: u64,
    /// Batches handed over.
    sent: u64,
    ended: bool,
    clock: Clock,
    _live: Live,
    _permit: OwnedSemaphorePermit,
}

/// Which side waits.
enum Clock {
    /// The client has a batch and has not asked for more since.
    Sending(Instant),
    /// The client has asked, and the batch is not ready.
    Waiting(Instant),
}

impl<B: Send + 'static> Batches<B> {
    /// The batches of an epoch, none of which is being produced yet.
    pub(crate) fn new(engine: Arc<Engine>, epoch: Arc<Epoch>, permit: OwnedSemaphorePermit) -> Batches<B> {
        Batches {
            _live: Live::new(&engine.metrics.streams_active),
            engine,
            epoch,
            in_flight: VecDeque::new(),
            next: 0,
            sent: 0,
            ended: false,
            clock: Clock::Sending(Instant::now()),
            _permit: permit,
        }
    }

    /// What all streams share.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Whether to start one more batch.
    pub(crate) fn wants_more(&self) -> bool {
        self.in_flight.len() < self.engine.limits.batches_ahead && self.next < self.epoch.plan().batches()
    }

    /// Whether [`Batches::poll_next`] would return something, now or later, without starting more.
    pub(crate) fn has_next(&self) -> bool {
        !self.in_flight.is_empty() || self.next == self.epoch.plan().batches()
    }

    /// Makes the pool produce the next batch.
    pub(crate) fn ask(
        &mut self,
        make: impl FnOnce(&Epoch, u64, &mut Workspace, &Engine) -> anyhow::Result<B> + Send + 'static,
    ) {
        let (engine, epoch, n) = (Arc::clone(&self.engine), Arc::clone(&self.epoch), self.next);
        self.in_flight.push_back(self.engine.pool.run(move |workspace| make(&epoch, n, workspace, &engine)));
        self.next += 1;
    }

    /// The next batch in order; none after the last. `is_awaited` says whether the client has
    /// nothing to do until it comes.
    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        is_awaited: bool,
    ) -> Poll<Option<Result<B, BrokenStream>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Some(answer) = self.in_flight.front_mut() else {
            self.ended = true;
            return Poll::Ready(None);
        };
        let Poll::Ready(answer) = answer.poll_unpin(context) else {
            if is_awaited && matches!(self.clock, Clock::Sending(_)) {
                self.book(Clock::Waiting(Instant::now()));
            }
            return Poll::Pending;
        };
        self.in_flight.pop_front();
        let batch = match answer {
            Ok(Ok(Ok(batch))) => batch,
            Ok(Ok(Err(error))) => return Poll::Ready(Some(Err(self.fail(format!("{error:#}"))))),
            Ok(Err(panicked)) => return Poll::Ready(Some(Err(self.fail(panicked.to_string())))),
            Err(_) => return Poll::Ready(Some(Err(self.fail("the pool was shut down".to_owned())))),
        };
        self.book(Clock::Sending(Instant::now()));
        self.sent += 1;
        self.engine.metrics.batches_sent.inc();
        Poll::Ready(Some(Ok(batch)))
    }

    fn fail(&mut self, reason: String) -> BrokenStream {
        let broken = BrokenStream { batch: self.sent, reason };
        tracing::error!(dataset = self.epoch.dataset(), error = %broken, "stream aborted");
        self.engine.metrics.request_errors.with_label_values(&["broken-stream"]).inc();
        self.ended = true;
        self.in_flight.clear();
        broken
    }

    /// Records the time since the clock was set, and resets it.
    fn book(&mut self, next: Clock) {
        let metrics = &self.engine.metrics;
        match std::mem::replace(&mut self.clock, next) {
            Clock::Sending(since) => {
                let seconds = since.elapsed().as_secs_f64();
                metrics.stage(Stage::Send).observe(seconds);
                metrics.backpressure_seconds.inc_by(seconds);
            }
            Clock::Waiting(since) => metrics.client_wait_seconds.inc_by(since.elapsed().as_secs_f64()),
        }
    }
}

impl<B> Drop for Batches<B> {
    /// Records the time of the last batch: a client that stalled and then left was slow, too.
    fn drop(&mut self) {
        let metrics = &self.engine.metrics;
        if !self.ended {
            tracing::info!(
                dataset = self.epoch.dataset(),
                sent = self.sent,
                batches = self.epoch.plan().batches(),
                "the client left, or was cut off"
            );
        }
        match self.clock {
            Clock::Sending(since) => metrics.backpressure_seconds.inc_by(since.elapsed().as_secs_f64()),
            Clock::Waiting(since) => metrics.client_wait_seconds.inc_by(since.elapsed().as_secs_f64()),
        }
    }
}
