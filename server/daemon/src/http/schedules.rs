//! `/v1/schedules`: the registry.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use pba_schedules::{Schedule, ScheduleError, formats};
use pba_types::{NAME_SHOWN, check_name, names_allowed, shortened};
use pba_wire::schedules::{PutSchedule, ScheduleList, ScheduleSummary};

use crate::app::App;
use crate::catalog::schedules::Put;
use crate::catalog::stored::summary;
use crate::draw;
use crate::error::{Cause, Error};
use crate::http::extract::{Body, Query};
use crate::http::json::json;
use crate::http::problem::{Conflict, DiskFull, NotFound, TooMany, UnsupportedMediaType};
use crate::http::{change, compute, read};

/// Lists a summary of every schedule.
#[utoipa::path(get, path = "/v1/schedules", tag = "schedules", responses((status = 200, description = "Every schedule, then the policies that never change; of RandAugment's, one for all", body = ScheduleList)))]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Response, Error> {
    compute(app, |app| json(&app.engine, &ScheduleList { schedules: app.registry.list() })).await
}

/// Returns a schedule as a `pba-schedule` document, with its digest as the entity tag.
#[utoipa::path(
    get,
    path = "/v1/schedules/{schedule}",
    tag = "schedules",
    params(("schedule" = String, Path, description = "Its name, or its digest or 12 or more digits of it; randaugment:N:M among the names")),
    responses((status = 200, description = "The schedule", body = Object), NotFound),
)]
pub(crate) async fn show(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, Error> {
    Ok(document(&*app.registry.get(&name)?).into_response())
}

/// The answer that is a schedule.
pub(super) fn document(schedule: &Schedule) -> impl IntoResponse + use<> {
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::ETAG, format!("\"{}\"", schedule.digest())),
    ];
    (headers, formats::json::write_with_digest(schedule))
}

/// Adds a schedule in any supported format: `pba-schedule/1` or `/2`, a lineage log, or with `trial` the log of a
/// population.
#[utoipa::path(
    put,
    path = "/v1/schedules/{schedule}",
    tag = "schedules",
    params(("schedule" = String, Path, description = "Name of the new schedule"), PutSchedule),
    request_body(description = "The schedule", content((Object = "application/json"), (String = "text/plain"))),
    responses(
        (status = 200, description = "It exists already, with the same content", body = ScheduleSummary),
        (status = 201, description = "The schedule was added", body = ScheduleSummary),
        Conflict, UnsupportedMediaType, TooMany, DiskFull,
    ),
)]
pub(crate) async fn put(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(query): Query<PutSchedule>,
    Body(body): Body,
) -> Result<(StatusCode, Json<ScheduleSummary>), Error> {
    check_name(&name).map_err(|_| {
        let shown = shortened(&name, NAME_SHOWN);
        Error::parameter("schedule", &name, format!("{shown:?} is not a schedule name"), names_allowed())
    })?;
    change(app, move |app| add(app, &name, &query, &body)).await
}

/// Memory that a document takes at most while it is read, in bytes for each of its bytes but white space: `"",` in
/// a list of texts becomes 24 bytes, of which a list that grows has twice as many.
const DOCUMENT_TIMES: usize = 16;
/// The same of a log, for all of its bytes: a line as it is read, and the policies of all lines.
const LOG_TIMES: usize = 4;

fn add(
    app: &App,
    name: &str,
    PutSchedule { epochs, trial }: &PutSchedule,
    body: &[u8],
) -> Result<(StatusCode, Json<ScheduleSummary>), Error> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Error::new(Cause::NotReadable, format!("the body is not UTF-8 text: {error}")))?;
    let is_document = formats::is_document(text);
    let read_bytes = match is_document {
        true => app.registry.check_size(text)? * DOCUMENT_TIMES,
        false => text.len() * LOG_TIMES,
    };
    let memory = app.engine.memory_for_answer(read_bytes as u64)?;
    if text.trim().is_empty() {
        return Err(Error::body("the body is empty; expected a pba-schedule document or a log"));
    }
    let schedule =
        formats::read(text, Some(name), *epochs, trial.as_deref()).map_err(|error| match &error {
            ScheduleError::UnknownTrial { name, .. } => {
                Error::parameter("trial", name, &error, "a trial of the log")
            }
            _ => Error::body(error),
        })?;
    drop(memory);
    if let Some(epochs) = epochs.filter(|_| is_document) {
        let reason = "the document already states the epochs of its search";
        return Err(Error::parameter("epochs", epochs, reason, "epochs only for a lineage log"));
    }
    if let Some(trial) = trial.as_deref().filter(|_| is_document) {
        let reason = "the document is one schedule, and not the log of a population";
        return Err(Error::parameter("trial", trial, reason, "trial only for the log of a population"));
    }
    let summary = summary(&schedule);
    let status = match app.registry.add(schedule, || app.jobs.promise(name))? {
        Put::Created => StatusCode::CREATED,
        Put::Unchanged => StatusCode::OK,
    };
    Ok((status, Json(summary)))
}

/// Removes a schedule.
#[utoipa::path(
    delete,
    path = "/v1/schedules/{schedule}",
    tag = "schedules",
    params(("schedule" = String, Path, description = "Its name")),
    responses((status = 204, description = "The schedule was removed"), NotFound, Conflict, DiskFull),
)]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Error> {
    change(app, move |app| {
        // First, so that neither its search nor a restart registers it again.
        let is_noted = app.registry.get(&name).is_ok() && app.jobs.schedule_removed(&name, true)?;
        app.registry.delete(&name).map_err(|error| {
            let undone = if is_noted { app.jobs.schedule_removed(&name, false) } else { Ok(true) };
            match undone {
                Ok(_) => error,
                Err(again) => error.and(&format!("nor can it be undone: {}", again.detail)),
            }
        })
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Plots a schedule.
#[utoipa::path(
    get,
    path = "/v1/schedules/{schedule}/plot.svg",
    tag = "schedules",
    params(("schedule" = String, Path, description = "Its name or digest; randaugment:N:M among the names")),
    responses((status = 200, description = "The plot", body = String, content_type = "image/svg+xml"), NotFound),
)]
pub(crate) async fn plot(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, Error> {
    let svg = read(app, move |app| Ok(draw::schedule::draw(&*app.registry.get(&name)?))).await?;
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response())
}
