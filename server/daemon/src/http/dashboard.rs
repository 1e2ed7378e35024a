//! `GET /`: the server at a glance.

use axum::http::header;
use axum::response::{IntoResponse, Response};

const PAGE: &str = include_str!("dashboard.html");

/// The page; it asks the API for everything that it shows.
pub async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        // Nothing is loaded from elsewhere, and names in it are text, never markup.
        (header::CONTENT_SECURITY_POLICY, "default-src 'self' 'unsafe-inline'; img-src 'self' data:"),
    ];
    (headers, PAGE).into_response()
}
