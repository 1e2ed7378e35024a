//! `GET /v1/datasets` and `/v1/datasets/{dataset}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Uri;
use pba_datasets::Images;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::catalog::Entry;
use crate::error::ApiError;
use crate::http::no_parameters;

/// Every dataset.
pub async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    no_parameters(&uri)?;
    let datasets: Vec<Value> = app.catalog.list().map(|entry| describe(entry)).collect();
    Ok(Json(json!({ "datasets": datasets })))
}

/// One dataset.
pub async fn show(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    no_parameters(&uri)?;
    Ok(Json(describe(&*app.catalog.get(&name)?)))
}

fn describe(entry: &Entry) -> Value {
    let mut splits = Map::new();
    let mut classes = &[][..];
    for (name, split) in entry.ready() {
        classes = split.classes();
        // `sizes` holds the smallest and the largest; where they differ, there is no `shape`.
        let (kept, shape, (smallest, largest)) = match split.images() {
            Images::Decoded(images) => {
                let shape = images.shape();
                ("decoded", json!([shape.height, shape.width, 3]), (shape, shape))
            }
            Images::Encoded(images) => ("encoded", Value::Null, (images.smallest(), images.largest())),
        };
        splits.insert(
            name.to_string(),
            json!({
                "samples": split.len(),
                "images": kept,
                "shape": shape,
                "sizes": { "height": [smallest.height, largest.height], "width": [smallest.width, largest.width] },
                "bytes": split.bytes(),
                "mean": split.mean(),
                "std": split.std(),
                "digest": split.digest().to_string(),
            }),
        );
    }
    for (name, error) in entry.failures() {
        splits.insert(name.to_string(), json!({ "error": error }));
    }
    let mut description = json!({
        "name": entry.name(),
        "source": entry.source().map_or("built in".to_owned(), |path| path.display().to_string()),
        "base": entry.base().to_string(),
        "eval_base": entry.eval_base().to_string(),
        "classes": classes,
        "splits": splits,
    });
    if let Some(error) = entry.error() {
        description["error"] = error.into();
    }
    description
}
