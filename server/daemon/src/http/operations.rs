//! `GET /metrics`, `/livez`, `/readyz` and `/openapi.json`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use pba_wire::Role;
use utoipa::openapi::OpenApi;

use crate::access::Identity;
use crate::app::App;
use crate::error::Error;
use crate::http::problem::Unavailable;
use crate::readiness;

/// Returns every metric in Prometheus' text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain")),
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Error> {
    app.catalog.count_damage();
    let datasets = app.catalog.list();
    app.engine.running.count(datasets.iter().map(|entry| entry.name()));
    readiness::count(&app);
    let text = app.engine.metrics.text().map_err(Error::internal)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// Answers as long as the process is alive.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "operations",
    responses((status = 200, description = "Alive", body = String, content_type = "text/plain")),
)]
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// Answers 200 once every configured dataset has been imported, has failed or, on a replica, is not packed yet by the writer,
/// until the server is told to stop. The first line is `ok`; each further one says what is wrong with a server that serves
/// streams all the same: datasets that failed or are damaged, a data directory that cannot be written to, no trainer, files
/// of another version. Where tokens are configured, these lines are for those who have one.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses((status = 200, description = "Ready", body = String, content_type = "text/plain"), Unavailable),
)]
pub(crate) async fn ready(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
) -> Result<String, Error> {
    app.stage.check_serving()?;
    app.catalog.check_ready()?;
    // They name paths.
    let details = if identity.may(Role::Reader) { readiness::details(&app) } else { Vec::new() };
    let details = details.into_iter().map(|detail| format!("{detail}\n"));
    Ok(["ok\n".to_owned()].into_iter().chain(details).collect())
}

/// Returns this document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operations",
    responses((status = 200, description = "An OpenAPI 3.1 document", body = Object)),
)]
pub(crate) async fn openapi(Extension(document): Extension<Arc<OpenApi>>) -> Response {
    Json(&*document).into_response()
}
