//! `/v1/searches`: population searches.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use pba_search::Progress;
use pba_wire::query::{Form, Integer};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::app::App;
use crate::draw;
use crate::error::Error;
use crate::http::extract::Body;
use crate::http::problem::{Conflict, NotFound, TooMany, Unavailable};
use crate::jobs::record::{Line, Record, State as SearchState};

/// A comment is sent this often, so that proxies keep a quiet connection.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Puts a search in line.
#[utoipa::path(
    post,
    path = "/v1/searches",
    tag = "searches",
    request_body(description = "The spec", content((Object = "application/json"))),
    responses((status = 202, description = "It is in line", body = Object), NotFound, Conflict, TooMany, Unavailable),
)]
pub(crate) async fn start(State(app): State<Arc<App>>, Body(body): Body) -> Result<Response, Error> {
    let record = app.searches.start(&app, &body).await?;
    let location = format!("/v1/searches/{}", record.id());
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(record.describe())).into_response())
}

/// Every search.
#[utoipa::path(
    get,
    path = "/v1/searches",
    tag = "searches",
    responses((status = 200, description = "Every search", body = Object)),
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Json<Value>, Error> {
    let searches: Vec<Value> = app.searches.list().iter().map(|record| record.describe()).collect();
    Ok(Json(json!({ "searches": searches })))
}

/// One search.
#[utoipa::path(
    get,
    path = "/v1/searches/{search}",
    tag = "searches",
    params(("search" = String, Path, description = "Its id")),
    responses((status = 200, description = "The search", body = Object), NotFound),
)]
pub(crate) async fn show(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, Error> {
    Ok(Json(app.searches.get(&id)?.describe()))
}

/// Ends a search.
#[utoipa::path(
    delete,
    path = "/v1/searches/{search}",
    tag = "searches",
    params(("search" = String, Path, description = "Its id")),
    responses((status = 200, description = "It has ended", body = Object), NotFound, Conflict),
)]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Error> {
    let record = app.searches.cancel(&id)?;
    // A trainer ends between two steps; wait for it, so that the answer is the last word.
    let mut changes = record.watch();
    while !record.state().is_final() && changes.changed().await.is_ok() {}
    Ok(Json(record.describe()))
}

/// Goes on with a failed or cancelled search.
#[utoipa::path(
    post,
    path = "/v1/searches/{search}/resume",
    tag = "searches",
    params(("search" = String, Path, description = "Its id")),
    responses((status = 202, description = "It is in line again", body = Object), NotFound, Conflict),
)]
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Value>), Error> {
    let record = app.searches.resume(&id)?;
    Ok((StatusCode::ACCEPTED, Json(record.describe())))
}

/// Draws the population's scores with the winner's lineage, and the schedule learned so far.
#[utoipa::path(
    get,
    path = "/v1/searches/{search}/plot.svg",
    tag = "searches",
    params(("search" = String, Path, description = "Its id")),
    responses((status = 200, description = "The plot", body = String, content_type = "image/svg+xml"), NotFound),
)]
pub(crate) async fn plot(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Error> {
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
#[utoipa::path(
    get,
    path = "/v1/searches/{search}/events",
    tag = "searches",
    params(("search" = String, Path, description = "Its id")),
    responses((status = 200, description = "Server-sent events", body = String, content_type = "text/event-stream"), NotFound, Conflict),
)]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Error> {
    let record = app.searches.get(&id)?;
    let seen = match headers.get("last-event-id") {
        None => 0,
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            Integer(0..=usize::MAX).read("Last-Event-ID", text)?
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
