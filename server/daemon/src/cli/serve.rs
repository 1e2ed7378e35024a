//! `pba serve`: the server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pba_datasets::BUILT_IN;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::app::{App, DataLock};
use crate::catalog::datasets::Catalog;
use crate::catalog::schedules::Registry;
use crate::cli::output;
use crate::config::{Config, ServeArgs};
use crate::jobs::{Jobs, trainer::Trainer};
use crate::metrics::Metrics;
use crate::opening;
use crate::server::{Server, Sockets};

/// A half packed dataset that nobody has written to for so long has lost its process.
const PACKING_IDLE: Duration = Duration::from_secs(3600);

/// Runs the server until a signal ends it.
pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let config = Config::resolve(&args)?;
    if args.check {
        output::json(&check(&config)?);
        return Ok(());
    }
    let server = start(&config).await?;
    // Whoever reads the line below may send a signal at once, so they are watched before it; not
    // earlier, so that Ctrl-C ends a long import as it ends any program.
    let stop = stop_signal()?;
    // Scripts wait for this line: it is the first one, and the address in it is final.
    output::announcement(format_args!("listening on http://{}", server.address()));
    if let Some(socket) = &config.socket {
        output::announcement(format_args!("listening on unix:{}", socket.display()));
    }
    server.run(stop).await;
    Ok(())
}

/// What would run: the configuration, and what is found where it points. Nothing is written, packed or
/// bound, as a running server may be using it.
fn check(config: &Config) -> anyhow::Result<Value> {
    config.check_paths()?;
    config.check_trainer()?;
    let mut shown = serde_json::to_value(config)?;
    // Without one, streams are served and searches are refused.
    let trainer = Trainer::find(config.trainer.clone());
    shown["trainer"] = trainer.is_there().then(|| trainer.program().display().to_string()).into();
    for (name, dataset) in &config.datasets {
        let format = pba_datasets::format(&dataset.path).with_context(|| format!("dataset {name:?}"))?;
        shown["datasets"][name]["format"] = format.into();
    }
    shown["datasets"][BUILT_IN] = json!({ "path": null, "base": null, "format": BUILT_IN });
    Ok(shown)
}

/// Binds the address, and opens everything that the configuration names.
pub(crate) async fn start(config: &Config) -> anyhow::Result<Server> {
    config.check_datasets()?;
    let metrics = Metrics::new()?;
    let data = &config.data_dir;
    std::fs::create_dir_all(data)
        .with_context(|| format!("cannot make the data directory {}", data.display()))?;
    // Before anything is packed, which may take minutes: an address that is taken is told at once.
    let sockets = Sockets::bind(config.listen, config.socket.as_deref()).await?;
    let cache = data.join("datasets");
    let (opening, dataset) = watch::channel(BUILT_IN.to_owned());
    let opened = {
        let (config, cache, metrics) = (config.clone(), cache.clone(), metrics.clone());
        tokio::task::spawn_blocking(move || open_datasets(&config, &cache, &metrics, &opening))
    };
    let opened = async {
        let lock = DataLock::take(data).await;
        (lock, opened.await)
    };
    let (lock, catalog) = tokio::select! {
        (lock, opened) = opened => (lock, opened.context("the datasets could not be opened")??),
        never = sockets.answer(opening::router(dataset), config.limits.stall()) => match never {},
    };
    if let Some(fault) = config.trainer.as_deref().and_then(Trainer::fault) {
        tracing::warn!(
            "{fault}; streams are not affected, searches wait and new ones are refused until it is there"
        );
    }
    let trainer = Trainer::find(config.trainer.clone());
    // With the lock, so that whoever held it before changes them no more.
    let registry = Registry::open(&data.join("schedules"))?;
    let jobs = Jobs::open(data, &cache, trainer, lock.is_writer(), metrics.clone())?;
    let app = App::start(catalog, registry, jobs, config.limits.clone(), metrics, lock)?;
    Ok(Server::new(Arc::new(app), sockets))
}

/// Opens the datasets one by one, and tells which.
fn open_datasets(
    config: &Config,
    cache: &Path,
    metrics: &Metrics,
    opening: &watch::Sender<String>,
) -> anyhow::Result<Catalog> {
    let abandoned = pba_datasets::remove_partials(cache, PACKING_IDLE);
    if abandoned > 0 {
        tracing::info!(files = abandoned, "removed what a killed server or trainer left half packed");
    }
    let mut catalog = Catalog::default();
    catalog.add_built_in(cache, metrics)?;
    for (name, dataset) in &config.datasets {
        opening.send_replace(name.clone());
        catalog.add(name, &dataset.path, dataset.base, cache, metrics)?;
    }
    Ok(catalog)
}

/// Done at the first SIGTERM or SIGINT; the second ends the process at once.
pub(crate) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        // The server may have ended by itself.
        let _ = stop.send(());
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
    Ok(async {
        let _ = stopped.await;
    })
}
