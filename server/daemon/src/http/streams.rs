//! `GET /v1/streams`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use pba_wire::streams::StreamList;

use crate::app::App;
use crate::error::Error;
use crate::http::compute;
use crate::http::json::{List, json};

/// Lists the running streams, and says who waits for whom in each.
#[utoipa::path(get, path = "/v1/streams", tag = "streams", responses((status = 200, description = "Every running stream, in the order in which they began", body = StreamList)))]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Response, Error> {
    let list = |app: &App| {
        let streams = app.engine.running.list();
        json(&app.engine, &List { name: "streams", elements: || streams.iter() })
    };
    compute(app, list).await
}
