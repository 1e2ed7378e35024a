//! `/v1/searches`: population searches.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use pba_search::SearchSpec;
use pba_wire::searches::{SearchAnswer, SearchList};

use crate::app::App;
use crate::draw;
use crate::error::Error;
use crate::http::extract::Body;
use crate::http::jobs;
use crate::http::problem::{Conflict, NotFound, TooMany, Unavailable, Unprocessable};

/// Lists every search.
#[utoipa::path(
    get,
    path = "/v1/searches",
    tag = "searches",
    responses((status = 200, description = "Every search, by id", body = SearchList)),
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<SearchList> {
    Json(SearchList { searches: jobs::list(&app.jobs.searches) })
}

/// Starts a search, or puts it in line. Every field of the spec is optional.
#[utoipa::path(
    post,
    path = "/v1/searches",
    tag = "searches",
    request_body = SearchSpec,
    responses(
        (status = 202, description = "It is in line", body = SearchAnswer, headers(("location" = String, description = "Where it is"))),
        NotFound, Conflict, Unprocessable, TooMany, Unavailable,
    ),
)]
pub(crate) async fn start(State(app): State<Arc<App>>, Body(body): Body) -> Result<Response, Error> {
    jobs::start(&app, &app.jobs.searches, &body).await
}

/// Describes a search.
#[utoipa::path(
    get,
    path = "/v1/searches/{search}",
    tag = "searches",
    params(("search" = String, Path, description = "Its id")),
    responses((status = 200, description = "The search", body = SearchAnswer), NotFound),
)]
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<SearchAnswer>, Error> {
    jobs::show(&app.jobs.searches, &id)
}

/// Ends a waiting or running search; it can be resumed.
#[utoipa::path(
    delete,
    path = "/v1/searches/{search}",
    tag = "searches",
    params(("search" = String, Path, description = "Its id")),
    responses((status = 200, description = "It has ended", body = SearchAnswer), NotFound, Conflict),
)]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<SearchAnswer>, Error> {
    jobs::cancel(&app.jobs.searches, &id).await
}

/// Resumes a failed or cancelled search.
#[utoipa::path(
    post,
    path = "/v1/searches/{search}/resume",
    tag = "searches",
    params(("search" = String, Path, description = "Its id")),
    responses((status = 202, description = "It is in line again", body = SearchAnswer), NotFound, Conflict),
)]
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<SearchAnswer>), Error> {
    jobs::resume(&app.jobs.searches, &id)
}

/// Follows a search by server-sent events until it has ended: each event of its journal with its number as
/// id, and without an id `progress`, how far it is, and `state`, where it stands.
#[utoipa::path(
    get,
    path = "/v1/searches/{search}/events",
    tag = "searches",
    params(
        ("search" = String, Path, description = "Its id"),
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
    jobs::events(&app.jobs.searches, &id, &headers)
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
    let record = app.jobs.searches.get(&id)?;
    let (lines, _) = record.lines_after(0);
    let events = lines.iter().filter_map(|(_, line)| serde_json::from_str(line).ok());
    let svg = draw::population::draw(record.id(), &record.spec(), record.job().as_ref(), events);
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response())
}
