//! `/v1/evaluations`: models trained from scratch and tested.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::response::sse::{Event, Sse};
use futures_util::Stream;
use pba_search::EvaluationSpec;
use pba_wire::evaluations::{EvaluationAnswer, EvaluationList};

use crate::app::App;
use crate::error::Error;
use crate::http::extract::Body;
use crate::http::jobs;
use crate::http::problem::{Conflict, NotFound, TooMany, Unavailable, Unprocessable};

/// Lists every evaluation.
#[utoipa::path(
    get,
    path = "/v1/evaluations",
    tag = "evaluations",
    responses((status = 200, description = "Every evaluation, by id", body = EvaluationList)),
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<EvaluationList> {
    Json(EvaluationList { evaluations: jobs::list(&app.jobs.evaluations) })
}

/// Starts an evaluation, or puts it in line. Every field of the spec is optional; its schedule is a name or a digest.
#[utoipa::path(
    post,
    path = "/v1/evaluations",
    tag = "evaluations",
    request_body = EvaluationSpec,
    responses(
        (status = 202, description = "It is in line", body = EvaluationAnswer, headers(("location" = String, description = "Where it is"))),
        NotFound, Conflict, Unprocessable, TooMany, Unavailable,
    ),
)]
pub(crate) async fn start(State(app): State<Arc<App>>, Body(body): Body) -> Result<Response, Error> {
    jobs::start(&app, &app.jobs.evaluations, &body).await
}

/// Describes an evaluation.
#[utoipa::path(
    get,
    path = "/v1/evaluations/{evaluation}",
    tag = "evaluations",
    params(("evaluation" = String, Path, description = "Its id")),
    responses((status = 200, description = "The evaluation", body = EvaluationAnswer), NotFound),
)]
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<EvaluationAnswer>, Error> {
    jobs::show(&app.jobs.evaluations, &id)
}

/// Ends a waiting or running evaluation; it can be resumed.
#[utoipa::path(
    delete,
    path = "/v1/evaluations/{evaluation}",
    tag = "evaluations",
    params(("evaluation" = String, Path, description = "Its id")),
    responses((status = 200, description = "It has ended", body = EvaluationAnswer), NotFound, Conflict),
)]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<EvaluationAnswer>, Error> {
    jobs::cancel(&app.jobs.evaluations, &id).await
}

/// Resumes a failed or cancelled evaluation.
#[utoipa::path(
    post,
    path = "/v1/evaluations/{evaluation}/resume",
    tag = "evaluations",
    params(("evaluation" = String, Path, description = "Its id")),
    responses((status = 202, description = "It is in line again", body = EvaluationAnswer), NotFound, Conflict),
)]
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<EvaluationAnswer>), Error> {
    jobs::resume(&app.jobs.evaluations, &id)
}

/// Follows an evaluation by server-sent events until it has ended: each event of its journal with its number as
/// id, and without an id `progress`, how far it is, and `state`, where it stands.
#[utoipa::path(
    get,
    path = "/v1/evaluations/{evaluation}/events",
    tag = "evaluations",
    params(
        ("evaluation" = String, Path, description = "Its id"),
        ("last-event-id" = Option<u64>, Header, description = "Only what came after the event of this id"),
    ),
    responses(
        (status = 200, description = "The events", body = String, content_type = "text/event-stream"),
        NotFound, Conflict,
    ),
)]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Error> {
    jobs::events(&app.jobs.evaluations, &id, &headers)
}
