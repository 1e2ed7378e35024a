//! `/v1/evaluations`: models trained from scratch and tested.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::response::sse::{Event, Sse};
use futures_util::Stream;
use pba_search::EvaluationSpec;
use pba_wire::evaluations::{EvaluationAnswer, EvaluationList};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::Error;
use crate::http::jobs;
use crate::http::refusals::{OfChange, OfJob, OfList, OfOne};

/// The routes, with their descriptions.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, start))
        .routes(routes!(show, cancel))
        .routes(routes!(events))
        .routes(routes!(resume))
}

/// Every evaluation, by id.
#[utoipa::path(get, path = "/v1/evaluations", tag = "evaluations", operation_id = "list_evaluations", responses(
    (status = 200, body = EvaluationList),
    OfList,
))]
async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<EvaluationList>, Error> {
    Ok(Json(EvaluationList { evaluations: jobs::list(&app.jobs.evaluations, &uri)? }))
}

/// Puts an evaluation in line. Every field of the spec is optional; its schedule may be a name or a digest.
#[utoipa::path(post, path = "/v1/evaluations", tag = "evaluations", operation_id = "start_evaluation", request_body = EvaluationSpec, responses(
    (status = 202, body = EvaluationAnswer, headers(("location" = String, description = "where the evaluation is"))),
    OfJob,
))]
async fn start(
    State(app): State<Arc<App>>,
    uri: Uri,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    jobs::start(&app, &app.jobs.evaluations, &uri, body).await
}

/// One evaluation.
#[utoipa::path(get, path = "/v1/evaluations/{evaluation}", tag = "evaluations", operation_id = "show_evaluation", params(("evaluation" = String, Path, description = "its id")), responses(
    (status = 200, body = EvaluationAnswer),
    OfOne,
))]
async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<EvaluationAnswer>, Error> {
    jobs::show(&app.jobs.evaluations, &id, &uri)
}

/// Ends a waiting or running evaluation, which can be resumed.
#[utoipa::path(delete, path = "/v1/evaluations/{evaluation}", tag = "evaluations", operation_id = "cancel_evaluation", params(("evaluation" = String, Path, description = "its id")), responses(
    (status = 200, body = EvaluationAnswer),
    OfChange,
))]
async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<EvaluationAnswer>, Error> {
    jobs::cancel(&app, &app.jobs.evaluations, &id, &uri).await
}

/// Goes on with a failed or cancelled evaluation.
#[utoipa::path(post, path = "/v1/evaluations/{evaluation}/resume", tag = "evaluations", operation_id = "resume_evaluation", params(("evaluation" = String, Path, description = "its id")), responses(
    (status = 202, body = EvaluationAnswer),
    OfChange,
))]
async fn resume(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<(StatusCode, Json<EvaluationAnswer>), Error> {
    jobs::resume(&app, &app.jobs.evaluations, &id, &uri)
}

/// Server-sent events until the evaluation has ended: each line of its journal (`evaluating`, `trained`, `evaluated`) with its number
/// as id, and without an id `progress`, how far it is, and `state`, where it stands.
#[utoipa::path(get, path = "/v1/evaluations/{evaluation}/events", tag = "evaluations", operation_id = "watch_evaluation", params(
    ("evaluation" = String, Path, description = "its id"),
    ("last-event-id" = Option<u64>, Header, description = "only what came after the event with this id"),
), responses(
    (status = 200, description = "the events", body = String, content_type = "text/event-stream"),
    OfChange,
))]
async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Error> {
    jobs::events(&app, &app.jobs.evaluations, &id, &uri, &headers)
}
