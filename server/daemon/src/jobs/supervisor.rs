//! Runs one search after another, and keeps each going until it is done.
//!
//! A trainer that crashes or is killed is started again and goes on from its last checkpoint; one
//! that does so several times without getting any further is given up. A trainer that fails with
//! an error of its own, as on a full disk, ends the search, which can be resumed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pba_search::protocol::{Line, Report};
use pba_search::{Event, Run};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::app::App;
use crate::jobs::record::{Record, State};
use crate::jobs::trainer::INTERRUPTED;

/// Starts of a trainer without a new checkpoint between them.
const STARTS_MAX: u32 = 4;
/// A trainer that is told to stop does so between two steps; later it is killed.
const STOP_SECONDS: Duration = Duration::from_secs(20);
/// How often a trainer that is not there is looked for.
const TRAINER_POLL: Duration = Duration::from_secs(1);
/// Bytes of its standard error that are kept for the error message.
const STDERR_BYTES: usize = 4096;

/// How a trainer ended.
enum End {
    /// The search is done.
    Done,
    /// It crashed, was killed, or was told to stop by somebody else.
    Crashed(String),
    /// It said why it cannot go on.
    Failed(String),
    /// Somebody cancelled the search.
    Cancelled,
    /// The server shuts down.
    Stopped,
}

/// Runs searches until `stop` turns true; the running one then goes on after a restart.
pub(crate) async fn supervise(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let mut was_there = true;
    while !*stop.borrow() {
        // One that is still being built, as by `make run`, or was not mounted: the searches of a server
        // that was restarted wait for it.
        let is_there = app.searches.trainer.is_there();
        match app.searches.next() {
            Some(record) if is_there => run(&app, &record, &mut stop).await,
            Some(record) => {
                if was_there {
                    let trainer = app.searches.trainer.program().display();
                    tracing::warn!(search = record.id(), %trainer, "the search waits: there is no trainer");
                }
                tokio::select! {
                    () = tokio::time::sleep(TRAINER_POLL) => {}
                    () = told(&mut stop) => {}
                }
            }
            None => tokio::select! {
                () = app.searches.queued.notified() => {}
                () = told(&mut stop) => {}
            },
        }
        was_there = is_there;
        app.searches.count_states();
    }
}

async fn run(app: &App, record: &Record, stop: &mut watch::Receiver<bool>) {
    let searches = &app.searches;
    if !record.begin() {
        return; // cancelled meanwhile
    }
    searches.count_states();
    tracing::info!(search = record.id(), "search runs");
    let mut starts = 0;
    let mut checkpoint = record.search().map_or(0, |search| search.epoch());
    loop {
        let end = attempt(app, record, stop).await.unwrap_or_else(|error| End::Failed(format!("{error:#}")));
        let reached = record.search().map_or(0, |search| search.epoch());
        starts = if reached > checkpoint { 1 } else { starts + 1 };
        checkpoint = reached;
        match end {
            End::Done => return finish(app, record),
            End::Cancelled => {
                tracing::info!(search = record.id(), "search cancelled");
                return record.enter(State::Cancelled, None);
            }
            End::Stopped => return record.enter(State::Queued, None),
            End::Failed(reason) => return fail(record, reason),
            End::Crashed(reason) if starts >= STARTS_MAX => {
                let reason = format!("the trainer ended {starts} times without getting further: {reason}");
                return fail(record, reason);
            }
            End::Crashed(reason) => {
                tracing::warn!(search = record.id(), %reason, "the trainer ended; it goes on from its last checkpoint");
                app.metrics.search_restarts.inc();
            }
        }
    }
}

fn fail(record: &Record, reason: String) {
    tracing::error!(search = record.id(), %reason, "search failed");
    record.enter(State::Failed, Some(reason));
}

/// Registers what was learned.
fn finish(app: &App, record: &Record) {
    let schedule = record.search().and_then(|search| search.schedule().cloned());
    let program = app.searches.trainer.program().display();
    let none = || format!("the trainer ended without a schedule; is {program} a pba-trainer?");
    let registered = schedule
        .with_context(none)
        .and_then(|schedule| app.registry.put(schedule).map_err(|error| anyhow::anyhow!("{}", error.detail)));
    match registered {
        Ok(_) => {
            tracing::info!(search = record.id(), "search done");
            record.enter(State::Done, None);
        }
        Err(error) => fail(record, format!("no schedule can be registered: {error:#}")),
    }
}

/// Done when the server shuts down.
async fn told(stop: &mut watch::Receiver<bool>) {
    // The sender is gone only when the server is.
    let _ = stop.wait_for(|&stop| stop).await;
}

/// One life of a trainer.
async fn attempt(app: &App, record: &Record, stop: &mut watch::Receiver<bool>) -> anyhow::Result<End> {
    let directory = record.directory();
    let spec = serde_json::to_vec_pretty(&record.spec())?;
    std::fs::write(directory.join("spec.json"), spec)
        .with_context(|| format!("cannot write {}", directory.join("spec.json").display()))?;
    let searches = &app.searches;
    let mut child = searches.trainer.start(directory, &record.source(), &searches.cache)?;
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let complaints = tokio::spawn(last_words(child.stderr.take().expect("stderr is piped")));

    let mut failure = None;
    loop {
        tokio::select! {
            line = lines.next_line() => match line.context("cannot read from the trainer")? {
                Some(line) => {
                    if let Some(reason) = heard(app, record, &line)? {
                        failure = Some(reason);
                    }
                }
                None => break,
            },
            () = record.cancelled.notified() => {
                end(&mut child).await;
                return Ok(End::Cancelled);
            }
            () = told(stop) => {
                end(&mut child).await;
                return Ok(End::Stopped);
            }
        }
    }
    let status = child.wait().await.context("cannot wait for the trainer")?;
    let complaints = complaints.await.unwrap_or_default();
    let ending = match complaints.trim() {
        "" => format!("{status}"),
        last_words => format!("{status}: {last_words}"),
    };
    Ok(match (status.code(), failure) {
        (Some(0), _) => End::Done,
        (Some(INTERRUPTED) | None, _) => End::Crashed(ending),
        (_, Some(reason)) => End::Failed(reason),
        // It never came as far as to say something: libtorch is missing, or a thread panicked.
        (Some(_), None) => End::Failed(format!("the trainer ended with {ending}")),
    })
}

/// Takes in one line of the trainer; answers why it failed, if it says so.
fn heard(app: &App, record: &Record, line: &str) -> anyhow::Result<Option<String>> {
    let metrics = &app.metrics;
    match serde_json::from_str::<Line<Event>>(line) {
        Ok(Line::Event(event)) => {
            record.happened(&event)?;
            match event {
                Event::Scored { epoch, .. } => {
                    metrics.search_epoch.set(epoch.into());
                    let best = record.search().and_then(|search| search.population().best().score);
                    metrics.search_best_accuracy.set(best.filter(|best| best.is_finite()).unwrap_or(0.0));
                }
                Event::Exploit(_) => metrics.search_exploits.inc(),
                _ => {}
            }
        }
        Ok(Line::Report(Report::Resumed { events, .. })) => record.reread(events)?,
        Ok(Line::Report(Report::Progress(progress))) => {
            metrics.gpu_memory_used_bytes.set(progress.gpu_memory_used_bytes.unwrap_or(0) as i64);
            metrics.search_images_trained.inc_by(record.progressed(progress));
        }
        Ok(Line::Report(Report::Failed { error })) => return Ok(Some(error)),
        // A spec that was right when the search was started, as for a device that is gone.
        Ok(Line::Refused { error }) => return Ok(Some(error.message)),
        Ok(Line::Report(report)) => tracing::debug!(search = record.id(), ?report, "trainer"),
        Err(_) => {
            tracing::warn!(search = record.id(), line, "the trainer said something that is no event");
        }
    }
    Ok(None)
}

/// Tells a trainer to stop, and kills it if it does not.
async fn end(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if timeout(STOP_SECONDS, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// The end of what a trainer says on its standard error.
async fn last_words(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(read @ 1..) = stderr.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..read]);
        let excess = kept.len().saturating_sub(STDERR_BYTES);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
