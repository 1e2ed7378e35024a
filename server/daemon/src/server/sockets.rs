//! What the server listens on, and the connections that come there.

use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pba_wire::streams::Transport;
use rustls::ServerConfig;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::server::connection::{Service, take_in};
use crate::stream::client::Client;
use crate::stream::peer::Peer;
use crate::tls::socket::TlsPort;

/// Time until an idle connection to a vanished client is detected.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Connections that the system keeps until the server accepts them, as far as it allows (`net.core.somaxconn`): as many
/// as there may be by default. One more waits a second for its next try, then two, four and so on.
const BACKLOG: i32 = 4096;
/// Bytes that a Unix socket buffers for its client: two batches of 128 images of 32x32. With the
/// system's default of half a batch, both sides wait for each other several times per batch.
const LOCAL_SEND_BYTES: usize = 1 << 20;

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

    /// Where they are reached: at the address, if there is one, and then on the Unix socket, if there is one.
    pub(super) fn urls(&self) -> Vec<String> {
        let scheme = if self.speaks_tls() { "https" } else { "http" };
        let tcp = self.address().map(|address| format!("{scheme}://{address}"));
        let local = self.local.as_ref().map(|local| format!("unix:{}", local.path.display()));
        tcp.into_iter().chain(local).collect()
    }

    /// Where the metrics are also found, if they have an address of their own.
    pub(super) fn metrics_url(&self) -> Option<String> {
        self.metrics.as_ref().map(|port| format!("http://{}/metrics", port.address))
    }

    /// Whether there is a Unix socket.
    pub(super) fn has_local(&self) -> bool {
        self.local.is_some()
    }

    /// Serves one connection after another in the background, for ever.
    pub(super) async fn serve(&self, service: &Service, of_metrics: &Service) {
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

/// Settings of a TCP socket: small writes are sent at once, and vanished clients are detected.
fn tune(socket: &TcpStream) {
    // Neither can fail on a connected socket in a way that matters.
    let _ = socket.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    let _ = socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive);
}
