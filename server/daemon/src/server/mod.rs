//! The running server: it accepts connections, and ends them in good order.

mod connection;
mod room;
mod sockets;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::app::App;
use crate::http::metrics_port;
use crate::http::router;
use crate::server::connection::Service;
use crate::server::room::{DESCRIPTORS_OF_KEPT, DESCRIPTORS_PER_DATASET, client_share, connections_max};
pub(crate) use crate::server::sockets::Sockets;
use crate::shutdown::{DRAIN_POLL, LAST_JOBS, LAST_REQUESTS, Stop};
use crate::stream::connections::Connections;
use crate::stream::engine::Engine;
use crate::stream::shared_memory_stream::Local;

/// How often a replica looks whether the writer has ended.
const TAKE_OVER_POLL: Duration = Duration::from_secs(2);
/// Connections at a time for which there is no room, and which are answered all the same: in all and of one client.
const REFUSALS_MAX: usize = 32;
const REFUSALS_PER_CLIENT_MAX: usize = 8;
/// Connections at a time of the address for metrics, in all and of one client: a few scrapers and probes.
const METRICS_CONNECTIONS_MAX: usize = 64;
const METRICS_CONNECTIONS_PER_CLIENT_MAX: usize = 32;

pub(crate) struct Server {
    app: Arc<App>,
    sockets: Sockets,
}

impl Server {
    pub(crate) fn new(app: Arc<App>, sockets: Sockets) -> Server {
        Server { app, sockets }
    }

    /// Where it is reached: at its address, if it has one, and then on its Unix socket, if it has one.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.sockets.urls()
    }

    /// Where its metrics are also found, if they have an address of their own.
    pub(crate) fn metrics_url(&self) -> Option<String> {
        self.sockets.metrics_url()
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
        let of_kept = if sockets.has_local() { DESCRIPTORS_OF_KEPT } else { 0 };
        let of_metrics = if sockets.metrics_url().is_some() { METRICS_CONNECTIONS_MAX as u64 } else { 0 };
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
        let cut = app.engine.streams();
        if cut > 0 {
            tracing::warn!(streams = cut, "streams cut");
            app.engine.running.cut_all("the server stopped");
        } else {
            drop((service, of_metrics));
            // Without connections there is no receiver.
            let _ = end_connections.send(());
            let _ = timeout(LAST_REQUESTS, end_connections.closed()).await;
        }
        // With what was answered until now.
        let _ = spawn_blocking(move || app.audit.flush()).await;
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
