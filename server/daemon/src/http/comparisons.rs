//! `/v1/comparisons/{comparison}/plot.svg` and `report.md`: the routes that only comparisons have.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use pba_search::{Comparison, markdown};

use crate::app::App;
use crate::draw;
use crate::error::Error;
use crate::http::problem::NotFound;
use crate::http::read;

/// Plots the errors of every run, and the differences with their intervals.
#[utoipa::path(
    get,
    path = "/v1/comparisons/{comparison}/plot.svg",
    tag = "comparisons",
    params(("comparison" = String, Path, description = "Its id")),
    responses((status = 200, description = "The plot", body = String, content_type = "image/svg+xml"), NotFound),
)]
pub(crate) async fn plot(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Error> {
    let plot = move |app: &App| {
        let answer = app.jobs.of::<Comparison>().get(&id)?.answer(&app.registry);
        Ok(draw::comparison::draw(&answer.spec, &answer.results))
    };
    let svg = read(app, plot).await?;
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response())
}

/// The report as Markdown, as far as it goes.
#[utoipa::path(
    get,
    path = "/v1/comparisons/{comparison}/report.md",
    tag = "comparisons",
    params(("comparison" = String, Path, description = "Its id")),
    responses((status = 200, description = "The report", body = String, content_type = "text/markdown; charset=utf-8"), NotFound),
)]
pub(crate) async fn report(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Error> {
    let report = move |app: &App| {
        let answer = app.jobs.of::<Comparison>().get(&id)?.answer(&app.registry);
        let place = answer.place.as_ref().map(|place| format!(" on {place}")).unwrap_or_default();
        let notes: String = answer.notes.iter().map(|note| format!("\n\nNote: {note}.")).collect();
        let circumstances = format!("Trained for {} s{place}.{notes}", answer.seconds);
        Ok(markdown(&answer.spec, &answer.results, Some(&circumstances)))
    };
    let text = read(app, report).await?;
    Ok(([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], text).into_response())
}
