//! `/v1/searches`, `/v1/evaluations`: the routes that all kinds of job share.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use futures_util::Stream;
use futures_util::stream::unfold;
use pba_search::Progress;
use pba_search::protocol::{Job, event_name};
use pba_wire::jobs::{JobState, PROGRESS, STATE};
use pba_wire::query::{Form, Integer};
use serde::Serialize;
use tokio::sync::watch;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Schema};
use utoipa::openapi::{ContentBuilder, HttpMethod, Ref, RefOr, Required, ResponseBuilder, Responses};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::error::Error;
use crate::http::extract::Body;
use crate::http::problem::documented;
use crate::jobs::kind::JobKind;
use crate::jobs::record::Record;

/// How often a comment is sent, so that proxies do not close a quiet connection.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Lines of a journal that a client has.
const LAST_EVENT_ID: Integer<usize> = Integer(0..=usize::MAX);

/// The routes of a kind of job, by which servers may answer them.
pub(super) struct Routes {
    pub(super) reads: OpenApiRouter<Arc<App>>,
    pub(super) writes: OpenApiRouter<Arc<App>>,
    pub(super) begins: OpenApiRouter<Arc<App>>,
}

/// The routes that every kind of job has, with their part of `/openapi.json`.
pub(super) fn routes<K: JobKind>() -> Routes {
    let Job { name, plural, one, .. } = *K::JOB;
    let all = format!("/v1/{plural}");
    let each = format!("{all}/{{{name}}}");
    let route = |path: &str, operation: OperationBuilder, to: MethodRouter<Arc<App>>, method| {
        let mut schemas = vec![(K::List::name().into_owned(), K::List::schema())];
        K::List::schemas(&mut schemas);
        let mut paths = Paths::new();
        paths.add_path_operation(path, vec![method], operation.tag(plural).build());
        OpenApiRouter::new().routes((schemas, paths, to))
    };
    let said = |handler: &str, summary: String| {
        OperationBuilder::new().operation_id(Some(handler)).summary(Some(summary)).responses(Responses::new())
    };
    let id = || {
        let id = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
        id.description(Some("Its id, which is its name")).schema(Some(String::schema())).build()
    };
    let answers = |operation: OperationBuilder, status: &str, description: &str, answer: RefOr<Schema>| {
        let content = ContentBuilder::new().schema(Some(answer)).build();
        let response = ResponseBuilder::new().description(description).content("application/json", content);
        operation.response(status, response.build())
    };
    let refuses = |operation: OperationBuilder, statuses: &[StatusCode]| {
        statuses
            .iter()
            .fold(operation, |operation, status| operation.response(status.as_str(), documented(*status)))
    };
    let answer = || Ref::from_schema_name(K::Answer::name()).into();

    let listing = said("list", format!("Lists the {plural}, by id."));
    let listing = answers(listing, "200", "The complete list", Ref::from_schema_name(K::List::name()).into());
    let showing = said("show", format!("Describes {one}.")).parameter(id());
    let showing = refuses(answers(showing, "200", "Its state", answer()), &[StatusCode::NOT_FOUND]);
    let spec = ContentBuilder::new().schema(Some(Ref::from_schema_name(K::Spec::name()))).build();
    let starting = said("start", format!("Queues {one}. Every field of its spec is optional."))
        .request_body(Some(RequestBodyBuilder::new().content("application/json", spec).build()));
    let starting = refuses(
        answers(starting, "202", "It is queued", answer()),
        &[
            StatusCode::NOT_FOUND,
            StatusCode::CONFLICT,
            StatusCode::UNPROCESSABLE_ENTITY,
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ],
    );
    let ends = [StatusCode::NOT_FOUND, StatusCode::CONFLICT];
    let cancelling = said("cancel", format!("Cancels {one} that is waiting or running; it can be resumed."));
    let cancelling = refuses(answers(cancelling.parameter(id()), "200", "Its state", answer()), &ends);
    let resuming = said("resume", format!("Resumes {one} that failed or was cancelled."));
    let resuming = refuses(answers(resuming.parameter(id()), "202", "It is queued", answer()), &ends);
    let last = ParameterBuilder::new()
        .name("last-event-id")
        .parameter_in(ParameterIn::Header)
        .description(Some("Only send events after the one with this id"))
        .schema(Some(LAST_EVENT_ID.schema().build()));
    // The schema is that of an event; the document has no way to say so before OpenAPI 3.2.
    let text = || String::schema();
    let event =
        ObjectBuilder::new().property("event", text()).property("id", text()).property("data", text());
    let event = ContentBuilder::new().schema(Some(event.required("event").required("data").build())).build();
    let events = ResponseBuilder::new().description("The events").content("text/event-stream", event).build();
    let following = said(
        "events",
        format!(
            "Follows {one} by server-sent events until it ends: each event of its journal, with its number \
             as id, and without an id its `{PROGRESS}` and its `{STATE}`."
        ),
    );
    let following = following.parameter(id()).parameter(last.build()).response("200", events);

    Routes {
        reads: route(&all, listing, get(list::<K>), HttpMethod::Get).merge(route(
            &each,
            showing,
            get(show::<K>),
            HttpMethod::Get,
        )),
        writes: route(&each, cancelling, delete(cancel::<K>), HttpMethod::Delete)
            .merge(route(&format!("{each}/resume"), resuming, post(resume::<K>), HttpMethod::Post))
            .merge(route(
                &format!("{each}/events"),
                refuses(following, &ends),
                get(events_of::<K>),
                HttpMethod::Get,
            )),
        begins: route(&all, starting, post(start::<K>), HttpMethod::Post),
    }
}

async fn list<K: JobKind>(State(app): State<Arc<App>>) -> Json<K::List> {
    let jobs: Vec<K::Answer> = app.jobs.of::<K>().list().iter().map(|record| record.answer()).collect();
    Json(jobs.into())
}

async fn show<K: JobKind>(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<K::Answer>, Error> {
    Ok(Json(app.jobs.of::<K>().get(&id)?.answer()))
}

async fn start<K: JobKind>(State(app): State<Arc<App>>, Body(body): Body) -> Result<Response, Error> {
    let record = app.jobs.of::<K>().start(&app.catalog, &app.registry, &body).await?;
    let location = format!("/v1/{}/{}", K::JOB.plural, record.id());
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(record.answer())).into_response())
}

async fn cancel<K: JobKind>(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<K::Answer>, Error> {
    let record = app.jobs.of::<K>().cancel(&id)?;
    // A trainer ends between two steps; wait for it, so that the answer is the last word.
    let mut changes = record.watch();
    while !record.state().is_final() && changes.changed().await.is_ok() {}
    Ok(Json(record.answer()))
}

async fn resume<K: JobKind>(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<K::Answer>), Error> {
    Ok((StatusCode::ACCEPTED, Json(app.jobs.of::<K>().resume(&id)?.answer())))
}

async fn events_of<K: JobKind>(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Error> {
    let record = app.jobs.of::<K>().get(&id)?;
    let seen = match headers.get("last-event-id") {
        None => 0,
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            LAST_EVENT_ID.read("Last-Event-ID", text)?
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

/// A client that watches a job.
struct Watcher<K: JobKind> {
    record: Arc<Record<K>>,
    changes: watch::Receiver<u64>,
    /// Lines of the journal that the client has received.
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

    /// Collects new events.
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
