//! The listening sockets: accept connections, and end them in good order.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use crate::app::App;
use crate::http::router;
use crate::stream::client::Client;
use crate::stream::engine::Engine;
use crate::stream::shared_memory_stream::{Local, Patient};

/// A client that takes longer to send a request's head is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time until an idle connection to a vanished client is detected.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How often a draining server checks whether it is done.
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// Time that other requests get to finish after the streams have ended.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// Bytes that a Unix socket buffers for its client: two batches of 128 images of 32x32. With the
/// system's default of half a batch, both sides wait for each other several times per batch.
const LOCAL_SEND_BYTES: usize = 1 << 20;

pub(crate) struct Server {
    app: Arc<App>,
    sockets: Sockets,
}

pub(crate) struct Sockets {
    listener: TcpListener,
    address: SocketAddr,
    local: Option<LocalListener>,
}

/// A Unix socket, whose file is removed with it.
struct LocalListener {
    listener: UnixListener,
    path: PathBuf,
}

impl LocalListener {
    /// Binds a path. A file that a server left behind is replaced, but not one that a server uses.
    fn bind(path: &Path) -> anyhow::Result<LocalListener> {
        let context = || format!("cannot listen on unix:{}", path.display());
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            anyhow::ensure!(metadata.file_type().is_socket(), "{}: the path is not a socket", context());
            let in_use = std::os::unix::net::UnixStream::connect(path).is_ok();
            anyhow::ensure!(!in_use, "{}: another server uses it; choose another --socket PATH", context());
            std::fs::remove_file(path).with_context(context)?;
        }
        let listener = UnixListener::bind(path).with_context(context)?;
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
    /// A connection whose write makes no progress for this long is closed.
    stall: Duration,
    /// Each connection holds a receiver while it is open, and ends when told, or when the sender is dropped.
    ending: watch::Receiver<()>,
}

impl Sockets {
    /// Binds the address, and a Unix socket as well if one is configured.
    ///
    /// # Errors
    /// When the address is taken or not this machine's, or the socket cannot be created.
    pub(crate) async fn bind(address: SocketAddr, socket: Option<&Path>) -> anyhow::Result<Sockets> {
        let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => {
                let free = SocketAddr::new(address.ip(), 0);
                Error::new(error.kind(), format!("{error}; use --listen {free} to pick a free port"))
            }
            _ => error,
        });
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr().context("cannot determine the address")?;
        let local = socket.map(LocalListener::bind).transpose()?;
        Ok(Sockets { listener, address, local })
    }

    /// Serves one connection after another in the background, for ever.
    async fn serve(&self, service: &Service) {
        loop {
            let local = async {
                match &self.local {
                    Some(local) => local.listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted.map(|(socket, peer)| {
                    tune(&socket);
                    serve(socket, Client::at(peer.ip()), &service.router, service);
                }),
                accepted = local => accepted.map(|(socket, _)| {
                    // A server that may use less makes larger batches in more pieces.
                    let _ = socket2::SockRef::from(&socket).set_send_buffer_size(LOCAL_SEND_BYTES);
                    let client = socket.peer_cred().ok().and_then(|peer| {
                        Some(Client::Process { user: peer.uid(), process: peer.pid()? })
                    });
                    serve(socket, client.unwrap_or(Client::Unknown), &service.local_router, service);
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

impl Server {
    pub(crate) fn new(app: Arc<App>, sockets: Sockets) -> Server {
        Server { app, sockets }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.sockets.address
    }

    /// Serves until `stop` is done; then drains: new streams are refused, running ones get the
    /// configured time to finish, and those that remain are cut, visibly to their clients.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) {
        let Server { app, sockets } = self;
        let (end_connections, connections) = watch::channel(());
        let Engine { limits, .. } = &*app.engine;
        let router = router(Arc::clone(&app));
        let service = Service {
            local_router: router.clone().layer(axum::Extension(Local)),
            router,
            stall: Duration::from_secs(limits.stall_seconds),
            ending: connections,
        };
        let (end_jobs, ending) = watch::channel(false);
        let host = Arc::clone(&app);
        let jobs = tokio::spawn(async move {
            if host.lock.is_writer() {
                host.jobs.supervise(&host.catalog, &host.registry, ending).await;
            }
        });
        let drained = async {
            stop.await;
            app.drain();
            // The running job has its last checkpoint in any case, and resumes there.
            let _ = end_jobs.send(true);
            tracing::info!(streams = app.engine.streams(), seconds = limits.drain_seconds, "draining");
            let ended = async {
                while app.engine.streams() > 0 {
                    sleep(DRAIN_POLL).await;
                }
            };
            // Those that are left are counted below.
            let _ = timeout(Duration::from_secs(limits.drain_seconds), ended).await;
        };
        tokio::select! {
            () = sockets.serve(&service) => {}
            () = drained => {}
        }
        drop(sockets);
        if let Err(error) = jobs.await {
            tracing::error!(%error, "the jobs did not end cleanly");
        }
        let cut = app.engine.streams();
        if cut > 0 {
            tracing::warn!(streams = cut, "streams cut");
            return;
        }
        drop(service);
        // Without connections there is no receiver.
        let _ = end_connections.send(());
        let _ = timeout(LAST_REQUESTS, end_connections.closed()).await;
    }
}

/// Settings of a TCP socket: small writes are sent at once, and vanished clients are detected.
fn tune(socket: &TcpStream) {
    // Neither can fail on a connected socket in a way that matters.
    let _ = socket.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    let _ = socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

/// Serves one HTTP/1.1 connection until it ends, or is told to end after its current request.
fn serve<S>(socket: S, client: Client, router: &Router, service: &Service)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut socket = TimeoutStream::new(socket);
    socket.set_write_timeout(Some(service.stall));
    let socket: Patient<S> = Box::pin(socket);
    let router = router.clone().map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(client);
        request
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router))
        .with_upgrades();
    let mut ending = service.ending.clone();
    tokio::spawn(async move {
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            // An error says that the server is gone, which ends connections as well.
            _ = ending.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        // The client may leave at any moment: that is its right, and no error.
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        }
    });
}
