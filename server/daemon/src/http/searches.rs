//! `/v1/searches/{search}/plot.svg` and `/finish`: the routes that only searches have.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use pba_search::{Search, SearchSpec};
use pba_wire::jobs::Job;

use crate::app::App;
use crate::draw;
use crate::error::Error;
use crate::http::jobs::GAP_PAUSE;
use crate::http::problem::{Conflict, DiskFull, NotFound};
use crate::http::{change, read, schedules};

/// Plots the population's scores with the winner's lineage, and the schedule learned so far.
#[utoipa::path(
    get,
    path = "/v1/searches/{search}/plot.svg",
    tag = "searches",
    params(("search" = String, Path, description = "Its id")),
    responses((status = 200, description = "The plot", body = String, content_type = "image/svg+xml"), NotFound),
)]
pub(crate) async fn plot(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Error> {
    let plot = move |app: &App| {
        let record = app.jobs.of::<Search>().get(&id)?;
        let (lines, missing) = record.journal()?;
        let events = lines.iter().filter_map(|line| serde_json::from_str(line).ok());
        Ok((draw::population::draw(record.id(), &record.spec(), record.job().as_ref(), events), missing))
    };
    let (mut svg, mut missing) = read(Arc::clone(&app), plot.clone()).await?;
    if missing.is_some() {
        tokio::time::sleep(GAP_PAUSE).await;
        (svg, missing) = read(app, plot).await?;
    }
    if let Some(missing) = missing {
        let remedy = "once this server is started again, the search can be resumed, and writes them anew";
        return Err(Error::internal(format_args!("{missing}; {remedy}")));
    }
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response())
}

/// Returns the schedule that a search learned, though its name may have been given to another one since.
#[utoipa::path(
    get,
    path = "/v1/searches/{search}/schedule",
    tag = "searches",
    params(("search" = String, Path, description = "Its id")),
    responses((status = 200, description = "The schedule, with its digest as the entity tag", body = Object), NotFound, Conflict),
)]
pub(crate) async fn schedule(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Error> {
    let learned = move |app: &App| app.jobs.of::<Search>().get(&id)?.learned();
    Ok(schedules::document(&read(app, learned).await?))
}

/// Has a search end with its generation, with the schedule of the best member so far.
///
/// That is the generation that it trains, or trains next; then it is done, as if all its epochs were trained. It
/// stays asked until it has ended, whatever happens meanwhile.
#[utoipa::path(
    post,
    path = "/v1/searches/{search}/finish",
    tag = "searches",
    params(("search" = String, Path, description = "Its id")),
    responses((status = 202, description = "It will end", body = ref("#/components/schemas/SearchAnswer")), NotFound, Conflict, DiskFull),
)]
pub(crate) async fn finish(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Job<SearchSpec>>), Error> {
    let finish = move |app: &App| {
        let record = app.jobs.of::<Search>().get(&id)?;
        record.finish()?;
        Ok((StatusCode::ACCEPTED, Json(record.answer(&app.registry))))
    };
    change(app, finish).await
}
