//! The listening sockets: accept connections, and end them in good order.

use std::convert::Infallible;
use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::header::DATE;
use axum::response::IntoResponse;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use pba_wire::streams::Transport;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ServerConfig;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::app::App;
use crate::config::{Config, Limits};
use crate::date;
use crate::error::{Cause, Error};
use crate::http::asked::Asked;
use crate::http::correlation::Correlation;
use crate::http::metrics_port::{self, PROBES};
use crate::http::{plain_http, router, security};
use crate::metrics::Metrics;
use crate::pace::{Pace, PacedBody, PacedSocket};
use crate::shutdown::{DRAIN_POLL, LAST_JOBS, LAST_REQUESTS, Stop};
use crate::stream::client::Client;
use crate::stream::connections::{Connection, Connections};
use crate::stream::engine::Engine;
use crate::stream::peer::Peer;
use crate::stream::permits::Refusal;
use crate::stream::shared_memory::KEPT_MAX;
use crate::stream::shared_memory_stream::Local;
use crate::tls::socket::{PlainText, TlsPort, TlsSocket};

/// A client that takes longer to send a request's head is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request that a connection holds at most before the head is complete: with all connections taken,
/// half a gigabyte for ten seconds. A batch is queued as it is, however large.
const BUFFER_BYTES_MAX: usize = 128 << 10;
/// Time until an idle connection to a vanished client is detected.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How often a replica looks whether the writer has ended.
const TAKE_OVER_POLL: Duration = Duration::from_secs(2);
/// Connections at a time for which there is no room, and which are answered all the same: in all and of one client.
const REFUSALS_MAX: usize = 32;
const REFUSALS_PER_CLIENT_MAX: usize = 8;
/// Time that such a connection gets to send its request, and as much again to take the answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections at a time of the address for metrics, in all and of one client: a few scrapers and probes.
const METRICS_CONNECTIONS_MAX: usize = 64;
const METRICS_CONNECTIONS_PER_CLIENT_MAX: usize = 32;
/// Connections that the system keeps until the server accepts them, as far as it allows (`net.core.somaxconn`): as many
/// as there may be by default. One more waits a second for its next try, then two, four and so on.
const BACKLOG: i32 = 4096;

/// Bytes that a Unix socket buffers for its client: two batches of 128 images of 32x32. With the
/// system's default of half a batch, both sides wait for each other several times per batch.
const LOCAL_SEND_BYTES: usize = 1 << 20;

pub(crate) struct Server {
    app: Arc<App>,
    sockets: Sockets,
}

/// At least one of the first two.
pub(crate) struct Sockets {
    tcp: Option<TcpPort>,
    local: Option<LocalListener>,
    /// For metrics and probes only.
    metrics: Option<TcpPort>,
    /// What the first port speaks, unless it is plain HTTP.
    tls: Option<TlsPort>,
}

struct TcpPort {
    listener: TcpListener,
    /// With the port that was picked.
    address: SocketAddr,
}

impl TcpPort {
    /// Binds an address that a flag names.
    fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpPort> {
        let listener = listen(address).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => {
                let free = SocketAddr::new(address.ip(), 0);
                io::Error::new(error.kind(), format!("{error}; use {flag} {free} to pick a free port"))
            }
            _ => error,
        });
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr().context("cannot determine the address")?;
        Ok(TcpPort { listener, address })
    }
}

/// A Unix socket, whose file is removed with it.
struct LocalListener {
    listener: UnixListener,
    path: PathBuf,
}

impl LocalListener {
    /// Binds a path. A file that a server left behind is replaced, but not one that a server uses.
    fn bind(path: &Path, mode: u32) -> anyhow::Result<LocalListener> {
        let context = || format!("cannot listen on unix:{}", path.display());
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            anyhow::ensure!(metadata.file_type().is_socket(), "{}: the path is not a socket", context());
            let in_use = std::os::unix::net::UnixStream::connect(path).is_ok();
            anyhow::ensure!(!in_use, "{}: another server uses it; choose another --socket PATH", context());
            std::fs::remove_file(path).with_context(context)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).with_context(context)?;
        socket.bind(&SockAddr::unix(path).with_context(context)?).with_context(context)?;
        // Whatever the umask; no client can connect before it listens.
        std::fs::set_permissions(path, Permissions::from_mode(mode)).with_context(context)?;
        socket.listen(BACKLOG).and_then(|()| socket.set_nonblocking(true)).with_context(context)?;
        let listener = std::os::unix::net::UnixListener::from(socket);
        let listener = UnixListener::from_std(listener).with_context(context)?;
        Ok(LocalListener { listener, path: path.to_owned() })
    }
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        // The file may have been removed already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The service for each kind of socket, and its settings.
struct Service {
    router: Router,
    local_router: Router,
    /// A connection that takes longer than this for a piece of an answer is closed.
    stall: Duration,
    connections: Connections,
    /// Those for which there is no room.
    refusals: Connections,
    metrics: Metrics,
    /// Each connection holds a receiver while it is open, and ends when told, or when the sender is dropped.
    ending: watch::Receiver<()>,
}

impl Sockets {
    /// Binds the addresses and the Unix socket, as far as they are configured. Given settings of TLS, the first port
    /// speaks it.
    ///
    /// # Errors
    /// When an address is taken or not this machine's, or the socket cannot be created.
    pub(crate) async fn bind(
        config: &Config,
        tls: Option<watch::Receiver<Arc<ServerConfig>>>,
        metrics: &Metrics,
    ) -> anyhow::Result<Sockets> {
        let tcp = config.listen.map(|address| TcpPort::bind(address, "--listen")).transpose()?;
        let local = config.socket.as_deref().map(|path| LocalListener::bind(path, config.socket_mode));
        let local = local.transpose()?;
        let tls = tls.zip(tcp.as_ref()).map(|(tls, tcp)| TlsPort::new(tls, tcp.address, metrics.clone()));
        let further = config.metrics_listen.map(|address| TcpPort::bind(address, "--metrics-listen"));
        Ok(Sockets { tcp, local, metrics: further.transpose()?, tls })
    }

    /// The address, with the port that was picked, unless there is none.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().map(|tcp| tcp.address)
    }

    /// Whether the port speaks TLS.
    pub(crate) fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves one connection after another in the background, for ever.
    async fn serve(&self, service: &Service, of_metrics: &Service) {
        let accept = async |port: &Option<TcpPort>| match port {
            Some(port) => port.listener.accept().await,
            None => std::future::pending().await,
        };
        loop {
            let local = async {
                match &self.local {
                    Some(local) => local.listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            let accepted = tokio::select! {
                accepted = accept(&self.tcp) => accepted.map(|(socket, peer)| {
                    tune(&socket);
                    match &self.tls {
                        Some(tls) => {
                            let peer = Peer::at(peer, Transport::Tls);
                            take_in(tls.accept(socket), peer, &service.router, service);
                        }
                        None => take_in(socket, Peer::at(peer, Transport::Tcp), &service.router, service),
                    }
                }),
                accepted = accept(&self.metrics) => accepted.map(|(socket, peer)| {
                    tune(&socket);
                    take_in(socket, Peer::at(peer, Transport::Tcp), &of_metrics.router, of_metrics);
                }),
                accepted = local => accepted.map(|(socket, _)| {
                    // A server that may use less makes larger batches in more pieces.
                    let _ = socket2::SockRef::from(&socket).set_send_buffer_size(LOCAL_SEND_BYTES);
                    let client = socket.peer_cred().ok().and_then(|peer| {
                        Some(Client::Process { user: peer.uid(), process: peer.pid()? })
                    });
                    let peer = Peer::local(client.unwrap_or(Client::Unknown));
                    take_in(socket, peer, &service.local_router, service);
                }),
            };
            if let Err(error) = accepted {
                // Out of file descriptors, most likely: wait for some to come back.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Listens on an address, which may have been used a moment ago.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG as u32)
}

impl Server {
    pub(crate) fn new(app: Arc<App>, sockets: Sockets) -> Server {
        Server { app, sockets }
    }

    /// Where it is reached: at its address, if it has one, and then on its Unix socket, if it has one.
    pub(crate) fn urls(&self) -> Vec<String> {
        let scheme = if self.sockets.speaks_tls() { "https" } else { "http" };
        let tcp = self.sockets.address().map(|address| format!("{scheme}://{address}"));
        let local = self.sockets.local.as_ref().map(|local| format!("unix:{}", local.path.display()));
        tcp.into_iter().chain(local).collect()
    }

    /// Where its metrics are also found, if they have an address of their own.
    pub(crate) fn metrics_url(&self) -> Option<String> {
        self.sockets.metrics.as_ref().map(|port| format!("http://{}/metrics", port.address))
    }

    /// Serves until `stop` is done, and as long after it as load balancers need; then drains: new streams are
    /// refused, running ones get the configured time to finish, and those that remain are cut, visibly to their
    /// clients. `shutdown.rs` has the bounds.
    pub(crate) async fn run(self, stop: impl Future<Output = Stop>) {
        let Server { app, sockets } = self;
        let (end_connections, connections) = watch::channel(());
        let Engine { limits, .. } = &*app.engine;
        let router = router(Arc::clone(&app));
        let gauge = || app.engine.metrics.connections_active.clone();
        let datasets = DESCRIPTORS_PER_DATASET * app.catalog.list().len() as u64;
        let of_kept = if sockets.local.is_some() { DESCRIPTORS_OF_KEPT } else { 0 };
        let of_metrics = if sockets.metrics.is_some() { METRICS_CONNECTIONS_MAX as u64 } else { 0 };
        let room = connections_max(limits, datasets + of_kept + of_metrics);
        let service = Service {
            connections: Connections::new(room, client_share(room), gauge()),
            refusals: Connections::new(REFUSALS_MAX, REFUSALS_PER_CLIENT_MAX, gauge()),
            metrics: app.engine.metrics.clone(),
            local_router: router.clone().layer(axum::Extension(Local)),
            router,
            stall: Duration::from_secs(limits.stall_seconds),
            ending: connections,
        };
        let of_metrics = Service {
            connections: Connections::new(
                METRICS_CONNECTIONS_MAX,
                METRICS_CONNECTIONS_PER_CLIENT_MAX,
                gauge(),
            ),
            refusals: Connections::new(REFUSALS_MAX, REFUSALS_PER_CLIENT_MAX, gauge()),
            metrics: service.metrics.clone(),
            local_router: service.local_router.clone(),
            router: metrics_port::only(service.router.clone()),
            stall: service.stall,
            ending: service.ending.clone(),
        };
        let (end_jobs, ending) = watch::channel(false);
        let host = Arc::clone(&app);
        let (jobs_end, jobs_ended) = oneshot::channel();
        let runtime = Handle::current();
        // On a thread of its own: what jobs write to disk keeps no stream waiting.
        let supervise = move || {
            runtime.block_on(async {
                if wait_to_write(&host, ending.clone()).await {
                    host.jobs.supervise(&host.catalog, &host.registry, ending).await;
                }
            });
            drop(host);
            // The server waits for it, or has left.
            let _ = jobs_end.send(());
        };
        if let Err(error) = std::thread::Builder::new().name("jobs".to_owned()).spawn(supervise) {
            tracing::error!(%error, "no job is run, because the system refuses a thread");
        }
        let drained = async {
            let delay = stop.await.delay(limits.drain_delay_seconds);
            let told = Instant::now();
            app.leave();
            // The running job has its last checkpoint in any case, and resumes there.
            let _ = end_jobs.send(true);
            if !delay.is_zero() {
                tracing::info!(
                    seconds = delay.as_secs(),
                    "told to stop; new streams are still taken until load balancers have noticed"
                );
                sleep(delay).await;
            }
            app.stage.drain();
            tracing::info!(streams = app.engine.streams(), seconds = limits.drain_seconds, "draining");
            let ended = async {
                while app.engine.streams() > 0 {
                    sleep(DRAIN_POLL).await;
                }
            };
            // Those that are left are counted below.
            let _ = timeout(Duration::from_secs(limits.drain_seconds), ended).await;
            told
        };
        let told = tokio::select! {
            () = sockets.serve(&service, &of_metrics) => Instant::now(),
            () = app.rates.follow(&app.engine) => Instant::now(),
            told = drained => told,
        };
        drop(sockets);
        match timeout_at(told + LAST_JOBS, jobs_ended).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!("the jobs did not end cleanly"),
            Err(_) => tracing::error!("the jobs do not end; the server leaves without them"),
        }
        app.audit.flush().await;
        let cut = app.engine.streams();
        if cut > 0 {
            tracing::warn!(streams = cut, "streams cut");
            app.engine.running.cut_all("the server stopped");
            return;
        }
        drop((service, of_metrics));
        // Without connections there is no receiver.
        let _ = end_connections.send(());
        let _ = timeout(LAST_REQUESTS, end_connections.closed()).await;
    }
}

/// Done when this server is the writer of its data directory, at once or when the one that was has ended; false if it
/// is told to stop before. It waits for the disk, on the thread of the jobs.
async fn wait_to_write(app: &App, mut ending: watch::Receiver<bool>) -> bool {
    while !app.lock.is_writer() {
        tokio::select! {
            _ = ending.wait_for(|ends| *ends) => return false,
            () = sleep(TAKE_OVER_POLL) => {}
        }
        let Some(lock) = app.lock.try_take() else { continue };
        match app.take_over(lock) {
            Ok(()) => tracing::warn!(
                "the server that wrote to the data directory has ended; this one is the writer now"
            ),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the data directory cannot be taken over")
            }
        }
    }
    true
}

/// Settings of a TCP socket: small writes are sent at once, and vanished clients are detected.
fn tune(socket: &TcpStream) {
    // Neither can fail on a connected socket in a way that matters.
    let _ = socket.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    let _ = socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

/// A socket of any kind.
trait AnySocket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
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
fn take_in<S: AnySocket>(socket: S, peer: Peer, router: &Router, service: &Service) {
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

/// Connections of all that one client may have: three quarters, so that others find some, and a proxy, behind which
/// all clients are one, has most of them.
fn client_share(connections: usize) -> usize {
    (3 * connections).div_ceil(4)
}

/// Descriptors that are kept for files, datasets, trainers and refusals.
const DESCRIPTORS_KEPT: u64 = 128;
/// Descriptors of the shared memory that clients keep after its streams, where there is a socket.
const DESCRIPTORS_OF_KEPT: u64 = KEPT_MAX as u64;
/// Descriptors that a dataset takes: one of each split.
const DESCRIPTORS_PER_DATASET: u64 = 3;
/// Descriptors that the shared memory of a stream takes at most.
const DESCRIPTORS_PER_STREAM: u64 = 3;

/// How many connections there can be: as many as are allowed, if the system lets the process have a descriptor
/// for each. `others` are taken by more than connections and streams.
fn connections_max(Limits { connections_max: allowed, streams_max, .. }: &Limits, others: u64) -> usize {
    let (allowed, kept) = (*allowed as u64, others + descriptors_kept(*streams_max as u64));
    let limits = getrlimit(Resource::Nofile);
    let wanted = allowed + kept;
    let most = limits.maximum.unwrap_or(u64::MAX);
    let mut granted = limits.current.unwrap_or(u64::MAX);
    if granted < wanted {
        let raised = Rlimit { current: Some(wanted.min(most)), maximum: limits.maximum };
        // A system that refuses leaves it as it was.
        if setrlimit(Resource::Nofile, raised).is_ok() {
            granted = wanted.min(most);
        }
    }
    let room = room(granted, allowed, kept);
    if room < allowed {
        tracing::warn!(
            descriptors = granted,
            "the system allows too few open files for connections_max = {allowed} beside streams_max = {streams_max}; {room} \
             connections are accepted"
        );
    }
    room as usize
}

fn descriptors_kept(streams: u64) -> u64 {
    DESCRIPTORS_KEPT + DESCRIPTORS_PER_STREAM * streams
}

/// Of the connections that are allowed, those for which there are descriptors. Of few descriptors, half are kept.
fn room(granted: u64, allowed: u64, kept: u64) -> u64 {
    granted.saturating_sub(kept).max(granted / 2).clamp(1, allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_kept_for_every_stream() {
        let kept = descriptors_kept;
        assert_eq!(room(u64::MAX, 4096, kept(256)), 4096);
        assert_eq!(room(4096 + 128 + 3 * 256, 4096, kept(256)), 4096);
        assert_eq!(room(4096 + 128 + 3 * 256, 4096, kept(257)), 4093);
        assert_eq!([room(1024, 4096, kept(256)), room(1, 4096, kept(256))], [512, 1]);
        assert_eq!([1, 2, 3, 4, 8, 4096].map(client_share), [1, 2, 3, 3, 6, 3072]);
    }
}
