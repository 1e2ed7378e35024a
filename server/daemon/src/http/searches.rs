//! `/v1/searches`: population searches.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use pba_search::protocol::Progress;
use pba_wire::epoch;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::app::App;
use crate::draw;
use crate::error::Error;
use crate::http::no_parameters;
use crate::http::schedules::body_bytes;
use crate::jobs::record::{Line, Record, State as SearchState};

/// A comment is sent this often, so that proxies keep a quiet connection.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Puts a search in line.
pub(crate) async fn start(
    State(app): State<Arc<App>>,
    uri: Uri,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    no_parameters(&uri)?;
    app.check_writer()?;
    if app.is_draining() {
        return Err(Error::draining());
    }
    let record = app.searches.start(&app, &body_bytes(&app, body)?).await?;
    let location = format!("/v1/searches/{}", record.id());
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(record.describe())).into_response())
}

/// Every search.
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, Error> {
    no_parameters(&uri)?;
    let searches: Vec<Value> = app.searches.list().iter().map(|record| record.describe()).collect();
    Ok(Json(json!({ "searches": searches })))
}

/// One search.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<Value>, Error> {
    no_parameters(&uri)?;
    Ok(Json(app.searches.get(&id)?.describe()))
}

/// Ends a search.
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<Value>, Error> {
    no_parameters(&uri)?;
    app.check_writer()?;
    let record = app.searches.cancel(&id)?;
    // A trainer ends between two steps; wait for it, so that the answer is the last word.
    let mut changes = record.watch();
    while !record.state().is_final() && changes.changed().await.is_ok() {}
    Ok(Json(record.describe()))
}

/// Goes on with a failed or cancelled search.
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<(StatusCode, Json<Value>), Error> {
    no_parameters(&uri)?;
    app.check_writer()?;
    let record = app.searches.resume(&id)?;
    Ok((StatusCode::ACCEPTED, Json(record.describe())))
}

/// Draws the population's scores with the winner's lineage, and the schedule learned so far.
pub(crate) async fn plot(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Error> {
    no_parameters(&uri)?;
    let record = app.searches.get(&id)?;
    let (lines, _) = record.lines_after(0);
    let events = lines.iter().filter_map(|line| match line {
        Line::Journal(_, line) => serde_json::from_str(line).ok(),
        _ => None,
    });
    let svg = draw::population::draw(record.id(), &record.spec(), record.search().as_ref(), events);
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response())
}

/// Server-sent events: each line of the journal with its number as id, and in between how far the
/// search is, and where it stands. With `Last-Event-ID`, only what came after it.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Error> {
    no_parameters(&uri)?;
    let record = app.searches.get(&id)?;
    // Only where it is hosted is it known at once what happens.
    app.check_writer()?;
    let seen = match headers.get("last-event-id") {
        None => 0,
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            epoch::integer("Last-Event-ID", text, 0..=usize::MAX)?
        }
    };
    let watcher = Watcher {
        changes: record.watch(),
        record,
        seen,
        state: None,
        progress: None,
        ready: VecDeque::new(),
    };
    let events = unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok(event), watcher))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEPALIVE)))
}

/// One client that watches one search.
struct Watcher {
    record: Arc<Record>,
    changes: watch::Receiver<u64>,
    /// Lines of the journal that the client has.
    seen: usize,
    state: Option<SearchState>,
    progress: Option<Progress>,
    ready: VecDeque<Line>,
}

impl Watcher {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(match line {
                    Line::Journal(number, line) => {
                        self.seen = number;
                        let value: Value = serde_json::from_str(&line).unwrap_or_default();
                        let kind = value["event"].as_str().unwrap_or("event").to_owned();
                        Event::default().id(number.to_string()).event(kind).data(line)
                    }
                    Line::Progress(progress) => {
                        Event::default().event("progress").data(json!(progress).to_string())
                    }
                    Line::State(value) => Event::default().event("state").data(value.to_string()),
                });
            }
            if self.state.is_some_and(SearchState::is_final) {
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
        self.ready.extend(lines);
        let progress = self.record.progress();
        if progress.is_some() && progress != self.progress {
            self.progress.clone_from(&progress);
            self.ready.extend(progress.map(Line::Progress));
        }
        if self.state != Some(state) {
            self.state = Some(state);
            let description = self.record.describe();
            let about = ["state", "epoch", "epochs", "best_accuracy", "seconds", "error", "schedule"];
            let about = about.into_iter().map(|key| (key.to_owned(), description[key].clone())).collect();
            self.ready.push_back(Line::State(Value::Object(about)));
        }
    }
}
