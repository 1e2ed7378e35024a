//! One epoch as the body of an HTTP answer.
//!
//! A few batches are kept ahead of the client, and the pool is asked for the next one only when the client
//! has taken one, so a slow client holds `batches_ahead` batches and no more; when memory is short, one. When a batch fails, the body
//! ends with an error: the connection closes without Arrow's end of stream and without the last HTTP
//! chunk, and the client knows that it was cut.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{Stream, try_unfold};

use crate::stream::batches::{Batches, BrokenStream};
use crate::stream::budget::{BatchMemory, OwnBatch};
use crate::stream::encode::{END_OF_STREAM, Layout, compressed_batch, record_batch};
use crate::stream::epoch::Epoch;
use crate::stream::making::Output;
use crate::stream::permits::Permit;
use crate::stream::running::RunningStream;

/// One encoded batch: the bytes that go out.
struct EncodedBatch {
    /// What precedes the body, with the message's checksum.
    head: Bytes,
    body: Bytes,
}

/// A batch that is written into a pooled buffer, and sent from there.
struct ToSocket {
    memory: BatchMemory,
}

impl Output for ToSocket {
    type Body = BytesMut;
    type Batch = EncodedBatch;

    fn open(&mut self, epoch: &Epoch, len: usize) -> BytesMut {
        epoch.engine.buffers.take(len, epoch.body_bytes_max())
    }

    fn complete(
        self,
        epoch: &Epoch,
        n: u64,
        layout: &Layout,
        body: BytesMut,
    ) -> anyhow::Result<EncodedBatch> {
        let ToSocket { mut memory } = self;
        let body = epoch.engine.buffers.lend(body);
        Ok(match epoch.codec {
            None => {
                let body = Bytes::from_owner(Sent { _memory: memory, bytes: body });
                let head = epoch.head(n, layout);
                EncodedBatch { head: head.with(head.checksum(&body, n)).into(), body }
            }
            Some(codec) => {
                let batch = record_batch(&epoch.schema, layout, Bytes::from_owner(body))?;
                let (head, body) = compressed_batch(&batch, codec, epoch.opening.1, n)?;
                drop(batch);
                // It may have grown to twice its length.
                memory.shrink_to(2 * body.len() as u64);
                EncodedBatch { head, body: Bytes::from_owner(Sent { _memory: memory, bytes: body }) }
            }
        })
    }
}

/// Bytes on their way to the client, and the memory that they take.
struct Sent<B> {
    // Given back first, so that a buffer finds room among the idle ones.
    _memory: BatchMemory,
    bytes: B,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Sent<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// Memory that one batch of an epoch takes at most, from its beginning until it is sent.
pub(crate) fn batch_bytes(epoch: &Epoch) -> u64 {
    let body = epoch.body_bytes_max() as u64;
    match epoch.codec {
        None => body,
        // Beside the body stand its compressed buffers, which may have grown to twice their length.
        Some(_) => 3 * body,
    }
}

/// The chunks of an epoch, whose stream has a batch of its own. The permit is held until the last chunk is
/// taken, or the stream dropped.
///
/// # Errors
/// When the first batch cannot be made.
pub(crate) async fn chunks(
    epoch: Arc<Epoch>,
    permit: Permit,
    own: OwnBatch,
    running: RunningStream,
) -> Result<impl Stream<Item = Result<Bytes, BrokenStream>>, BrokenStream> {
    // Those that are ready to send: at most the schema, and a header and its body.
    let mut ready = VecDeque::from([epoch.opening.0.clone()]);
    let mut batches = Batches::new(epoch, permit, running);
    ask_ahead(&mut batches, &own);
    if let Some(first) = batches.first().await? {
        ask_ahead(&mut batches, &own);
        ready.extend([first.head, first.body]);
    }
    let chunks =
        try_unfold((batches, own, ready, false), async |(mut batches, own, mut ready, mut ended)| {
            if ready.is_empty() && !ended {
                ask_ahead(&mut batches, &own);
                while !batches.has_next() {
                    // The connection still has the stream's own batch, and there is no memory for another.
                    own.returned().await;
                    ask_ahead(&mut batches, &own);
                }
                let next = batches.next(true).await;
                if next.is_err() {
                    // What is ready goes out first: the client sees an answer that was cut, and not none.
                    tokio::task::yield_now().await;
                }
                match next? {
                    Some(batch) => {
                        ask_ahead(&mut batches, &own);
                        ready.extend([batch.head, batch.body]);
                    }
                    None => {
                        ended = true;
                        ready.push_back(Bytes::from_static(&END_OF_STREAM));
                    }
                }
            }
            let Some(chunk) = ready.pop_front() else { return Ok(None) };
            batches.running.sent(chunk.len() as u64);
            Ok(Some((chunk, (batches, own, ready, ended))))
        });
    Ok(chunks)
}

/// Keeps `batches_ahead` batches in production, as far as there is memory: the stream's own for one of them,
/// for the others what is left.
fn ask_ahead(batches: &mut Batches<EncodedBatch>, own: &OwnBatch) {
    while batches.wants_more() {
        let epoch = &batches.epoch;
        let spare = || epoch.engine.spare_batch(batch_bytes(epoch));
        let Some(memory) = own.take().or_else(spare) else { break };
        batches.ask(ToSocket { memory });
    }
}
