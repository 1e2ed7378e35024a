//! `GET /metrics`, `/livez`, `/readyz` and `/openapi.json`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use pba_wire::{Readiness, Role};
use utoipa::openapi::OpenApi;

use crate::access::Identity;
use crate::app::App;
use crate::boundary::MetricsPort;
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
/// until the server is told to stop. The first line is `ok`. A replica says in the second that it is one. Each further line is
/// a problem that does not stop the server from streaming: a dataset that failed or is damaged, a data directory that cannot be
/// written to, no trainer, a file of another version. Where tokens are configured, all but the first line are for clients with
/// a token; at the address for metrics they are shown to no client. The second line says so then.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses((status = 200, description = "Ready", body = String, content_type = "text/plain"), Unavailable),
)]
pub(crate) async fn ready(
    State(app): State<Arc<App>>,
    Extension(identity): Extension<Identity>,
    metrics_port: Option<Extension<MetricsPort>>,
) -> Result<String, Error> {
    app.stage.check_serving()?;
    app.catalog.check_ready()?;
    // They name paths.
    let withheld = if metrics_port.is_some() {
        Some("they are shown at the server's own address (listen)")
    } else if !identity.may(Role::Reader) {
        Some("they are for clients with a token")
    } else {
        None
    };
    let readiness = match withheld {
        Some(reason) => Readiness::Withheld { reason: reason.to_owned() },
        None => readiness::shown(&app),
    };
    Ok(readiness.to_string())
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
