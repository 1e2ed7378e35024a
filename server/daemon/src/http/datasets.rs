//! `GET /v1/datasets` and `/v1/datasets/{dataset}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use pba_wire::datasets::{Dataset, DatasetList};

use crate::app::App;
use crate::error::Error;
use crate::http::problem::NotFound;

/// Lists the datasets.
#[utoipa::path(get, path = "/v1/datasets", tag = "datasets", responses((status = 200, description = "Every dataset", body = DatasetList)))]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<DatasetList> {
    Json(DatasetList { datasets: app.catalog.list().iter().map(|entry| entry.describe()).collect() })
}

/// Describes a dataset.
#[utoipa::path(
    get,
    path = "/v1/datasets/{dataset}",
    tag = "datasets",
    params(("dataset" = String, Path, description = "Name of the dataset")),
    responses((status = 200, description = "The dataset", body = Dataset), NotFound),
)]
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Dataset>, Error> {
    Ok(Json(app.catalog.get(&name)?.describe()))
}
