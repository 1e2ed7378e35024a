//! One epoch through shared memory; `pba_wire::shared_memory` describes the protocol.
//!
//! The workers render directly into a slot of the shared memory, and a short record tells the client its
//! location. The kernel copies nothing. The rules are those of the plain stream: at most `batches_ahead`
//! batches are in production, a client that gives no slot back is sent nothing more and is cut after
//! `stall_seconds`, and a stream that fails ends without its last record.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::StreamExt;
use futures_util::stream::unfold;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use pba_wire::shared_memory::{BATCHES_MAX, READY, Record};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::pace::PacedSocket;
use crate::stream::batches::{Batches, BrokenStream};
use crate::stream::buffers::Divisible;
use crate::stream::connections::Connection;
use crate::stream::encode::{END_OF_STREAM, Layout};
use crate::stream::epoch::Epoch;
use crate::stream::making::Output;
use crate::stream::permits::Permit;
use crate::stream::running::{RunningStream, STALLED};
use crate::stream::shared_memory::{Memory, Slot};
use crate::stream::slots::{Numbered, Slots};

/// A client confirms the answer within this time, or counts as gone.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is asked whether the memory of a stream that has ended is still used.
const KEPT_POLL: Duration = Duration::from_secs(1);

/// Marks a request that came through the Unix socket.
#[derive(Clone, Copy)]
pub(crate) struct Local;

/// A batch in its slot.
struct Filled {
    slot: Slot,
    offset: u64,
    bytes: u64,
}

/// Bytes for a batch's header in front of its body, in a slot; one page, so that bodies are
/// page-aligned. Headers take some 500 bytes.
const SLOT_HEADER_BYTES: usize = 4096;

/// Batches that are written into a slot, uncompressed.
struct ToSlot {
    slot: Slot,
    /// What the batch leaves of it.
    after: Option<Slot>,
}

impl Output for ToSlot {
    type Body = Slot;
    type Batch = Filled;

    fn open(&mut self, _: &Epoch, len: usize) -> Slot {
        let mut body = self.slot.split_off(SLOT_HEADER_BYTES);
        // Of a short batch; what comes after is unchanged.
        self.after = Some(body.split_off(len));
        body
    }

    fn complete(self, epoch: &Epoch, n: u64, layout: &Layout, body: Slot) -> anyhow::Result<Filled> {
        let ToSlot { mut slot, after } = self;
        let (head, room) = (epoch.head(n, layout), slot.as_mut());
        let head = head.unset();
        ensure!(head.len() <= room.len(), "the head of a batch takes {} bytes", head.len());
        let start = room.len() - head.len();
        room[start..].copy_from_slice(head);
        slot.unsplit(body);
        after.into_iter().for_each(|after| slot.unsplit(after));
        Ok(Filled { offset: (slot.offset() + start) as u64, bytes: (head.len() + layout.len) as u64, slot })
    }
}

/// An epoch that is about to be sent.
pub(crate) struct SharedMemoryStream {
    epoch: Arc<Epoch>,
    memory: Memory,
    slots: Slots<Slot>,
    /// How many of them the client may hold.
    held_max: usize,
}

impl SharedMemoryStream {
    /// Creates the shared memory for an epoch of which the client wants to hold `wanted` batches.
    ///
    /// # Errors
    /// When there is no shared memory available; the plain stream works as well.
    pub(crate) fn new(epoch: &Arc<Epoch>, wanted: usize) -> anyhow::Result<SharedMemoryStream> {
        // Short streams need no more slots than they have batches.
        let batches = usize::try_from(epoch.plan.batches()).unwrap_or(usize::MAX).max(1);
        let held_max = wanted.clamp(1, BATCHES_MAX).min(batches);
        let count = held_max + epoch.engine.limits.batches_ahead.min(batches);
        let (schema, _) = &epoch.opening;
        let (memory, slots) = Memory::new(
            &epoch.engine.shared_memory,
            schema,
            count,
            SLOT_HEADER_BYTES + epoch.body_bytes_max(),
        )?;
        Ok(SharedMemoryStream { epoch: Arc::clone(epoch), memory, slots: Slots::new(slots), held_max })
    }

    /// Begins to make its batches.
    ///
    /// # Errors
    /// When the first one cannot be made.
    pub(crate) async fn begin(
        mut self,
        permit: Permit,
        running: RunningStream,
    ) -> Result<Begun, BrokenStream> {
        let mut batches = Batches::new(Arc::clone(&self.epoch), permit, running);
        self.ask_ahead(&mut batches);
        let first = batches.first().await?;
        Ok(Begun { stream: self, batches, first })
    }

    /// The complete stream.
    ///
    /// # Errors
    /// When the client left, stalled or sent invalid data, or a batch failed. The socket is then closed
    /// without the last record, which tells the client that the stream was cut.
    async fn send(
        mut self,
        mut batches: Batches<Filled>,
        first: Option<Filled>,
        mut socket: UnixStream,
    ) -> anyhow::Result<()> {
        let epoch = Arc::clone(&self.epoch);
        let stall = Duration::from_secs(epoch.engine.limits.stall_seconds);
        let (reader, writer) = socket.split();
        let socket: &UnixStream = writer.as_ref();
        let mut reader = BufReader::new(reader);
        self.ask_ahead(&mut batches);
        let Ok(ready) = timeout(READY_TIMEOUT, reader.read_u32_le()).await else {
            return cut(&batches, "the client does not answer");
        };
        // It holds no slot yet that it could give back.
        if ready? != READY || !reader.buffer().is_empty() {
            return cut(&batches, "the client's first message is invalid");
        }
        let words = unfold(reader, async |mut reader| Some((reader.read_u32_le().await, reader)));
        let mut words = pin!(words);
        self.send_open(socket)?;
        batches.running.sent(self.memory.schema_bytes() as u64);
        if let Some(first) = first {
            self.hand_over(socket, first, &batches)?;
        }
        loop {
            self.ask_ahead(&mut batches);
            // It looks at one batch, and may have another to give back; what it holds beyond these
            // lies ready.
            let is_awaited = self.slots.held() <= 2;
            let has_next = batches.has_next();
            tokio::select! {
                batch = batches.next(is_awaited), if has_next => {
                    let Some(batch) = batch? else { break };
                    self.hand_over(socket, batch, &batches)?;
                }
                Some(released) = words.next() => {
                    let number = released.context("the client left")?;
                    if !self.slots.give_back(number) {
                        return cut(&batches, "the client gave back what it does not hold");
                    }
                }
                // Only while there is nothing that the client could be sent.
                () = sleep(stall), if !has_next => return cut(&batches, STALLED),
            }
        }
        // Counted as the plain stream counts it, so that both tell the same.
        batches.running.sent(END_OF_STREAM.len() as u64);
        say(socket, Record::End)
    }

    fn hand_over(&mut self, socket: &UnixStream, batch: Filled, of: &Batches<Filled>) -> anyhow::Result<()> {
        let Filled { slot, offset, bytes } = batch;
        let number = slot.number();
        self.slots.hand_over(slot);
        say(socket, Record::Batch { slot: number, offset, bytes })?;
        of.running.sent(bytes);
        Ok(())
    }

    /// Keeps batches in production, as far as there are slots for them.
    fn ask_ahead(&mut self, batches: &mut Batches<Filled>) {
        while batches.wants_more()
            && let Some(slot) = self.slots.take()
        {
            batches.ask(ToSlot { slot, after: None });
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
        let sent = sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        ensure!(sent == bytes.len(), "the socket is full");
        Ok(())
    }
}

/// An epoch that is being made, and whose client is to be told so.
pub(crate) struct Begun {
    stream: SharedMemoryStream,
    batches: Batches<Filled>,
    first: Option<Filled>,
}

impl Begun {
    /// Sends the epoch on the connection that was upgraded for it, which is open until then.
    pub(crate) async fn run(self, upgrade: OnUpgrade, connection: Option<Connection>) {
        let Begun { stream, batches, first } = self;
        let (engine, number) = (Arc::clone(&stream.epoch.engine), stream.memory.number());
        let sent = async { stream.send(batches, first, control_socket(upgrade).await?).await };
        // The client may leave at any moment: that is its right, and no error.
        if let Err(error) = sent.await {
            tracing::debug!(error = format!("{error:#}"), "stream through shared memory ended");
        }
        drop(connection);
        // A worker may have a slot of it yet, and the client keeps what it holds.
        while engine.shared_memory.is_used(number) {
            sleep(KEPT_POLL).await;
        }
    }
}

/// Ends a stream because of its client.
fn cut(batches: &Batches<Filled>, reason: &'static str) -> anyhow::Result<()> {
    batches.running.cut(reason);
    bail!(reason)
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
    let Ok(parts) = upgraded.downcast::<TokioIo<PacedSocket<UnixStream>>>() else {
        bail!("the connection is not a Unix socket");
    };
    ensure!(parts.read_buf.is_empty(), "the client sent data before it was answered");
    // The wrapper cannot be taken apart, so its socket is used through a descriptor of its own.
    let socket = parts.io.into_inner().get_ref().as_fd().try_clone_to_owned()?;
    Ok(UnixStream::from_std(socket.into())?)
}
