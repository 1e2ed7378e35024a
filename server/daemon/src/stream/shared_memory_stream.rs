//! One epoch through shared memory; `pba_wire::shared_memory` describes the protocol.
//!
//! The workers render directly into a slot of the shared memory, and a short record tells the client its
//! location. The kernel copies nothing. The rules are those of the plain stream: at most `batches_ahead`
//! batches are in production, a client that gives no slot back is sent nothing more and is cut after
//! `stall_seconds`, and a stream that fails ends without its last record.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pba_wire::shared_memory::{BATCHES_MAX, READY, Record};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use crate::local::LocalSocket;
use crate::stream::batches::Batches;
use crate::stream::encode::END_OF_STREAM;
use crate::stream::engine::Engine;
use crate::stream::epoch::Epoch;
use crate::stream::shared_memory::{Memory, Slot};

/// A client confirms the answer within this time, or counts as gone.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// A batch in its slot.
struct Filled {
    slot: Slot,
    offset: u64,
    bytes: u64,
}

/// An epoch that is about to be sent.
pub(crate) struct SharedMemoryStream {
    batches: Batches<Filled>,
    memory: Memory,
    free: Vec<Slot>,
    /// Slots that the client holds, by number.
    held: Vec<Option<Slot>>,
    /// How many it may hold.
    held_max: usize,
}

impl SharedMemoryStream {
    /// Creates the shared memory for an epoch of which the client wants to hold `wanted` batches.
    ///
    /// # Errors
    /// Returns the permit when there is no shared memory available; the plain stream works as well.
    pub(crate) fn new(
        engine: &Arc<Engine>,
        epoch: &Arc<Epoch>,
        permit: OwnedSemaphorePermit,
        wanted: usize,
    ) -> Result<SharedMemoryStream, (OwnedSemaphorePermit, anyhow::Error)> {
        // Short streams need no more slots than they have batches.
        let batches = usize::try_from(epoch.plan().batches()).unwrap_or(usize::MAX).max(1);
        let held_max = wanted.clamp(1, BATCHES_MAX).min(batches);
        let slots = held_max + engine.limits.batches_ahead.min(batches);
        let memory = epoch
            .schema_message()
            .and_then(|schema| Ok(Memory::new(&engine.shared_memory, &schema, slots, epoch.slot_bytes())?));
        match memory {
            Ok((memory, free)) => Ok(SharedMemoryStream {
                batches: Batches::new(Arc::clone(engine), Arc::clone(epoch), permit),
                memory,
                held: free.iter().map(|_| None).collect(),
                free,
                held_max,
            }),
            Err(error) => Err((permit, error)),
        }
    }

    /// Sends the epoch on the connection that was upgraded for it.
    pub(crate) async fn run(self, upgrade: OnUpgrade) {
        let sent = match control_socket(upgrade).await {
            Ok(socket) => self.send(&socket).await,
            Err(error) => Err(error),
        };
        // The client may leave at any moment: that is its right, and no error.
        if let Err(error) = sent {
            tracing::debug!(error = format!("{error:#}"), "stream through shared memory ended");
        }
    }

    /// The complete stream.
    ///
    /// # Errors
    /// When the client left, stalled or sent invalid data, or a batch failed. The socket is then closed
    /// without the last record, which tells the client that the stream was cut.
    async fn send(mut self, socket: &UnixStream) -> anyhow::Result<()> {
        let stall = self.batches.engine().limits.stall();
        let mut words = Words::new();
        self.ask_ahead();
        let ready =
            timeout(READY_TIMEOUT, words.read(socket)).await.context("the client does not answer")??;
        ensure!(ready == Some(&[READY]), "the client's first message is invalid");
        self.send_open(socket)?;
        let metrics = self.batches.engine().metrics.clone();
        metrics.stream_bytes.inc_by(self.memory.schema_bytes() as u64);
        loop {
            self.ask_ahead();
            // It looks at one batch, and may have another to give back; what it holds beyond these
            // lies ready.
            let is_awaited = self.held_count() <= 2;
            let has_next = self.batches.has_next();
            let batches = &mut self.batches;
            tokio::select! {
                batch = std::future::poll_fn(|context| batches.poll_next(context, is_awaited)), if has_next => {
                    let Some(batch) = batch else { break };
                    let Filled { slot, offset, bytes } = batch?;
                    let number = slot.number();
                    self.held[number as usize] = Some(slot);
                    say(socket, Record::Batch { slot: number, offset, bytes })?;
                    metrics.stream_bytes.inc_by(bytes);
                }
                released = words.read(socket) => match released? {
                    None => bail!("the client left"),
                    Some(released) => {
                        for number in released {
                            let held = self.held.get_mut(*number as usize).and_then(Option::take);
                            self.free.push(held.with_context(|| format!("slot {number} is not held"))?);
                        }
                    }
                },
                // Only while there is nothing that the client could be sent.
                () = sleep(stall), if !has_next => bail!("the client stalled"),
            }
        }
        // Counted as the plain stream counts it, so that both tell the same.
        metrics.stream_bytes.inc_by(END_OF_STREAM.len() as u64);
        say(socket, Record::End)
    }

    fn held_count(&self) -> usize {
        self.held.iter().flatten().count()
    }

    /// Keeps batches in production, as far as there are slots for them.
    fn ask_ahead(&mut self) {
        while self.batches.wants_more()
            // The slot used last is the one that is still in the cache.
            && let Some(mut slot) = self.free.pop()
        {
            self.batches.ask(move |epoch, n, workspace, engine| {
                let start = slot.offset() as u64;
                let message = epoch.batch_into(n, slot.as_mut(), workspace, &engine.metrics)?;
                Ok(Filled { slot, offset: start + message.start as u64, bytes: message.len() as u64 })
            });
        }
    }

    /// Hands over the shared memory.
    fn send_open(&self, socket: &UnixStream) -> anyhow::Result<()> {
        let record = Record::Open {
            batches: self.held_max as u32,
            bytes: self.memory.bytes() as u64,
            schema_bytes: self.memory.schema_bytes() as u64,
        };
        let descriptors = [self.memory.descriptor()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ensure!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)), "no room for a descriptor");
        let bytes = record.to_bytes();
        let sent = sendmsg(socket, &[io::IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        ensure!(sent == bytes.len(), "the socket is full");
        Ok(())
    }
}

/// Sends a record. No more records are in flight than slots, which any socket has room for; a full socket
/// means a misbehaving client.
fn say(socket: &UnixStream, record: Record) -> anyhow::Result<()> {
    let bytes = record.to_bytes();
    ensure!(socket.try_write(&bytes)? == bytes.len(), "the socket is full");
    Ok(())
}

/// The connection's socket, without its HTTP wrappers.
async fn control_socket(upgrade: OnUpgrade) -> anyhow::Result<UnixStream> {
    let upgraded = upgrade.await?;
    let Ok(parts) = upgraded.downcast::<TokioIo<LocalSocket>>() else {
        bail!("the connection is not a Unix socket");
    };
    ensure!(parts.read_buf.is_empty(), "the client sent data before it was answered");
    // The wrapper cannot be taken apart, so its socket is used through a descriptor of its own.
    let socket = parts.io.into_inner().get_ref().as_fd().try_clone_to_owned()?;
    Ok(UnixStream::from_std(socket.into())?)
}

/// Numbers that arrive on a socket, in pieces of any length.
struct Words {
    bytes: [u8; 4 * BATCHES_MAX],
    /// First bytes of a number that has not arrived completely.
    rest: usize,
    numbers: Vec<u32>,
}

impl Words {
    fn new() -> Words {
        Words { bytes: [0; 4 * BATCHES_MAX], rest: 0, numbers: Vec::new() }
    }

    /// The numbers that have arrived; none when the peer has closed. May be dropped while it waits.
    async fn read(&mut self, socket: &UnixStream) -> io::Result<Option<&[u32]>> {
        loop {
            socket.readable().await?;
            let count = match socket.try_read(&mut self.bytes[self.rest..]) {
                Ok(0) => return Ok(None),
                Ok(count) => self.rest + count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            let (words, rest) = self.bytes[..count].as_chunks::<4>();
            self.numbers.clear();
            self.numbers.extend(words.iter().map(|word| u32::from_le_bytes(*word)));
            self.rest = rest.len();
            self.bytes.copy_within(count - self.rest..count, 0);
            if !self.numbers.is_empty() {
                return Ok(Some(&self.numbers));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn numbers_arrive_in_pieces() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let mut words = Words::new();
        client.write_all(&[1, 0, 0, 0, 2, 0]).await.unwrap();
        assert_eq!(words.read(&server).await.unwrap(), Some(&[1][..]));
        client.write_all(&[0, 0, 3, 0, 0, 1]).await.unwrap();
        assert_eq!(words.read(&server).await.unwrap(), Some(&[2, 0x0100_0003][..]));
        client.write_all(&[9]).await.unwrap();
        drop(client);
        assert_eq!(words.read(&server).await.unwrap(), None);
    }
}
