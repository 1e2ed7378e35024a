//! Connections of clients on this machine.

use std::pin::Pin;

use tokio::net::UnixStream;
use tokio_io_timeout::TimeoutStream;

/// A connection for HTTP: a socket that fails when a write makes no progress.
pub(crate) type Patient<S> = Pin<Box<TimeoutStream<S>>>;
/// The same for clients on this machine.
pub(crate) type LocalSocket = Patient<UnixStream>;

/// Marks a request that came through the Unix socket.
#[derive(Clone, Copy)]
pub(crate) struct Local;
