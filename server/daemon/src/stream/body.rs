//! One epoch as the body of an HTTP answer.
//!
//! The body keeps a few batches ahead of its client and asks the pool for the next one only when
//! the client has taken one, so a slow client holds `batches_ahead` batches and no more. When a
//! batch fails, the body ends with an error: the connection closes without Arrow's end of stream
//! and without the last HTTP chunk, and the client knows that it was cut.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::OwnedSemaphorePermit;

use crate::stream::batches::{Batches, BrokenStream};
use crate::stream::encode::END_OF_STREAM;
use crate::stream::engine::Engine;
use crate::stream::epoch::{EncodedBatch, Epoch};

/// Batches of an epoch in order, encoded as they are asked for.
pub(crate) struct EpochBody {
    batches: Batches<EncodedBatch>,
    /// Chunks that are ready to send: at most a header and its body.
    chunks: VecDeque<Bytes>,
    ended: bool,
}

impl EpochBody {
    /// Starts an epoch. The permit is held until the body is dropped.
    ///
    /// # Errors
    /// When the schema cannot be encoded, which is a bug.
    pub(crate) fn new(
        engine: Arc<Engine>,
        epoch: Arc<Epoch>,
        permit: OwnedSemaphorePermit,
    ) -> anyhow::Result<EpochBody> {
        let chunks = VecDeque::from([epoch.schema_message()?]);
        let mut body = EpochBody { batches: Batches::new(engine, epoch, permit), chunks, ended: false };
        body.ask_ahead();
        Ok(body)
    }

    /// Keeps `batches_ahead` batches in production.
    fn ask_ahead(&mut self) {
        while self.batches.wants_more() {
            self.batches.ask(|epoch, n, workspace, engine| {
                epoch.batch(n, workspace, &engine.buffers, &engine.metrics)
            });
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
                body.batches.engine().metrics.stream_bytes.inc_by(chunk.len() as u64);
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            if body.ended {
                return Poll::Ready(None);
            }
            match ready!(body.batches.poll_next(context, true)) {
                Some(Ok(batch)) => {
                    body.ask_ahead();
                    body.chunks.push_back(batch.head);
                    body.chunks.extend(batch.body);
                }
                Some(Err(broken)) => {
                    body.ended = true;
                    return Poll::Ready(Some(Err(broken)));
                }
                None => {
                    body.ended = true;
                    body.chunks.push_back(Bytes::from_static(&END_OF_STREAM));
                }
            }
        }
    }
}
