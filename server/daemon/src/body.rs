//! One epoch as the body of an HTTP answer.
//!
//! The body keeps a few batches ahead of its client and asks the pool for the next one only when
//! the client has taken one, so a slow client holds `batches_ahead` batches and no more. When a
//! batch fails, the body ends with an error: the connection closes without Arrow's end of stream
//! and without the last HTTP chunk, and the client knows that it was cut.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body::{Body, Frame};
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::encode::END_OF_STREAM;
use crate::epoch::{EncodedBatch, Epoch};
use crate::metrics::Live;
use crate::pool::Answer;

/// Why a stream broke off after it had begun.
#[derive(Debug, thiserror::Error)]
#[error("batch {batch}: {reason}")]
pub struct BrokenStream {
    /// Which batch of the answer.
    batch: u64,
    /// What went wrong.
    reason: String,
}

/// Batches of an epoch in order, encoded as they are asked for.
pub struct EpochBody {
    app: Arc<App>,
    epoch: Arc<Epoch>,
    /// Chunks that are ready to go: at most a header and its body.
    chunks: VecDeque<Bytes>,
    /// Batches that are being made, in order.
    in_flight: VecDeque<Answer<anyhow::Result<EncodedBatch>>>,
    /// Next batch to ask the pool for.
    next: u64,
    /// Batches handed over.
    sent: u64,
    ended: bool,
    clock: Clock,
    _live: Live,
    _permit: OwnedSemaphorePermit,
}

/// Who waits for whom.
enum Clock {
    /// The client has a chunk; it has not asked for more since.
    Sending(Instant),
    /// The client has asked, and the batch is not ready.
    Waiting(Instant),
}

impl EpochBody {
    /// Starts an epoch. The permit is held until the body is dropped.
    ///
    /// # Errors
    /// When the schema cannot be encoded, which is our fault.
    pub fn new(app: Arc<App>, epoch: Arc<Epoch>, permit: OwnedSemaphorePermit) -> anyhow::Result<EpochBody> {
        let live = Live::new(&app.metrics.streams_active);
        let mut body = EpochBody {
            chunks: VecDeque::from([epoch.schema_message()?]),
            app,
            epoch,
            in_flight: VecDeque::new(),
            next: 0,
            sent: 0,
            ended: false,
            clock: Clock::Sending(Instant::now()),
            _live: live,
            _permit: permit,
        };
        body.ask_ahead();
        Ok(body)
    }

    /// Keeps `batches_ahead` batches in the making.
    fn ask_ahead(&mut self) {
        while self.in_flight.len() < self.app.limits.batches_ahead && self.next < self.epoch.plan().batches()
        {
            let (app, epoch, n) = (Arc::clone(&self.app), Arc::clone(&self.epoch), self.next);
            let job = move |workspace: &mut crate::pool::Workspace| {
                epoch.batch(n, workspace, &app.buffers, &app.metrics)
            };
            self.in_flight.push_back(self.app.pool.run(job));
            self.next += 1;
        }
    }

    fn fail(&mut self, reason: String) -> BrokenStream {
        let broken = BrokenStream { batch: self.sent, reason };
        tracing::error!(dataset = self.epoch.dataset(), error = %broken, "stream broken off");
        self.app.metrics.request_errors.with_label_values(&["broken-stream"]).inc();
        self.ended = true;
        self.in_flight.clear();
        broken
    }

    /// Books the time since the clock was set, and sets it anew.
    fn book(&mut self, next: Clock) {
        let metrics = &self.app.metrics;
        match std::mem::replace(&mut self.clock, next) {
            Clock::Sending(since) => {
                let seconds = since.elapsed().as_secs_f64();
                metrics.stage_send.observe(seconds);
                metrics.backpressure_seconds.inc_by(seconds);
            }
            Clock::Waiting(since) => metrics.client_wait_seconds.inc_by(since.elapsed().as_secs_f64()),
        }
    }
}

impl Drop for EpochBody {
    /// Books what the last chunk took: a client that stalled and then left was slow, too.
    fn drop(&mut self) {
        let metrics = &self.app.metrics;
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

impl Body for EpochBody {
    type Data = Bytes;
    type Error = BrokenStream;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenStream>>> {
        let body = self.get_mut();
        loop {
            if let Some(chunk) = body.chunks.pop_front() {
                body.app.metrics.stream_bytes.inc_by(chunk.len() as u64);
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            if body.ended {
                return Poll::Ready(None);
            }
            let Some(answer) = body.in_flight.front_mut() else {
                body.ended = true;
                body.chunks.push_back(Bytes::from_static(&END_OF_STREAM));
                continue;
            };
            match answer.poll_unpin(context) {
                Poll::Pending => {
                    if let Clock::Sending(_) = body.clock {
                        body.book(Clock::Waiting(Instant::now()));
                    }
                    return Poll::Pending;
                }
                Poll::Ready(answer) => {
                    body.in_flight.pop_front();
                    let batch = match answer {
                        Ok(Ok(Ok(batch))) => batch,
                        Ok(Ok(Err(error))) => return Poll::Ready(Some(Err(body.fail(format!("{error:#}"))))),
                        Ok(Err(panicked)) => return Poll::Ready(Some(Err(body.fail(panicked.to_string())))),
                        Err(_) => {
                            return Poll::Ready(Some(Err(body.fail("the pool was shut down".to_owned()))));
                        }
                    };
                    body.ask_ahead();
                    body.book(Clock::Sending(Instant::now()));
                    body.sent += 1;
                    body.app.metrics.batches_sent.inc();
                    body.chunks.push_back(batch.head);
                    body.chunks.extend(batch.body);
                }
            }
        }
    }
}
