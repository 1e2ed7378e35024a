//! `/v1/schedules`: the registry.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use pba_schedules::formats;
use pba_types::limits::EPOCHS_MAX;
use pba_types::{check_name, names_allowed};
use pba_wire::ParameterError;
use pba_wire::epoch;
use serde_json::{Value, json};

use crate::app::App;
use crate::catalog::schedules::{Put, Registry};
use crate::draw;
use crate::error::Error;
use crate::http::no_parameters;

/// Every schedule, in short.
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, Error> {
    no_parameters(&uri)?;
    let schedules: Vec<Value> =
        app.registry.list().iter().map(|schedule| Registry::summary(schedule)).collect();
    Ok(Json(json!({ "schedules": schedules })))
}

/// One schedule, as a `pba-schedule/1` document with its digest in a header.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Error> {
    no_parameters(&uri)?;
    let schedule = app.registry.get(&name)?;
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::ETAG, format!("\"{}\"", schedule.digest())),
    ];
    Ok((headers, formats::json::write(&schedule)).into_response())
}

/// Adds a schedule in any format that is read. `?epochs=` gives the search's length where the
/// format does not say it.
pub(crate) async fn put(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    uri: Uri,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    app.check_writer()?;
    let mut epochs = None;
    for (parameter, value) in epoch::pairs(uri.query().unwrap_or_default())? {
        match parameter.as_str() {
            "epochs" => epochs = Some(epoch::integer(&parameter, &value, 1..=EPOCHS_MAX)?),
            _ => return Err(ParameterError::unknown(&parameter, &value, &["epochs"]).into()),
        }
    }
    check_name(&name).map_err(|_| {
        Error::parameter("schedule", &name, format!("{name:?} is not a schedule name"), names_allowed())
    })?;
    let body = body_bytes(&app, body)?;
    let text = std::str::from_utf8(&body)
        .map_err(|error| Error::not_readable(format!("the body is not UTF-8 text: {error}")))?;
    let schedule =
        formats::read(text, Some(&name), epochs).map_err(|error| Error::body(error.to_string()))?;
    if app.jobs.promise(&name) {
        return Err(Error::conflict(format!(
            "the name {name:?} is that of a search, which will need it for its schedule; choose another one"
        )));
    }
    let status = match app.registry.put(schedule.clone())? {
        Put::Created => StatusCode::CREATED,
        Put::Unchanged => StatusCode::OK,
    };
    Ok((status, Json(Registry::summary(&schedule))).into_response())
}

/// Removes a schedule.
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<StatusCode, Error> {
    no_parameters(&uri)?;
    app.check_writer()?;
    app.registry.delete(&name)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Draws a schedule.
pub(crate) async fn plot(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Error> {
    no_parameters(&uri)?;
    let schedule = app.registry.get(&name)?;
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], draw::schedule::draw(&schedule)).into_response())
}

/// The body, or why it could not be read whole.
pub(super) fn body_bytes(app: &App, body: Result<Bytes, BytesRejection>) -> Result<Bytes, Error> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Error::too_large(format!("the body is larger than {} bytes", app.limits.body_bytes_max))
        }
        _ => Error::body(format!("the body could not be read: {rejection}")),
    })
}
