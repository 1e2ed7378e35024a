//! What the server answers while it opens its datasets, which may take minutes the first time.

use axum::Router;
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;

use crate::error::Error;

/// Answers `/livez`, and otherwise `503` with the name of the dataset that is being
/// opened. Each answer ends its connection, so that the next request finds the server itself.
pub(crate) fn router(dataset: watch::Receiver<String>) -> Router {
    Router::new().fallback(answer).with_state(dataset)
}

async fn answer(State(dataset): State<watch::Receiver<String>>, uri: Uri) -> Response {
    let answer = match uri.path() {
        "/livez" => "ok\n".into_response(),
        _ => Error::opening(&dataset.borrow()).into_response(),
    };
    ([(header::CONNECTION, "close")], answer).into_response()
}
