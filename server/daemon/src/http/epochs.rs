//! `GET /v1/datasets/{dataset}/epochs/{epoch}/batches` and `.../preview.png`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use pba_wire::epoch::{self, EpochRequest};
use pba_wire::stream::CONTENT_TYPE;

use crate::app::App;
use crate::body::EpochBody;
use crate::encode::Codec;
use crate::error::ApiError;
use crate::http::on_pool;
use crate::sheet;

/// Most images of a contact sheet: 32 rows of 32.
const PREVIEW_MAX: u32 = 1024;

/// Streams one epoch.
pub async fn batches(
    State(app): State<Arc<App>>,
    Path((dataset, epoch)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let request = EpochRequest::from_query(uri.query().unwrap_or_default())?;
    let epoch = epoch_number(&epoch)?;
    let codec = codec(&headers)?;
    let epoch = app.resolver().resolve(&dataset, epoch, &request, codec)?;
    let permit = app.admit()?;
    if request.start > 0 {
        app.metrics.resumes.inc();
    }
    tracing::info!(
        dataset = epoch.dataset(),
        schedule = epoch.schedule(),
        batches = epoch.plan().batches(),
        rows = epoch.plan().rows(),
        "stream"
    );
    let body = EpochBody::new(app, Arc::new(epoch), permit).map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::new(body)).into_response())
}

/// Draws a contact sheet of the first images of what the stream would send.
pub async fn preview(
    State(app): State<Arc<App>>,
    Path((dataset, epoch)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let (mut pairs, mut count) = (epoch::pairs(uri.query().unwrap_or_default())?, 64);
    if let Some(position) = pairs.iter().position(|(parameter, _)| parameter == "n") {
        let (parameter, value) = pairs.remove(position);
        count = epoch::integer(&parameter, &value, 1..=PREVIEW_MAX)?;
    }
    let mut request = EpochRequest::from_pairs(&pairs).map_err(|mut error| {
        error.allowed = error.allowed.replace("split, ", "n, split, ");
        error
    })?;
    // The images are the first of the stream, whatever its batches.
    request.batch_size = request.batch_size.max(count);
    let number = epoch_number(&epoch)?;
    let epoch = app.resolver().resolve(&dataset, number, &request, Codec::Plain)?;
    let png = on_pool(&app, move |workspace| {
        sheet::draw(&epoch, number, count as usize, workspace).map_err(ApiError::internal)
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "image/png")], png).into_response())
}

fn epoch_number(text: &str) -> Result<u32, ApiError> {
    Ok(epoch::integer("epoch", text, 0..=pba_schedules::EPOCHS_MAX - 1)?)
}

/// Reads the compression that the client asks for:
/// `Accept: application/vnd.apache.arrow.stream; codecs="zstd"`.
fn codec(headers: &HeaderMap) -> Result<Codec, ApiError> {
    for accept in headers.get_all(header::ACCEPT) {
        for range in accept.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            if !parts.next().unwrap_or_default().eq_ignore_ascii_case(CONTENT_TYPE) {
                continue;
            }
            for parameter in parts {
                let Some((name, value)) = parameter.split_once('=') else { continue };
                if !name.trim().eq_ignore_ascii_case("codecs") {
                    continue;
                }
                return match value.trim().trim_matches('"') {
                    "zstd" => Ok(Codec::Zstd),
                    "lz4" => Ok(Codec::Lz4),
                    "" => Ok(Codec::Plain),
                    other => {
                        Err(ApiError::parameter("codecs", other, "unknown codec in Accept", "zstd, lz4"))
                    }
                };
            }
        }
    }
    Ok(Codec::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, expected: Option<Codec>) {
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
        assert_eq!(codec(&headers).ok(), expected, "{accept}");
    }

    #[test]
    fn the_codec_is_read_from_accept() {
        check("*/*", Some(Codec::Plain));
        check(CONTENT_TYPE, Some(Codec::Plain));
        check("application/vnd.apache.arrow.stream; codecs=\"zstd\"", Some(Codec::Zstd));
        check("text/html, application/vnd.apache.arrow.stream;codecs=lz4;q=1", Some(Codec::Lz4));
        check("application/vnd.apache.arrow.stream; codecs=\"gzip\"", None);
    }
}
