//! Whether the client of a connection takes what it is given.
//!
//! What counts is a whole piece of an answer: a batch of a stream, or an answer that is given at once. A bound on
//! the time between bytes would be none, because a client that takes a byte every few minutes would keep its
//! stream, its batches and its connection for ever; a bound on bytes per second would cut a trainer that pauses,
//! which trains, saves its model or evaluates it for minutes, and takes nothing meanwhile. A trainer takes whole
//! batches. So the time from giving a piece to having it taken is bounded, by `stall_seconds`: it has room for a
//! pause and a slow network, and a client that wants to keep its stream has to take a batch within each such time, as a slow
//! trainer does. Shared memory does the same, by its slots.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;

/// What a connection has been given and has not taken.
#[derive(Debug)]
pub(crate) struct Pace {
    patience: Duration,
    opened: Instant,
    /// Milliseconds after `opened`, plus one, when it was given a piece; 0 when it has taken everything.
    given: AtomicU64,
    has_stalled: AtomicBool,
}

impl Pace {
    /// The pace of a new connection, which has to take each piece within `patience`.
    pub(crate) fn new(patience: Duration) -> Arc<Pace> {
        Arc::new(Pace {
            patience,
            opened: Instant::now(),
            given: AtomicU64::new(0),
            has_stalled: AtomicBool::new(false),
        })
    }

    fn give(&self) {
        self.given.store(self.opened.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
    }

    fn take(&self) {
        self.given.store(0, Ordering::Relaxed);
    }

    /// Is done when a piece was not taken in time, and never otherwise.
    pub(crate) async fn stalled(&self) {
        loop {
            let left = match self.given.load(Ordering::Relaxed) {
                // What is given from now on has at least as much time.
                0 => self.patience,
                given => {
                    let waited = self.opened.elapsed().saturating_sub(Duration::from_millis(given - 1));
                    self.patience.saturating_sub(waited)
                }
            };
            if left.is_zero() {
                self.has_stalled.store(true, Ordering::Relaxed);
                return;
            }
            // A moment more, so that a rounded sleep is not repeated.
            sleep(left + Duration::from_millis(2)).await;
        }
    }

    /// Whether a piece was not taken in time, for which the connection is cut.
    pub(crate) fn has_stalled(&self) -> bool {
        self.has_stalled.load(Ordering::Relaxed)
    }
}

/// A socket that tells when everything written has been taken from this process.
pub(crate) struct PacedSocket<S> {
    socket: S,
    pace: Arc<Pace>,
}

impl<S> PacedSocket<S> {
    pub(crate) fn new(socket: S, pace: Arc<Pace>) -> PacedSocket<S> {
        PacedSocket { socket, pace }
    }

    /// The socket itself.
    pub(crate) fn get_ref(&self) -> &S {
        &self.socket
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// Called by hyper once all that it has was written, and only then.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(context))?;
        self.pace.take();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// The body of an answer, whose pieces its connection has to take.
pub(crate) struct PacedBody {
    body: Body,
    pace: Arc<Pace>,
}

impl PacedBody {
    pub(crate) fn new(body: Body, pace: Arc<Pace>) -> PacedBody {
        PacedBody { body, pace }
    }
}

impl HttpBody for PacedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_some() {
            self.pace.give();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
