//! `GET /metrics`, `/livez` and `/readyz`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::error::ApiError;

/// Every metric in Prometheus' text format.
pub async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let text = app.metrics.text().map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// The process answers.
pub async fn live() -> &'static str {
    "ok\n"
}

/// New streams are welcome.
pub async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, ApiError> {
    if app.is_draining() { Err(ApiError::draining()) } else { Ok("ok\n") }
}
