//! `/v1/searches`: population searches.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use pba_search::SearchSpec;
use pba_wire::Problem;
use pba_wire::searches::{SearchAnswer, SearchList};

use crate::app::App;
use crate::draw;
use crate::error::Error;
use crate::http::{jobs, no_parameters};

/// Every search, by id.
#[utoipa::path(get, path = "/v1/searches", tag = "searches", responses(
    (status = 200, body = SearchList),
    (status = 400, description = "a parameter", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<SearchList>, Error> {
    Ok(Json(SearchList { searches: jobs::list(&app.jobs.searches, &uri)? }))
}

/// Puts a search in line. Every field of the spec is optional.
#[utoipa::path(post, path = "/v1/searches", tag = "searches", request_body = SearchSpec, responses(
    (status = 202, body = SearchAnswer, headers(("location" = String, description = "where the search is"))),
    (status = 400, description = "a wrong field, body or parameter", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "no such dataset", body = Problem, content_type = "application/problem+json"),
    (status = 408, description = "the body does not come", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "the name is taken, or another server hosts searches", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "the body is too large", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "the dataset cannot be read", body = Problem, content_type = "application/problem+json"),
    (status = 429, description = "too many searches wait", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "no trainer runs, or the server shuts down", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn start(
    State(app): State<Arc<App>>,
    uri: Uri,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    jobs::start(&app, &app.jobs.searches, &uri, body).await
}

/// One search.
#[utoipa::path(get, path = "/v1/searches/{search}", tag = "searches", params(("search" = String, Path, description = "its id")), responses(
    (status = 200, body = SearchAnswer),
    (status = 400, description = "a parameter", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "no such search", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<SearchAnswer>, Error> {
    jobs::show(&app.jobs.searches, &id, &uri)
}

/// Ends a waiting or running search, which can be resumed.
#[utoipa::path(delete, path = "/v1/searches/{search}", tag = "searches", params(("search" = String, Path, description = "its id")), responses(
    (status = 200, body = SearchAnswer),
    (status = 400, description = "a parameter", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "no such search", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "it has ended already, or another server hosts searches", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<SearchAnswer>, Error> {
    jobs::cancel(&app, &app.jobs.searches, &id, &uri).await
}

/// Goes on with a failed or cancelled search.
#[utoipa::path(post, path = "/v1/searches/{search}/resume", tag = "searches", params(("search" = String, Path, description = "its id")), responses(
    (status = 202, body = SearchAnswer),
    (status = 400, description = "a parameter", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "no such search", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "it is not to be resumed, or another server hosts searches", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<(StatusCode, Json<SearchAnswer>), Error> {
    jobs::resume(&app, &app.jobs.searches, &id, &uri)
}

/// Server-sent events until the search has ended: each line of its journal (`started`, `scored`, `exploit`, `checkpoint`, `done`) with its number
/// as id, and without an id `progress`, how far it is, and `state`, where it stands.
#[utoipa::path(get, path = "/v1/searches/{search}/events", tag = "searches", params(
    ("search" = String, Path, description = "its id"),
    ("last-event-id" = Option<u64>, Header, description = "only what came after the event with this id"),
), responses(
    (status = 200, description = "the events", body = String, content_type = "text/event-stream"),
    (status = 400, description = "a parameter or a wrong id", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "no such search", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "another server hosts searches", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Error> {
    jobs::events(&app, &app.jobs.searches, &id, &uri, &headers)
}

/// Draws the population's scores with the winner's lineage, and the schedule learned so far.
#[utoipa::path(get, path = "/v1/searches/{search}/plot.svg", tag = "searches", params(("search" = String, Path, description = "its id")), responses(
    (status = 200, description = "the picture", body = String, content_type = "image/svg+xml"),
    (status = 400, description = "a parameter", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "no such search", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn plot(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Error> {
    no_parameters(&uri)?;
    let record = app.jobs.searches.get(&id)?;
    let (lines, _) = record.lines_after(0);
    let events = lines.iter().filter_map(|(_, line)| serde_json::from_str(line).ok());
    let svg = draw::population::draw(record.id(), &record.spec(), record.job().as_ref(), events);
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response())
}
