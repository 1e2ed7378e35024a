//! `GET /v1/datasets` and `/v1/datasets/{dataset}`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use pba_wire::datasets::{Dataset, DatasetList};

use crate::app::App;
use crate::error::Error;
use crate::http::compute;
use crate::http::json::{List, json};
use crate::http::problem::NotFound;

/// Lists the datasets.
#[utoipa::path(get, path = "/v1/datasets", tag = "datasets", responses((status = 200, description = "Every dataset", body = DatasetList)))]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Response, Error> {
    let list = |app: &App| {
        let entries = app.catalog.list();
        let elements = || entries.iter().map(|entry| entry.describe());
        json(&app.engine, &List { name: "datasets", elements })
    };
    compute(app, list).await
}

/// Describes a dataset.
#[utoipa::path(
    get,
    path = "/v1/datasets/{dataset}",
    tag = "datasets",
    params(("dataset" = String, Path, description = "Name of the dataset")),
    responses((status = 200, description = "The dataset", body = Dataset), NotFound),
)]
pub(crate) async fn show(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, Error> {
    compute(app, move |app| json(&app.engine, &app.catalog.get(&name)?.describe())).await
}
