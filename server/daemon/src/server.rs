//! The listening socket: accepts connections, and ends them in good order.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_io_timeout::TimeoutStream;

use crate::app::App;
use crate::http::router;
use crate::searches::supervise;

/// A client that takes longer to send a request's head is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections to a client that vanished are noticed after about this long.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How often a draining server looks whether it is done.
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// Requests that are not streams get this long after the streams have ended.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// A bound socket.
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
    pub async fn bind(app: Arc<App>, address: SocketAddr) -> anyhow::Result<Server> {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr().context("cannot tell the address")?;
        Ok(Server { app, listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is done; then drains: new streams are refused, running ones get the
    /// configured time to finish, and what is left after it is cut, visibly to its client.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let router = router(Arc::clone(&self.app));
        let (end_searches, ending) = watch::channel(false);
        let searches = tokio::spawn(supervise(Arc::clone(&self.app), ending));
        let connections = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        let mut deadline: Option<Instant> = None;
        loop {
            let drained = async {
                match deadline {
                    None => std::future::pending().await,
                    Some(deadline) => {
                        while self.app.streams() > 0 && Instant::now() < deadline {
                            sleep_until(deadline.min(Instant::now() + DRAIN_POLL)).await;
                        }
                    }
                }
            };
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => {
                        let service = TowerToHyperService::new(router.clone());
                        let connection = connection(socket, service, self.app.limits.stall());
                        let connection = connections.watch(connection);
                        tokio::spawn(async move {
                            // The client may leave at any moment: that is its right, and no error.
                            if let Err(error) = connection.await {
                                tracing::debug!(%error, "connection ended");
                            }
                        });
                    }
                    Err(error) => {
                        // Out of file descriptors, most likely: wait for some to come back.
                        tracing::warn!(%error, "cannot accept a connection");
                        sleep(Duration::from_millis(100)).await;
                    }
                },
                () = &mut stop, if deadline.is_none() => {
                    self.app.drain();
                    // The running search is at its last checkpoint in any case; it goes on there.
                    let _ = end_searches.send(true);
                    tracing::info!(streams = self.app.streams(), seconds = self.app.limits.drain_seconds, "draining");
                    deadline = Some(Instant::now() + self.app.limits.drain());
                }
                () = drained => break,
            }
        }
        drop(self.listener);
        if let Err(error) = searches.await {
            tracing::error!(%error, "the searches did not end in good order");
        }
        let cut = self.app.streams();
        if cut > 0 {
            tracing::warn!(streams = cut, "streams cut");
            return;
        }
        let _ = tokio::time::timeout(LAST_REQUESTS, connections.shutdown()).await;
    }
}

/// A socket on which a write that makes no progress ends the connection.
type Socket = TokioIo<Pin<Box<TimeoutStream<TcpStream>>>>;

/// One HTTP/1.1 connection, as a future that ends with it.
fn connection(
    socket: TcpStream,
    service: TowerToHyperService<axum::Router>,
    stall: Duration,
) -> hyper::server::conn::http1::Connection<Socket, TowerToHyperService<axum::Router>> {
    // Neither can fail on a connected socket in a way that matters: they only tune it.
    let _ = socket.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    let _ = socket2::SockRef::from(&socket).set_tcp_keepalive(&keepalive);
    let mut socket = TimeoutStream::new(socket);
    socket.set_write_timeout(Some(stall));
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(Box::pin(socket)), service)
}
