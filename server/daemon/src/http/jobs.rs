//! `/v1/searches`, `/v1/evaluations` and so on: the routes that all kinds of job share.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Extension, Json};
use futures_util::Stream;
use futures_util::stream::unfold;
use pba_search::protocol::{JobKind, event_name};
use pba_search::{Progress, Run, Spec, TrainingPlace};
use pba_wire::ParameterError;
use pba_wire::checksum::{self, Sum};
use pba_wire::jobs::{Job, JobState, MISSING, Missing, PROGRESS, STATE};
use pba_wire::query::integer;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema};
use utoipa::openapi::{ContentBuilder, HttpMethod, Ref, RefOr, Required, ResponseBuilder, Responses};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::error::Error;
use crate::http::asked::Asked;
use crate::http::extract::JsonBody;
use crate::http::json::{List, json};
use crate::http::problem::documented;
use crate::http::{change, read};
use crate::jobs::record::{Lines, Mark, Record};

/// How often a comment is sent, so that proxies do not close a quiet connection.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Lines of a journal that wait for a client that watches: one that does not read holds no more.
const LINES_AHEAD: usize = 256;

/// Lines that are not on disk are looked for once more after this time: a trainer that resumes cuts some off, a moment
/// before it says so.
pub(super) const GAP_PAUSE: Duration = Duration::from_secs(1);

/// The id of an event: its line of the journal, and when its job was requested, in milliseconds since 1970. That tells
/// the job from others of its name.
fn event_id(line: usize, created: u128) -> String {
    format!("{line}-{created}")
}

/// Lines of a journal that a client has by the id of the last event that it received; none of another job of the same
/// name. The number of the line alone is taken for one of this job.
fn lines_seen(last_event_id: &str, created: u128) -> Result<usize, Error> {
    let (line, job) = match last_event_id.split_once('-') {
        Some((line, job)) if !line.is_empty() => (line, Some(job)),
        _ => (last_event_id, None),
    };
    let wrong = |error: ParameterError| {
        let allowed = "the id of an event: LINE-TIME, or LINE";
        Error::parameter("Last-Event-ID", last_event_id, error.reason, allowed)
    };
    let line = integer(0..=usize::MAX).read("Last-Event-ID", line).map_err(wrong)?;
    let job = job.map(|job| integer(0..=u128::MAX).read("Last-Event-ID", job)).transpose().map_err(wrong)?;
    Ok(if job.is_none_or(|job| job == created) { line } else { 0 })
}

type Results<K> = <<K as Run>::Spec as Spec>::Results;

/// The routes of a kind of job, by which servers may answer them.
pub(super) struct Routes {
    pub(super) reads: OpenApiRouter<Arc<App>>,
    pub(super) writes: OpenApiRouter<Arc<App>>,
    pub(super) follows: OpenApiRouter<Arc<App>>,
    pub(super) begins: OpenApiRouter<Arc<App>>,
}

/// The routes that every kind of job has, with their part of `/openapi.json`.
pub(super) fn routes<K: Run>() -> Routes {
    let JobKind { name, plural, one, .. } = *K::JOB;
    let (all, each) = (format!("/v1/{plural}"), format!("/v1/{plural}/{{{name}}}"));
    let title = name[..1].to_uppercase() + &name[1..];
    let (answer, list) = (format!("{title}Answer"), format!("{title}List"));
    let answers = |schema: &str| ("application/json", Ref::from_schema_name(schema).into());
    let mut schemas = vec![
        (answer.clone(), Job::<K::Spec>::schema()),
        (list.clone(), one_property(plural, ArrayBuilder::new().items(Ref::from_schema_name(&answer)))),
        (<K::Spec as ToSchema>::name().into_owned(), K::Spec::schema()),
        (Results::<K>::name().into_owned(), Results::<K>::schema()),
    ];
    Job::<K::Spec>::schemas(&mut schemas);

    let operation = |handler: &str, summary, success: (_, _, (_, RefOr<Schema>)), refusals: &[StatusCode]| {
        let (status, description, (media_type, schema)) = success;
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let success = ResponseBuilder::new().description(description).content(media_type, content).build();
        let operation =
            OperationBuilder::new().tag(plural).operation_id(Some(handler)).summary(Some(summary));
        let refused = |status: &StatusCode| (status.as_str().to_owned(), documented(*status));
        let responses = refusals.iter().map(refused).chain([(String::from(status), success)]);
        operation.responses(responses.collect::<Responses>())
    };
    let route = |path: &str, method, to: MethodRouter<Arc<App>>, operation: OperationBuilder| {
        let mut paths = Paths::new();
        let id = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
        let id = id.description(Some("Its id, which is its name")).schema(Some(String::schema())).build();
        let operation = if path == all { operation } else { operation.parameter(id) };
        paths.add_path_operation(path, vec![method], operation.build());
        OpenApiRouter::new().routes((schemas.clone(), paths, to))
    };

    let listing = ("200", "The complete list", answers(&list));
    let listing = operation(
        "list",
        format!("Lists the {plural}: those that were requested last come first."),
        listing,
        &[],
    );
    let state = || ("200", "Its state", answers(&answer));
    let queued = || ("202", "It is queued", answers(&answer));
    let showing = operation("show", format!("Describes {one}."), state(), &[StatusCode::NOT_FOUND]);
    let spec =
        ContentBuilder::new().schema(Some(Ref::from_schema_name(<K::Spec as ToSchema>::name()))).build();
    let starting = operation(
        "start",
        format!("Queues {one}. Every field of its spec is optional."),
        queued(),
        &[
            StatusCode::NOT_FOUND,
            StatusCode::CONFLICT,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            StatusCode::UNPROCESSABLE_ENTITY,
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::INSUFFICIENT_STORAGE,
        ],
    )
    .request_body(Some(RequestBodyBuilder::new().content("application/json", spec).build()));
    let ends = [StatusCode::NOT_FOUND, StatusCode::CONFLICT];
    let cancelling = format!("Cancels {one} that is waiting or running; it can be resumed.");
    let changes = [ends[0], ends[1], StatusCode::INSUFFICIENT_STORAGE];
    let cancelling = operation("cancel", cancelling, state(), &changes);
    let resuming = format!("Resumes {one} that failed or was cancelled.");
    let resuming = operation("resume", resuming, queued(), &changes);
    let removing =
        format!("Removes {one} that has ended, with its files. The schedule that a search learned stays.");
    let removing = operation("remove", removing, ("200", "Its last state", answers(&answer)), &changes);
    // The schema is that of an event; the document has no way to say so before OpenAPI 3.2.
    let event = ["event", "id", "data"]
        .iter()
        .fold(ObjectBuilder::new(), |event, field| event.property(*field, String::schema()));
    let event = ("text/event-stream", event.required("event").required("data").into());
    let following = format!(
        "Follows {one} by server-sent events until it ends: each event of its journal, with an id that begins with \
         the number of its line (or `{MISSING}`, where lines are lost), and without an id its `{PROGRESS}` and its \
         `{STATE}`."
    );
    let last = ParameterBuilder::new().name("last-event-id").parameter_in(ParameterIn::Header);
    let last = last.description(Some("Only send events after the one with this id"));
    let following = operation("events", following, ("200", "The events", event), &ends)
        .parameter(last.schema(Some(String::schema())).build());

    Routes {
        reads: route(&all, HttpMethod::Get, get(self::list::<K>), listing).merge(route(
            &each,
            HttpMethod::Get,
            get(show::<K>),
            showing,
        )),
        writes: route(&each, HttpMethod::Delete, delete(cancel::<K>), cancelling)
            .merge(route(&format!("{each}/resume"), HttpMethod::Post, post(resume::<K>), resuming))
            .merge(route(&format!("{each}/remove"), HttpMethod::Post, post(remove::<K>), removing)),
        follows: route(&format!("{each}/events"), HttpMethod::Get, get(events::<K>), following),
        begins: route(&all, HttpMethod::Post, post(start::<K>), starting),
    }
}

/// The schema of an object with one property.
fn one_property(name: &str, schema: ArrayBuilder) -> RefOr<Schema> {
    ObjectBuilder::new().property(name, schema).required(name).into()
}

async fn list<K: Run>(State(app): State<Arc<App>>) -> Result<Response, Error> {
    let list = |app: &App| {
        let mut records = app.jobs.of::<K>().list();
        records.sort_by_key(|record| std::cmp::Reverse(record.created()));
        let elements = || records.iter().map(|record| record.answer(&app.registry));
        json(&app.engine, &List { name: K::JOB.plural, elements })
    };
    read(app, list).await
}

async fn show<K: Run>(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Error> {
    read(app, move |app| json(&app.engine, &app.jobs.of::<K>().get(&id)?.answer(&app.registry))).await
}

async fn start<K: Run>(State(app): State<Arc<App>>, JsonBody(body): JsonBody) -> Result<Response, Error> {
    let starting = Arc::clone(&app);
    let start = async move || {
        starting.lock.check_in_place()?;
        starting.jobs.start::<K>(&starting.catalog, &starting.registry, &body).await
    };
    let record = app.apart.start(start).await?;
    let location = format!("/v1/{}/{}", K::JOB.plural, record.id());
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(record.answer(&app.registry)))
        .into_response())
}

async fn cancel<K: Run>(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Job<K::Spec>>, Error> {
    let record = change(Arc::clone(&app), move |app| app.jobs.of::<K>().cancel(&id)).await?;
    // A trainer ends between two steps; wait for it, so that the answer is the last word.
    let mut changes = record.watch();
    while !record.state().is_final() && changes.changed().await.is_ok() {}
    Ok(Json(record.answer(&app.registry)))
}

async fn resume<K: Run>(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Job<K::Spec>>), Error> {
    let resume = move |app: &App| {
        let record = app.jobs.resume::<K>(&app.registry, &id)?;
        Ok((StatusCode::ACCEPTED, Json(record.answer(&app.registry))))
    };
    change(app, resume).await
}

async fn remove<K: Run>(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Job<K::Spec>>, Error> {
    change(app, move |app| Ok(Json(app.jobs.remove::<K>(&id)?.answer(&app.registry)))).await
}

async fn events<K: Run>(
    State(app): State<Arc<App>>,
    Extension(asked): Extension<Asked>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Error> {
    let record = read(Arc::clone(&app), move |app| app.jobs.of::<K>().get(&id)).await?;
    let last_id = headers.get("last-event-id").map(|value| value.to_str().unwrap_or_default());
    let seen = last_id.map_or(Ok(0), |id| lines_seen(id, record.created()))?;
    let asked = checksum::of_events(last_id.unwrap_or_default(), asked.sum);
    let (changes, ready) = (record.watch(), VecDeque::new());
    let mark = Mark::default();
    let watcher =
        Watcher { app, asked, changes, record, seen, mark, gap: None, state: None, progress: None, ready };
    let events = unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok(event), watcher))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEPALIVE)))
}

/// A client that watches a job.
struct Watcher<K: Run> {
    app: Arc<App>,
    /// The checksum of its request and of the id that came with it.
    asked: Sum,
    record: Arc<Record<K>>,
    changes: watch::Receiver<u64>,
    /// Lines of the journal that the client has received.
    seen: usize,
    /// Where the lines ended that were read from the disk.
    mark: Mark,
    /// Lines that it had received when the next ones were not on disk.
    gap: Option<usize>,
    /// State and place that the client has received.
    state: Option<(JobState, Option<TrainingPlace>)>,
    progress: Option<Progress>,
    ready: VecDeque<Event>,
}

impl<K: Run> Watcher<K> {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.state.as_ref().is_some_and(|(state, _)| state.is_final()) {
                return None;
            }
            if self.look().await? && self.ready.is_empty() {
                self.changes.changed().await.ok()?;
            }
        }
    }

    /// Collects new events; whether these are all. None when others cannot be told: then the client is not told how
    /// the job stands either, and may ask again from where it is.
    async fn look(&mut self) -> Option<bool> {
        self.changes.mark_unchanged();
        let (lines, state) = self.record.lines_after(self.seen, LINES_AHEAD);
        let (lines, are_all) = match lines {
            Lines::Here { lines, are_all } => (lines, are_all),
            Lines::OnDisk { end } => (self.read(end).await?, false),
        };
        for line in lines {
            self.seen += 1;
            match event_name(&line) {
                Ok(name) => self.tell(Some(self.seen), &name, line),
                Err(_) => self.tell_missing(self.seen),
            }
        }
        if !are_all {
            // They follow when these are taken, and the state follows them.
            return Some(false);
        }
        if let Some(progress) = self.record.progress().filter(|now| Some(now) != self.progress.as_ref()) {
            self.tell(None, PROGRESS, written(&progress));
            self.progress = Some(progress);
        }
        if self.state.as_ref() != Some(&state) {
            self.state = Some(state);
            self.tell(None, STATE, written(&self.record.answer(&self.app.registry)));
        }
        Some(true)
    }

    /// Adds an event, of a line of the journal if it has its number.
    fn tell(&mut self, line: Option<usize>, name: &str, data: String) {
        let id = line.map(|line| event_id(line, self.record.created()));
        let sum = checksum::of_event(id.as_deref().unwrap_or_default(), name, &data, self.asked);
        let event =
            Event::default().comment(format!("{}{sum}", checksum::EVENT_COMMENT)).event(name).data(data);
        self.ready.push_back(if let Some(id) = id { event.id(id) } else { event });
    }

    /// Says that lines of the journal are lost, from `first` to the last one that is taken for seen.
    fn tell_missing(&mut self, first: usize) {
        let missing = Missing { first, last: self.seen };
        tracing::warn!(id = self.record.id(), "{missing}");
        self.tell(Some(self.seen), MISSING, written(&missing));
    }

    /// The next lines of those that are on disk, up to line `end`. The client is told of those that are not as they were
    /// written; none when the job was removed, or the disk fails.
    async fn read(&mut self, end: usize) -> Option<Vec<String>> {
        let (record, mut mark, seen) = (Arc::clone(&self.record), self.mark, self.seen);
        let read = move || {
            let lines = record.lines_on_disk(&mut mark, seen, end, LINES_AHEAD)?;
            Ok((lines, mark))
        };
        let id = self.record.id();
        match self.app.apart.watch(read).await {
            Ok((lines, mark)) if !lines.is_empty() => {
                self.mark = mark;
                Some(lines)
            }
            Ok(_) if self.gap == Some(seen) => {
                self.seen = end;
                self.tell_missing(seen + 1);
                Some(Vec::new())
            }
            Ok(_) => {
                self.gap = Some(seen);
                tokio::time::sleep(GAP_PAUSE).await;
                Some(Vec::new())
            }
            Err(error) => {
                tracing::warn!(
                    id,
                    error = error.detail,
                    "lines {} to {end} of the journal cannot be told",
                    seen + 1
                );
                None
            }
        }
    }
}

fn written(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("an answer is written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_an_event_tells_its_job_from_others_of_its_name() {
        let seen = |id: &str| lines_seen(id, 1_700).ok();
        assert_eq!(event_id(5, 1_700), "5-1700");
        assert_eq!(["5-1700", "5", "5-1699", "0-1700"].map(seen), [Some(5), Some(5), Some(0), Some(0)]);
        assert_eq!(["", "-1", "5-", "5-x", "x-1700", "5-1700-1", "-", "1.5"].map(seen), [None; 8]);
    }
}
