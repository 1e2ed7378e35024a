//! `GET /v1/datasets/{dataset}/epochs/{epoch}/batches` and `.../preview.png`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use pba_wire::epoch::{self, EpochRequest};
use pba_wire::memory;
use pba_wire::stream::CONTENT_TYPE;

use crate::app::App;
use crate::draw::sheet;
use crate::error::Error;
use crate::http::on_pool;
use crate::server::Local;
use crate::stream::body::EpochBody;
use crate::stream::encode::Codec;
use crate::stream::samples::SampleError;
use crate::stream::shared_memory_stream::SharedMemoryStream;

/// Most images of a contact sheet: 32 rows of 32.
const PREVIEW_MAX: u32 = 1024;

/// Streams one epoch: through memory where the client asks for it and can have it.
pub(crate) async fn batches(
    State(app): State<Arc<App>>,
    Path((dataset, epoch)): Path<(String, String)>,
    mut http: Request,
) -> Result<Response, Error> {
    let request = EpochRequest::from_query(http.uri().query().unwrap_or_default())?;
    let epoch = epoch_number(&epoch)?;
    let codec = codec(http.headers())?;
    let wanted = batches_wanted(http.headers())?;
    let epoch = Arc::new(app.resolver().resolve(&dataset, epoch, &request, codec)?);
    let mut permit = app.admit()?;
    // Who asks for what comes after the last batch only wants to hear what the stream would say.
    if request.start > 0 && epoch.plan().batches() > 0 {
        app.metrics.resumes.inc();
    }
    tracing::info!(
        dataset = epoch.dataset(),
        schedule = epoch.schedule(),
        batches = epoch.plan().batches(),
        rows = epoch.plan().rows(),
        "stream"
    );
    if let Some(wanted) = wanted
        && epoch.is_plain()
        && http.extensions().get::<Local>().is_some()
        && let Some(upgrade) = http.extensions_mut().remove::<OnUpgrade>()
    {
        match SharedMemoryStream::new(&app, &epoch, permit, wanted) {
            Ok(stream) => {
                tokio::spawn(stream.run(upgrade));
                let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, memory::PROTOCOL)];
                return Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response());
            }
            Err((given_back, error)) => {
                app.metrics.shared_memory_refused.inc();
                tracing::info!(error = format!("{error:#}"), "no memory to share; the plain stream serves");
                permit = given_back;
            }
        }
    }
    let body = EpochBody::new(app, epoch, permit).map_err(Error::internal)?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::new(body)).into_response())
}

/// Draws a contact sheet of the first images of what the stream would send.
pub(crate) async fn preview(
    State(app): State<Arc<App>>,
    Path((dataset, epoch)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response, Error> {
    let (mut pairs, mut count) = (epoch::pairs(uri.query().unwrap_or_default())?, 64);
    if let Some(position) = pairs.iter().position(|(parameter, _)| parameter == "n") {
        let (parameter, value) = pairs.remove(position);
        count = epoch::integer(&parameter, &value, 1..=PREVIEW_MAX)?;
    }
    let request = EpochRequest::from_pairs(&pairs).map_err(|mut error| {
        error.allowed = error.allowed.replace("split, ", "n, split, ");
        error
    })?;
    let number = epoch_number(&epoch)?;
    let epoch = app.resolver().resolve(&dataset, number, &request, Codec::Plain)?;
    let bytes = u64::from(count) * epoch.recipe().shape().rgb_bytes() as u64;
    if bytes > app.limits.batch_bytes_max {
        let allowed = app.limits.batch_bytes_max / epoch.recipe().shape().rgb_bytes() as u64;
        return Err(Error::parameter(
            "n",
            count.to_string(),
            format!("images of {bytes} bytes are over this server's bound of {}", app.limits.batch_bytes_max),
            format!("1..={}", allowed.max(1)),
        ));
    }
    let png = on_pool(&app, move |workspace| {
        sheet::draw(&epoch, number, count as usize, workspace).map_err(|error| {
            if error.is::<SampleError>() {
                tracing::error!(error = format!("{error:#}"), "a preview met a damaged image");
                return Error::broken_dataset(format!("{error:#}"));
            }
            Error::internal(format!("{error:#}"))
        })
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "image/png")], png).into_response())
}

fn epoch_number(text: &str) -> Result<u32, Error> {
    Ok(epoch::integer("epoch", text, 0..=pba_types::limits::EPOCHS_MAX - 1)?)
}

/// Reads how many batches a client wants to hold in shared memory; none where it does not ask for it.
fn batches_wanted(headers: &HeaderMap) -> Result<Option<usize>, Error> {
    let asks = headers.get_all(header::UPGRADE).iter().any(|protocols| {
        let mut protocols = protocols.to_str().unwrap_or_default().split(',');
        protocols.any(|protocol| protocol.trim() == memory::PROTOCOL)
    });
    if !asks {
        return Ok(None);
    }
    let text = headers.get(memory::BATCHES_HEADER).map_or("", |value| value.to_str().unwrap_or_default());
    Ok(Some(epoch::integer(memory::BATCHES_HEADER, text, 1..=memory::BATCHES_MAX)?))
}

/// Reads the compression that the client asks for:
/// `Accept: application/vnd.apache.arrow.stream; codecs="zstd"`.
fn codec(headers: &HeaderMap) -> Result<Codec, Error> {
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
                    other => Err(Error::parameter("codecs", other, "unknown codec in Accept", "zstd, lz4")),
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
