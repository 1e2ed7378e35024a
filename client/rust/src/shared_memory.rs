//! Batches through shared memory of a server on the same machine; [`pba_wire::shared_memory`] describes the
//! protocol.
//!
//! This is the one file of the client with unsafe code. What makes it sound: the memory is sealed, so
//! it cannot shrink under its mapping and only the server can write to it; and the server writes a slot
//! only before it hands it over and after it was given back, which happens when the last buffer over it
//! is dropped.

#![allow(unsafe_code, reason = "buffers over a shared mapping; see above")]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_buffer::Buffer;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use memmap2::Mmap;
use pba_wire::shared_memory::{BATCHES_HEADER, PROTOCOL, READY, RECORD_BYTES, Record};
use reqwest::header::{AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderValue, UPGRADE, USER_AGENT};
use reqwest::{Body, StatusCode};
use rustix::fs::{SealFlags, fcntl_get_seals};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, Shutdown, recvmsg, send, shutdown,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::address::{Address, Request};
use crate::error::ClientError;
use crate::options::AGENT;

/// Batches that may be held while the next ones are produced. Further batches are copies.
const BATCHES_HELD: usize = 6;

/// How a server on a Unix socket answers a request for an epoch.
pub(crate) enum Answer {
    /// With shared memory.
    Shared(Box<SharedMemoryStream>),
    /// As over TCP: an error, or a stream, if it cannot or will not use shared memory.
    Plain(reqwest::Response),
}

/// Requests `path` from the server at a socket, through shared memory if possible.
///
/// # Errors
/// When it cannot be reached, or its shared memory is not that of a PBA server.
pub(crate) async fn ask(
    address: &Address,
    socket: &str,
    path: &str,
    authorization: Option<&HeaderValue>,
) -> Result<Answer, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| address.unreachable(&error))?;
    let asked = Request::get(path);
    let unanswered = |error: &(dyn std::error::Error + 'static)| address.unanswered(asked, error);
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| unanswered(&error))?;
    // Ends with the connection; its errors are reported where it is read.
    tokio::spawn(connection.with_upgrades());
    let request = authorization
        .into_iter()
        .fold(hyper::Request::get(path), |request, value| request.header(AUTHORIZATION, value))
        .header(HOST, "localhost")
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, PROTOCOL)
        .header(BATCHES_HEADER, BATCHES_HELD)
        .body(Body::default())
        .map_err(|error| ClientError::Stream(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| unanswered(&error))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Answer::Plain(response.map(Body::wrap).into()));
    }
    let headers = response.headers().clone();
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| unanswered(&error))?;
    let parts = upgraded
        .downcast::<TokioIo<UnixStream>>()
        .map_err(|_| ClientError::Stream("the connection is no longer a Unix socket".to_owned()))?;
    if !parts.read_buf.is_empty() {
        return Err(ClientError::Stream("the server sent data too early".to_owned()));
    }
    let memory = SharedMemoryStream::open(headers, parts.io.into_inner()).await;
    memory.map(|memory| Answer::Shared(Box::new(memory))).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => ClientError::Stream(error.to_string()),
        _ => unanswered(&error),
    })
}

/// The mapping, and the socket over which its slots are given back.
struct Memory {
    map: Mmap,
    socket: OwnedFd,
    /// Slots that the client holds.
    held: AtomicUsize,
}

/// Keeps a batch's slot; gives it back with the last buffer over it.
struct Slot {
    memory: Arc<Memory>,
    number: u32,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(1, Ordering::Relaxed);
        // There are fewer slots than numbers that any socket has room for, and a server that is gone
        // wants nothing back.
        let _ =
            send(&self.memory.socket, &self.number.to_le_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

/// The messages of one stream, in shared memory.
pub(crate) struct SharedMemoryStream {
    /// Of the answer that it comes with.
    headers: HeaderMap,
    socket: UnixStream,
    arriving: Arriving,
    memory: Arc<Memory>,
    /// Slots that may be held.
    held_max: usize,
    /// The schema's message, until it is taken.
    schema: Option<Buffer>,
}

impl SharedMemoryStream {
    /// Takes over the shared memory.
    ///
    /// # Errors
    /// Those of the socket; and of kind `InvalidData` when the server breaks the protocol.
    async fn open(headers: HeaderMap, socket: UnixStream) -> io::Result<SharedMemoryStream> {
        let ready = READY.to_le_bytes();
        if send(&socket, &ready, SendFlags::NOSIGNAL)? != ready.len() {
            return Err(broken("the socket has no room for four bytes"));
        }
        let mut arriving = Arriving::default();
        let record = arriving.next(&socket).await?;
        let (Some(Record::Open { batches, bytes, schema_bytes }), Some(descriptor)) =
            (record, arriving.descriptor.take())
        else {
            return Err(broken("the server shares no memory, although it said it would"));
        };
        let file = File::from(descriptor);
        if !fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) || file.metadata()?.len() < bytes {
            return Err(broken("the server's shared memory could be truncated while in use"));
        }
        // SAFETY: the file cannot be cut off, and a part of it that is written comes from the server
        // (see above).
        let map = unsafe { Mmap::map(&file) }?;
        let schema = part(&map, 0, schema_bytes).map(Buffer::from);
        if schema.is_none() {
            return Err(broken("the server's shared memory is shorter than its schema"));
        }
        let memory =
            Arc::new(Memory { map, socket: socket.as_fd().try_clone_to_owned()?, held: AtomicUsize::new(0) });
        let held_max = batches as usize;
        Ok(SharedMemoryStream { headers, socket, arriving, memory, held_max, schema })
    }

    /// Headers of the answer that it comes with.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The next message, the schema's first; none at the end of the stream. May be dropped while it
    /// waits.
    ///
    /// # Errors
    /// When the stream was cut, or the server breaks the protocol.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Buffer>> {
        if let Some(schema) = self.schema.take() {
            return Ok(Some(schema));
        }
        let (slot, offset, bytes) = match self.arriving.next(&self.socket).await? {
            Some(Record::Batch { slot, offset, bytes }) => (slot, offset, bytes),
            Some(Record::End) => return Ok(None),
            _ => return Err(broken("the server sent an invalid record")),
        };
        let message = part(&self.memory.map, offset, bytes)
            .ok_or_else(|| broken("the server sent a batch outside its shared memory"))?;
        let held = self.memory.held.fetch_add(1, Ordering::Relaxed) + 1;
        let slot = Slot { memory: Arc::clone(&self.memory), number: slot };
        if held > self.held_max {
            // With so many held, further batches are copies, and the stream continues.
            return Ok(Some(Buffer::from(message)));
        }
        // SAFETY: the slot keeps the mapping, and this part of it is not written before the slot is
        // dropped, which happens with the last buffer.
        Ok(Some(unsafe {
            Buffer::from_custom_allocation(NonNull::from(message).cast(), message.len(), Arc::new(slot))
        }))
    }
}

impl Drop for SharedMemoryStream {
    /// The server notices at once, even while buffers keep the socket open.
    fn drop(&mut self) {
        // It may have closed already.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

/// A record that arrives in pieces of any length.
#[derive(Default)]
struct Arriving {
    record: [u8; RECORD_BYTES],
    length: usize,
    /// What came with it.
    descriptor: Option<OwnedFd>,
}

impl Arriving {
    /// The next record; none when its kind is unknown. May be dropped while it waits.
    async fn next(&mut self, socket: &UnixStream) -> io::Result<Option<Record>> {
        while self.length < RECORD_BYTES {
            socket.readable().await?;
            match socket.try_io(Interest::READABLE, || self.receive(socket)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => self.length += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.length = 0;
        Ok(Record::from_bytes(self.record))
    }

    fn receive(&mut self, socket: &UnixStream) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut rest = [io::IoSliceMut::new(&mut self.record[self.length..])];
        let received = recvmsg(socket, &mut rest, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                self.descriptor = descriptors.next().or(self.descriptor.take());
            }
        }
        Ok(received.bytes)
    }
}

fn part(map: &[u8], offset: u64, bytes: u64) -> Option<&[u8]> {
    map.get(usize::try_from(offset).ok()?..)?.get(..usize::try_from(bytes).ok()?)
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
