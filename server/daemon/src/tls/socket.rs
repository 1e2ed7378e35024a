//! The sockets of the TLS port.
//!
//! The handshake is a part of reading: it is done when the server first asks for bytes of the client. So whatever bounds a
//! connection that has sent no request yet bounds its handshake too, in the same time: its place among the
//! connections, the time for a request's head, the end of the server.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::metrics::{Handshake, Metrics};

/// The first byte of a TLS handshake. No method of HTTP begins with it.
const HANDSHAKE: u8 = 0x16;
/// Bytes that are encrypted at a time, and may wait for the network: this much memory of each connection at most. Each such
/// piece costs a system call, which takes much less time than copying the piece does.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// A port that speaks TLS.
pub(crate) struct TlsPort {
    config: watch::Receiver<Arc<ServerConfig>>,
    /// Its own address, for those who ask it in plain HTTP.
    address: SocketAddr,
    metrics: Metrics,
}

impl TlsPort {
    pub(crate) fn new(
        config: watch::Receiver<Arc<ServerConfig>>,
        address: SocketAddr,
        metrics: Metrics,
    ) -> TlsPort {
        TlsPort { config, address, metrics }
    }

    /// The socket of a connection, which gets the certificate that there is now.
    pub(crate) fn accept(&self, socket: TcpStream) -> TlsSocket {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config.borrow()));
        let plain_text = PlainText { is_spoken: Arc::default(), port: self.address.port() };
        TlsSocket { state: State::New(socket, acceptor), plain_text, metrics: self.metrics.clone() }
    }
}

/// Whether a client of a TLS port speaks plain HTTP.
#[derive(Clone)]
pub(crate) struct PlainText {
    is_spoken: Arc<AtomicBool>,
    /// The port that it should speak TLS to.
    pub(crate) port: u16,
}

impl PlainText {
    pub(crate) fn is_spoken(&self) -> bool {
        self.is_spoken.load(Ordering::Relaxed)
    }
}

/// The socket of a client, which speaks TLS or, by mistake, plain HTTP.
pub(crate) struct TlsSocket {
    state: State,
    plain_text: PlainText,
    metrics: Metrics,
}

enum State {
    /// Nothing was read yet.
    New(TcpStream, TlsAcceptor),
    Handshake(Box<Accept<TcpStream>>),
    Open(Box<TlsStream<TcpStream>>),
    /// Of a client that speaks no TLS, or leaves at once.
    Plain(TcpStream),
    Failed,
}

impl TlsSocket {
    /// Whether its client speaks plain HTTP, once something was read.
    pub(crate) fn plain_text(&self) -> PlainText {
        self.plain_text.clone()
    }

    /// Waits until bytes of HTTP can come.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.state {
                State::New(socket, _) => {
                    let mut byte = [0];
                    let count = ready!(socket.poll_peek(context, &mut ReadBuf::new(&mut byte)))?;
                    let State::New(socket, acceptor) = std::mem::replace(&mut self.state, State::Failed)
                    else {
                        unreachable!("it was new just now")
                    };
                    self.state = match (count, byte) {
                        (1.., [HANDSHAKE]) => {
                            let limit = |session: &mut rustls::ServerConnection| {
                                session.set_buffer_limit(Some(BUFFER_BYTES_MAX));
                            };
                            State::Handshake(Box::new(acceptor.accept_with(socket, limit)))
                        }
                        (1.., _) => {
                            self.plain_text.is_spoken.store(true, Ordering::Relaxed);
                            self.metrics.shook_hands(Handshake::PlainText);
                            State::Plain(socket)
                        }
                        (0, _) => State::Plain(socket),
                    };
                }
                State::Handshake(accept) => match ready!(Pin::new(&mut **accept).poll(context)) {
                    Ok(stream) => {
                        self.metrics.shook_hands(Handshake::Done);
                        self.state = State::Open(Box::new(stream));
                    }
                    Err(error) => {
                        self.metrics.shook_hands(Handshake::Failed);
                        self.state = State::Failed;
                        tracing::debug!(%error, "TLS handshake failed");
                        return Poll::Ready(Err(error));
                    }
                },
                State::Open(_) | State::Plain(_) => return Poll::Ready(Ok(())),
                State::Failed => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            }
        }
    }
}

impl Drop for TlsSocket {
    fn drop(&mut self) {
        if let State::Handshake(_) = self.state {
            self.metrics.shook_hands(Handshake::Failed);
            tracing::debug!("TLS handshake not ended in time");
        }
    }
}

/// Calls a method of the socket that a state holds once that is open.
macro_rules! forward {
    ($self:ident, $context:ident, $method:ident $(, $argument:expr)*) => {{
        ready!($self.poll_open($context))?;
        match &mut $self.state {
            State::Open(stream) => Pin::new(&mut **stream).$method($context $(, $argument)*),
            State::Plain(socket) => Pin::new(socket).$method($context $(, $argument)*),
            _ => unreachable!("it is open"),
        }
    }};
}

impl AsyncRead for TlsSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self, context, poll_read, buffer)
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self, context, poll_write, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, context, poll_write_vectored, parts)
    }

    fn is_write_vectored(&self) -> bool {
        // Of both kinds.
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Open(stream) => Pin::new(&mut **stream).poll_flush(context),
            // Nothing was written that a system call has not taken.
            State::New(..) | State::Handshake(_) | State::Plain(_) | State::Failed => Poll::Ready(Ok(())),
        }
    }

    /// Says that this is the end, by which a client tells it from a cut.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Open(stream) => Pin::new(&mut **stream).poll_shutdown(context),
            State::New(socket, _) | State::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            // Dropping it closes it.
            State::Handshake(_) | State::Failed => Poll::Ready(Ok(())),
        }
    }
}
