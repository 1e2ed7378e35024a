//! `pba serve`: the server.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::Args;
use pba_augment::Base;
use pba_datasets::{BUILT_IN, Progress};
use pba_types::Digest;
use sd_notify::NotifyState;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::access;
use crate::app::{App, Guard};
use crate::audit::Audit;
use crate::background;
use crate::boundary::Boundary;
use crate::catalog::datasets::Catalog;
use crate::catalog::schedules::{Bounds, Registry};
use crate::catalog::scrub::scrub;
use crate::cli::sources::{self, Given, Source};
use crate::cli::{bar, output};
use crate::config::{Config, DatasetConfig, Limits, ServeArgs, Settings, read_file};
use crate::data_lock::DataLock;
use crate::format;
use crate::health::LOOK_EVERY;
use crate::jobs::{Jobs, trainer::Trainer};
use crate::metrics::Metrics;
use crate::server::{Server, Sockets};
use crate::shutdown::stop_signal_once;
use crate::stream::engine::Engine;
use crate::tls;
use crate::tls::files::{Certificate, Files};
use crate::version;
use crate::watched::watch;

/// Examples for its help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  pba serve --dataset cifar10=./cifar10 --data-dir ./pba-data
  pba serve --config pba.toml --check | jq .sources    # where each setting comes from
  pba serve --listen none --socket /run/pba/pba.sock";

/// Runs the server until a signal ends it.
pub(crate) async fn run(args: ServeArgs, given: &Given) -> anyhow::Result<()> {
    let config = Config::resolve(&args)?;
    if args.check {
        output::json(&check(&config, &args, given)?);
        return Ok(());
    }
    let has_started = Arc::new(AtomicBool::new(false));
    let stop = stop_signal_once(Arc::clone(&has_started))?;
    let server = start(&config).await?;
    // Before the line below is printed, because its reader may send a signal at once.
    has_started.store(true, Ordering::Relaxed);
    // Scripts wait for the first of these lines, and the address in it is final.
    for url in server.urls() {
        output::announcement(format_args!("listening on {url}"));
    }
    if let Some(url) = server.metrics_url() {
        output::announcement(format_args!("metrics on {url}"));
    }
    tell_systemd(NotifyState::Ready);
    server
        .run(async {
            let stop = stop.await;
            tell_systemd(NotifyState::Stopping);
            stop
        })
        .await;
    Ok(())
}

/// Tells how far the server is to systemd, if that started it and asks. Datasets may be imported for hours after it is
/// ready in these terms; `/readyz` says when they are.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told how far the server is");
    }
}

/// What `--check` prints: the configuration, and what was found at its paths.
#[derive(Serialize)]
struct Checked<'a> {
    #[serde(flatten)]
    config: &'a Config,
    /// Without one, the port speaks plain HTTP.
    certificate: Option<Certificate>,
    /// Without one, streams are served and searches are refused.
    trainer: Option<String>,
    datasets: BTreeMap<&'a str, CheckedDataset<'a>>,
    /// Where each setting comes from.
    sources: BTreeMap<&'a str, Source>,
}

#[derive(Serialize)]
struct CheckedDataset<'a> {
    path: Option<&'a Path>,
    base: Option<String>,
    format: &'static str,
    source: Source,
}

/// Checks the configuration. Nothing is written, packed or bound, because a server may be running.
fn check<'a>(config: &'a Config, args: &ServeArgs, given: &Given) -> anyhow::Result<Checked<'a>> {
    config.check_paths()?;
    format::check(&config.data_dir)?;
    config.check_trainer()?;
    let identity = |files: Files| files.identity(&files.read()?);
    let certificate = config.tls_files().map(identity).transpose()?.map(|identity| identity.certificate);
    certificate.iter().for_each(Certificate::warn);
    let trainer = config.find_trainer();
    let trainer = trainer.is_there().then(|| trainer.program().display().to_string());
    let file = args.file();
    let in_file = file.map(read_file).transpose()?.map_or(Vec::new(), |settings| settings.set());
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let mut sources = sources::sources(Settings::NAMES, &command, given, &in_file, file);
    // What is printed of them is those of that file, too.
    if let (Some(source @ Source::Default), Some(file)) = (sources.get_mut("tokens"), &config.tokens_file) {
        *source = Source::File(file.display().to_string());
    }
    let built_in = CheckedDataset { path: None, base: None, format: BUILT_IN, source: Source::Default };
    let mut datasets = BTreeMap::from([(BUILT_IN, built_in)]);
    for (name, DatasetConfig { path, base }) in &config.datasets {
        let format = pba_datasets::format(path).with_context(|| format!("dataset {name:?}"))?;
        let base = base.as_ref().map(Base::to_string);
        let is_flagged =
            args.datasets.iter().any(|text| text.split_once('=').is_some_and(|(of, _)| of == name));
        let source = match file.filter(|_| !is_flagged) {
            Some(file) => Source::File(file.display().to_string()),
            None => Source::Flag("--dataset".to_owned()),
        };
        datasets.insert(name, CheckedDataset { path: Some(path), base, format, source });
    }
    Ok(Checked { config, certificate, trainer, datasets, sources })
}

/// Binds the address and the socket, and opens everything that the configuration names.
pub(crate) async fn start(config: &Config) -> anyhow::Result<Server> {
    config.check_dataset_names()?;
    config.warn_of_missing_datasets();
    config.warn_of_tokens_in_the_clear();
    let metrics = Metrics::new()?;
    // A file that would be longer than it may be is refused like one for which there is no room: a signal that is
    // handled ends no process. Trainers ignore it by themselves.
    let _ = signal(SignalKind::from_raw(libc::SIGXFSZ)).context("cannot watch for SIGXFSZ")?;
    let data = &config.data_dir;
    pba_files::create_folder(data)
        .with_context(|| format!("cannot create the data directory {}", data.display()))?;
    // Before anything is written there: it may be a newer server's.
    format::check(data)?;
    // Before anything is packed, which may take minutes: a taken address is reported at once.
    let certificate = config.tls_files();
    let certificate =
        certificate.map(|files| tls::reload::Reload::begin(files, metrics.clone())).transpose()?;
    let current = certificate.as_ref().map(|(certificate, _)| certificate.current());
    let sockets = Sockets::bind(config, current, &metrics).await?;
    let cache = data.join("datasets");
    pba_files::check_no_other(&cache).context("cannot pack datasets")?;
    let lock = Arc::new(DataLock::take(data).await);
    if let Some(fault) = config.trainer.as_deref().and_then(Trainer::fault) {
        tracing::warn!(
            "{fault}; streams work, but jobs wait and new ones are refused until there is a trainer"
        );
    }
    let trainer = config.find_trainer();
    let program = trainer.is_there().then(|| trainer.program().display().to_string());
    // After locking, so that the previous holder no longer changes them.
    let Limits { schedules_max, schedule_bytes_max, schedules_bytes_max, jobs_max, .. } = config.limits;
    let bounds = Bounds { count: schedules_max, bytes: schedule_bytes_max, bytes_total: schedules_bytes_max };
    let registry = Registry::open(&data.join("schedules"), &lock, bounds)?;
    let jobs = Jobs::open(data, &cache, trainer, &lock, jobs_max, metrics.clone())?;
    let catalog = Catalog::new(&cache, lock.is_writer(), metrics.clone());
    for (name, DatasetConfig { path, base }) in &config.datasets {
        catalog.add(name, Some(path.clone()), *base);
    }
    let engine = Engine::start(config.limits.clone(), metrics)?;
    let boundary = Boundary::new(sockets.address(), config.hosts.clone()).with_tls(sockets.speaks_tls());
    let authenticator = Arc::new(config.authenticator());
    let tokens = config
        .watched_tokens()
        .map(|file| access::reload::Reload::new(file, Arc::clone(&authenticator), engine.metrics.clone()));
    let audit = Audit::start(data, &lock, engine.metrics.audit_lines_lost.clone())?;
    let guard = Guard { boundary, authenticator, audit };
    let app = Arc::new(App::new(catalog, registry, jobs, engine, lock, guard));
    if app.lock.is_writer() {
        app.say_format();
    }
    // What looks every so often does so while the server drains, too, and keeps nothing alive.
    let looking = Arc::downgrade(&app);
    background::start("health", move || {
        while let Some(app) = looking.upgrade() {
            app.look();
            drop(app);
            std::thread::sleep(LOOK_EVERY);
        }
    })?;
    let is_gone = || {
        let app = Arc::downgrade(&app);
        move || app.strong_count() == 0
    };
    if let Some((certificate, in_use)) = certificate {
        watch("certificate", certificate, Some(in_use), is_gone())?;
    }
    if let Some(tokens) = tokens {
        watch("tokens", tokens, None, is_gone())?;
    }
    let importing = Arc::clone(&app);
    // An import that is interrupted is repeated the next time.
    background::start("import", move || import(&importing))?;
    if let rate @ 1.. = config.limits.scrub_bytes_per_second {
        let app = Arc::clone(&app);
        background::start("scrub", move || {
            let is_over = || app.stage.check_serving().is_err();
            scrub(&app.catalog, rate, &app.engine.metrics, &is_over);
        })?;
    }
    let (is_writer, server) = (app.lock.is_writer(), Server::new(app, sockets));
    tracing::info!(
        version = version::shown(),
        listen = server.urls().join(", "),
        data_dir = %data.display(),
        threads = config.limits.threads,
        role = if is_writer { "writer" } else { "replica" },
        trainer = program.as_deref().unwrap_or("none"),
        settings = config.changed()?.join(", "),
        "serving"
    );
    Ok(server)
}

/// Imports the datasets one by one, with a bar for each split that has to be packed, and looks after them until
/// the server drains.
fn import(app: &App) {
    app.catalog.clear_away();
    // Each is there before its split is begun, so that its rate counts from the beginning.
    let bar = RefCell::new(bar::rows(""));
    let report = |name: &str, progress: Progress| {
        let mut shown = bar.borrow_mut();
        shown.set_message(format!("packing {name}, {}", progress.split));
        shown.set_length(progress.rows_total);
        shown.set_position(progress.rows_done);
        if progress.rows_done >= progress.rows_total {
            shown.finish_and_clear();
            *shown = bar::rows("");
        }
        match app.stage.check_serving() {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    };
    app.catalog.import(&report);
    let mended = |split: &Digest| app.engine.decoded.forget(split);
    app.catalog.look_after(&report, &mended, &|| app.stage.check_serving().is_err());
}
