//! One connection: served until it ends, or refused for want of room.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::DATE;
use axum::response::IntoResponse;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::date;
use crate::error::{Cause, Error};
use crate::http::asked::Asked;
use crate::http::correlation::Correlation;
use crate::http::metrics_port::PROBES;
use crate::http::{plain_http, security};
use crate::metrics::Metrics;
use crate::pace::{Pace, PacedBody, PacedSocket};
use crate::stream::connections::{Connection, Connections};
use crate::stream::peer::Peer;
use crate::stream::permits::Refusal;
use crate::tls::socket::{PlainText, TlsSocket};

/// A client that takes longer to send a request's head is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request that a connection holds at most before the head is complete: with all connections taken,
/// half a gigabyte for ten seconds. A batch is queued as it is, however large.
const BUFFER_BYTES_MAX: usize = 128 << 10;
/// Time that such a connection gets to send its request, and as much again to take the answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The service for each kind of socket, and its settings.
pub(super) struct Service {
    pub(super) router: Router,
    pub(super) local_router: Router,
    /// A connection that takes longer than this for a piece of an answer is closed.
    pub(super) stall: Duration,
    pub(super) connections: Connections,
    /// Those for which there is no room.
    pub(super) refusals: Connections,
    pub(super) metrics: Metrics,
    /// Each connection holds a receiver while it is open, and ends when told, or when the sender is dropped.
    pub(super) ending: watch::Receiver<()>,
}

/// A socket of any kind.
pub(super) trait AnySocket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Tells whether its client speaks plain HTTP where TLS is spoken.
    fn plain_text(&self) -> Option<PlainText> {
        None
    }
}

impl AnySocket for TcpStream {}

impl AnySocket for UnixStream {}

impl AnySocket for TlsSocket {
    fn plain_text(&self) -> Option<PlainText> {
        Some(TlsSocket::plain_text(self))
    }
}

/// Serves a connection if there is room for it.
pub(super) fn take_in<S: AnySocket>(socket: S, peer: Peer, router: &Router, service: &Service) {
    match service.connections.open(peer.client) {
        Ok(connection) => serve(socket, peer, router, service, connection),
        Err(refusal) => refuse(socket, peer, router, service, refusal),
    }
}

/// Serves one HTTP/1.1 connection until it ends, or is told to end after its current request.
fn serve<S: AnySocket>(socket: S, peer: Peer, router: &Router, service: &Service, open: Connection) {
    let pace = Pace::new(service.stall);
    let plain_text = socket.plain_text();
    let socket = PacedSocket::new(socket, Arc::clone(&pace));
    let handler = TowerToHyperService::new(router.clone());
    let (given, used) = (Arc::clone(&pace), open.clone());
    let answers = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.client);
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(Arc::clone(&given));
        request.extensions_mut().insert(used.clone());
        let pace = Arc::clone(&given);
        let answer = match &plain_text {
            Some(plain_text) if plain_text.is_spoken() => Err((request, plain_text.port)),
            _ => Ok(handler.call(request)),
        };
        async move {
            let answer = match answer {
                Ok(answer) => answer.await?,
                Err((request, port)) => plain_http::refuse(&request, port).await,
            };
            let mut answer = answer.map(|body| PacedBody::new(body, pace));
            security::add(answer.headers_mut());
            date::now().and_then(|date| answer.headers_mut().insert(DATE, date));
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), answers)
        .with_upgrades();
    let mut ending = service.ending.clone();
    tokio::spawn(async move {
        let _open = open;
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            // Its stream ends without its end, and the client sees that it was cut.
            () = pace.stalled() => {
                tracing::debug!(client = %peer, "a client that takes nothing was cut off");
                return;
            }
            // An error says that the server is gone, which ends connections as well.
            _ = ending.changed() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! { ended = connection => ended, () = pace.stalled() => return }
            }
        };
        // The client may leave at any moment: that is its right, and no error.
        if let Err(error) = ended {
            tracing::debug!(client = %peer, %error, "connection ended");
        }
    });
}

/// Answers one request of a connection for which there is no room: a probe as always, so that what watches the
/// server knows how it is, and any other with a refusal. A connection that waited in the backlog instead would look
/// like a server that hangs. Those that would be too many of these are closed.
fn refuse<S: AnySocket>(socket: S, peer: Peer, router: &Router, service: &Service, refusal: Refusal) {
    let Ok(turn) = service.refusals.open(peer.client) else {
        service.metrics.connections_refused.inc();
        return;
    };
    let plain_text = socket.plain_text();
    let refused = Error::new(Cause::Connections, service.connections.explain(refusal));
    let (handler, metrics) = (TowerToHyperService::new(router.clone()), service.metrics.clone());
    let answers = service_fn(move |request: Request<Incoming>| {
        let (is_probe, asked) = (PROBES.contains(&request.uri().path()), Asked::by(&request));
        let correlation = Correlation::of(request.headers());
        let answer = match &plain_text {
            Some(plain_text) if plain_text.is_spoken() => Err((request, plain_text.port)),
            _ => Ok(is_probe.then(|| handler.call(request))),
        };
        let (refused, metrics) = (refused.clone(), metrics.clone());
        async move {
            let mut answer = match answer {
                Ok(Some(answer)) => answer.await?,
                Err((request, port)) => plain_http::refuse(&request, port).await,
                Ok(None) => {
                    metrics.connections_refused.inc();
                    let mut answer = asked.signed(refused.into_response()).await;
                    correlation.mark(&mut answer);
                    answer
                }
            };
            security::add(answer.headers_mut());
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .auto_date_header(false)
        .header_read_timeout(REFUSAL_TIMEOUT)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), answers)
        .without_shutdown();
    tokio::spawn(async move {
        let _turn = turn;
        let told = async {
            // The client may leave at any moment.
            let Ok(parts) = connection.await else { return };
            let mut socket = parts.io.into_inner();
            // A socket that is closed with an unread body in it is reset, and the answer with it.
            let _ = socket.shutdown().await;
            let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
        };
        let _ = timeout(2 * REFUSAL_TIMEOUT, told).await;
    });
}
