//! One epoch as the body of an HTTP answer.
//!
//! A few batches are kept ahead of the client, and the pool is asked for the next one only when the client
//! has taken one, so a slow client holds `batches_ahead` batches and no more. When a batch fails, the body
//! ends with an error: the connection closes without Arrow's end of stream and without the last HTTP
//! chunk, and the client knows that it was cut.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{Stream, try_unfold};
use tokio::sync::OwnedSemaphorePermit;

use crate::stream::batches::{Batches, BrokenStream};
use crate::stream::encode::END_OF_STREAM;
use crate::stream::epoch::{EncodedBatch, Epoch};

/// The chunks of an epoch. The permit is held until the last is taken, or the stream dropped.
pub(crate) fn chunks(
    epoch: Arc<Epoch>,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, BrokenStream>> {
    // Those that are ready to send: at most a header and its body.
    let ready = VecDeque::from([epoch.opening.0.clone()]);
    let mut batches = Batches::new(epoch, permit);
    ask_ahead(&mut batches);
    try_unfold((batches, ready, false), async |(mut batches, mut ready, mut ended)| {
        if ready.is_empty() && !ended {
            match batches.next(true).await? {
                Some(batch) => {
                    ask_ahead(&mut batches);
                    ready.push_back(batch.head);
                    ready.push_back(batch.body);
                }
                None => {
                    ended = true;
                    ready.push_back(Bytes::from_static(&END_OF_STREAM));
                }
            }
        }
        let Some(chunk) = ready.pop_front() else { return Ok(None) };
        batches.epoch.engine.metrics.stream_bytes.inc_by(chunk.len() as u64);
        Ok(Some((chunk, (batches, ready, ended))))
    })
}

/// Keeps `batches_ahead` batches in production.
fn ask_ahead(batches: &mut Batches<EncodedBatch>) {
    while batches.wants_more() {
        batches.ask(Epoch::batch);
    }
}
