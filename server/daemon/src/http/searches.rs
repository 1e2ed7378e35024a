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
use pba_wire::searches::{SearchAnswer, SearchList};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::draw;
use crate::error::Error;
use crate::http::refusals::{OfChange, OfJob, OfList, OfOne};
use crate::http::{jobs, no_parameters};

/// The routes, with their descriptions.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, start))
        .routes(routes!(show, cancel))
        .routes(routes!(events))
        .routes(routes!(resume))
        .routes(routes!(plot))
}

/// Every search, by id.
#[utoipa::path(get, path = "/v1/searches", tag = "searches", operation_id = "list_searches", responses(
    (status = 200, body = SearchList),
    OfList,
))]
async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<SearchList>, Error> {
    Ok(Json(SearchList { searches: jobs::list(&app.jobs.searches, &uri)? }))
}

/// Puts a search in line. Every field of the spec is optional.
#[utoipa::path(post, path = "/v1/searches", tag = "searches", operation_id = "start_search", request_body = SearchSpec, responses(
    (status = 202, body = SearchAnswer, headers(("location" = String, description = "where the search is"))),
    OfJob,
))]
async fn start(
    State(app): State<Arc<App>>,
    uri: Uri,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    jobs::start(&app, &app.jobs.searches, &uri, body).await
}

/// One search.
#[utoipa::path(get, path = "/v1/searches/{search}", tag = "searches", operation_id = "show_search", params(("search" = String, Path, description = "its id")), responses(
    (status = 200, body = SearchAnswer),
    OfOne,
))]
async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<SearchAnswer>, Error> {
    jobs::show(&app.jobs.searches, &id, &uri)
}

/// Ends a waiting or running search, which can be resumed.
#[utoipa::path(delete, path = "/v1/searches/{search}", tag = "searches", operation_id = "cancel_search", params(("search" = String, Path, description = "its id")), responses(
    (status = 200, body = SearchAnswer),
    OfChange,
))]
async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<SearchAnswer>, Error> {
    jobs::cancel(&app, &app.jobs.searches, &id, &uri).await
}

/// Goes on with a failed or cancelled search.
#[utoipa::path(post, path = "/v1/searches/{search}/resume", tag = "searches", operation_id = "resume_search", params(("search" = String, Path, description = "its id")), responses(
    (status = 202, body = SearchAnswer),
    OfChange,
))]
async fn resume(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<(StatusCode, Json<SearchAnswer>), Error> {
    jobs::resume(&app, &app.jobs.searches, &id, &uri)
}

/// Server-sent events until the search has ended: each line of its journal (`started`, `scored`, `exploit`, `checkpoint`, `done`) with its number
/// as id, and without an id `progress`, how far it is, and `state`, where it stands.
#[utoipa::path(get, path = "/v1/searches/{search}/events", tag = "searches", operation_id = "watch_search", params(
    ("search" = String, Path, description = "its id"),
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
    jobs::events(&app, &app.jobs.searches, &id, &uri, &headers)
}

/// Draws the population's scores with the winner's lineage, and the schedule learned so far.
#[utoipa::path(get, path = "/v1/searches/{search}/plot.svg", tag = "searches", operation_id = "plot_search", params(("search" = String, Path, description = "its id")), responses(
    (status = 200, description = "the picture", body = String, content_type = "image/svg+xml"),
    OfOne,
))]
async fn plot(State(app): State<Arc<App>>, Path(id): Path<String>, uri: Uri) -> Result<Response, Error> {
    no_parameters(&uri)?;
    let record = app.jobs.searches.get(&id)?;
    let (lines, _) = record.lines_after(0);
    let events = lines.iter().filter_map(|(_, line)| serde_json::from_str(line).ok());
    let svg = draw::population::draw(record.id(), &record.spec(), record.job().as_ref(), events);
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response())
}
