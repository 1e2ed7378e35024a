//! `GET /metrics`, `/livez` and `/readyz`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::error::Error;

/// Every metric in Prometheus' text format.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Error> {
    let text = app.metrics.text().map_err(Error::internal)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// The process answers.
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// New streams are welcome.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Error> {
    if app.is_draining() { Err(Error::draining()) } else { Ok("ok\n") }
}
