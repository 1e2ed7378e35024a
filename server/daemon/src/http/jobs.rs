//! What the routes of every kind of job do.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use pba_search::Progress;
use pba_search::protocol::event_name;
use pba_wire::epoch;
use pba_wire::jobs::{JobState, PROGRESS, STATE};
use serde::Serialize;
use tokio::sync::watch;

use crate::app::App;
use crate::error::Error;
use crate::http::no_parameters;
use crate::http::schedules::body_bytes;
use crate::jobs::kind::JobKind;
use crate::jobs::record::Record;
use crate::jobs::table::Table;

/// A comment is sent this often, so that proxies keep a quiet connection.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Puts a job in line.
pub(super) async fn start<K: JobKind>(
    app: &App,
    table: &Table<K>,
    uri: &Uri,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    no_parameters(uri)?;
    app.check_writer()?;
    if app.is_draining() {
        return Err(Error::draining());
    }
    let record = table.start(&app.catalog, &app.registry, &body_bytes(app, body)?).await?;
    let location = format!("/v1/{}/{}", K::JOB.plural, record.id());
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(record.answer())).into_response())
}

/// Every job of a kind.
pub(super) fn list<K: JobKind>(table: &Table<K>, uri: &Uri) -> Result<Vec<K::Answer>, Error> {
    no_parameters(uri)?;
    Ok(table.list().iter().map(|record| record.answer()).collect())
}

/// One job.
pub(super) fn show<K: JobKind>(table: &Table<K>, id: &str, uri: &Uri) -> Result<Json<K::Answer>, Error> {
    no_parameters(uri)?;
    Ok(Json(table.get(id)?.answer()))
}

/// Ends a job.
pub(super) async fn cancel<K: JobKind>(
    app: &App,
    table: &Table<K>,
    id: &str,
    uri: &Uri,
) -> Result<Json<K::Answer>, Error> {
    no_parameters(uri)?;
    app.check_writer()?;
    let record = table.cancel(id)?;
    // A trainer ends between two steps; wait for it, so that the answer is the last word.
    let mut changes = record.watch();
    while !record.state().is_final() && changes.changed().await.is_ok() {}
    Ok(Json(record.answer()))
}

/// Goes on with a failed or cancelled job.
pub(super) fn resume<K: JobKind>(
    app: &App,
    table: &Table<K>,
    id: &str,
    uri: &Uri,
) -> Result<(StatusCode, Json<K::Answer>), Error> {
    no_parameters(uri)?;
    app.check_writer()?;
    Ok((StatusCode::ACCEPTED, Json(table.resume(id)?.answer())))
}

/// Server-sent events: each line of the journal with its number as id, and in between how far the job
/// is, and where it stands. With `Last-Event-ID`, only what came after it.
pub(super) fn events<K: JobKind>(
    app: &App,
    table: &Table<K>,
    id: &str,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<K>>, Error> {
    no_parameters(uri)?;
    let record = table.get(id)?;
    // Only where it is hosted is it known at once what happens.
    app.check_writer()?;
    let seen = match headers.get("last-event-id") {
        None => 0,
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            epoch::integer("Last-Event-ID", text, 0..=usize::MAX)?
        }
    };
    let (changes, ready) = (record.watch(), VecDeque::new());
    let watcher = Watcher { changes, record, seen, state: None, progress: None, ready };
    let events = unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok(event), watcher))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEPALIVE)))
}

/// One client that watches one job.
struct Watcher<K: JobKind> {
    record: Arc<Record<K>>,
    changes: watch::Receiver<u64>,
    /// Lines of the journal that the client has.
    seen: usize,
    state: Option<JobState>,
    progress: Option<Progress>,
    ready: VecDeque<Event>,
}

impl<K: JobKind> Watcher<K> {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.state.is_some_and(JobState::is_final) {
                return None;
            }
            self.look();
            if self.ready.is_empty() {
                self.changes.changed().await.ok()?;
            }
        }
    }

    /// Collects what is new.
    fn look(&mut self) {
        self.changes.mark_unchanged();
        let (lines, state) = self.record.lines_after(self.seen);
        for (number, line) in lines {
            let name = event_name(&line).expect("a journal holds events");
            self.ready.push_back(Event::default().id(number.to_string()).event(name).data(line));
            self.seen = number;
        }
        if let Some(progress) = self.record.progress().filter(|now| Some(now) != self.progress.as_ref()) {
            self.ready.push_back(event(PROGRESS, &progress));
            self.progress = Some(progress);
        }
        if self.state != Some(state) {
            self.state = Some(state);
            self.ready.push_back(event(STATE, &self.record.standing()));
        }
    }
}

fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).data(serde_json::to_string(data).expect("an answer is written as JSON"))
}
