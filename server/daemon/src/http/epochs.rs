//! `GET /v1/datasets/{dataset}/epochs/{epoch}/batches` and `.../preview.png`.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow_ipc::CompressionType;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use pba_types::limits::EPOCHS_MAX;
use pba_types::{VALUE_SHOWN, shortened};
use pba_wire::checksum;
use pba_wire::query::integer;
use pba_wire::shared_memory;
use pba_wire::stream::CONTENT_TYPE;
use pba_wire::streams::Transport;
use pba_wire::{EpochRequest, Preview};

use crate::access::Identity;
use crate::access::secret::redacted;
use crate::app::App;
use crate::catalog::mending::cause;
use crate::draw::sheet::{self, Sheet};
use crate::error::{Cause, Error};
use crate::http::asked::Asked;
use crate::http::charged;
use crate::http::correlation::Correlation;
use crate::http::extract::{Binary, Query};
use crate::http::problem::{DiskFull, NotFound, TooMany, Unavailable, Unprocessable};
use crate::stream::body::{batch_bytes, chunks};
use crate::stream::client::Client;
use crate::stream::connections::Connection;
use crate::stream::epoch::Epoch;
use crate::stream::peer::Peer;
use crate::stream::running::About;
use crate::stream::samples::SampleError;
use crate::stream::shared_memory_stream::{Local, SharedMemoryStream};

/// The route of the streams.
pub(crate) const BATCHES: &str = "/v1/datasets/{dataset}/epochs/{epoch}/batches";

/// Streams one epoch as an Arrow IPC stream.
///
/// `Accept: application/vnd.apache.arrow.stream; codecs="zstd"` (or `lz4`) compresses the
/// buffers. On a Unix socket the stream goes through shared memory if the client asks for it.
#[utoipa::path(
    get,
    path = "/v1/datasets/{dataset}/epochs/{epoch}/batches",
    tag = "streams",
    params(
        ("dataset" = String, Path, description = "Name of the dataset"),
        ("epoch" = u32, Path, description = "Epoch, 0-based", maximum = 999_999),
        EpochRequest,
    ),
    responses(
        (status = 200, description = "The epoch", body = Binary, content_type = "application/vnd.apache.arrow.stream"),
        (status = 101, description = "The epoch follows through shared memory (Unix socket only)"),
        NotFound, Unprocessable, TooMany, Unavailable, DiskFull,
    ),
)]
pub(crate) async fn batches(
    State(app): State<Arc<App>>,
    client: Client,
    (Extension(asked), Extension(identity)): (Extension<Asked>, Extension<Identity>),
    correlation: Correlation,
    Path((dataset, epoch)): Path<(String, String)>,
    Query(request): Query<EpochRequest>,
    mut http: Request,
) -> Result<Response, Error> {
    let number = epoch_number(&epoch)?;
    let codec = codec(http.headers())?;
    let wanted = batches_wanted(http.headers())?;
    let epoch = Arc::new(app.resolver().resolve(&dataset, number, &request, codec)?);
    check_whole(&app, &epoch).await?;
    check_fits(&app, &epoch, &request)?;
    let schema = checksum::of_schema(epoch.schema_message(), asked.sum).map_err(Error::internal)?;
    let schema = [(checksum::SCHEMA_HEADER, schema.to_string())];
    let content_type = [(header::CONTENT_TYPE, CONTENT_TYPE)];
    if http.method() == Method::HEAD {
        // It is no stream. An empty body of unknown length, as the answer to GET has no Content-Length either.
        let nothing = futures_util::stream::empty::<Result<Bytes, Infallible>>();
        return Ok((schema, content_type, Body::from_stream(nothing)).into_response());
    }
    let mut permit = app.engine.admit(client)?;
    app.engine.count_for(&mut permit, &identity)?;
    // A request for what comes after the last batch only asks for the metadata of the stream.
    if request.start > 0 && epoch.plan.batches() > 0 {
        app.engine.metrics.resumes.inc();
    }
    let about = about(&epoch, number, &request, &correlation, &identity, &http);
    tracing::debug!(dataset = epoch.dataset, epoch = number, schedule = epoch.schedule, "stream begins");
    if let Some(wanted) = wanted
        && epoch.codec.is_none()
        && http.extensions().get::<Local>().is_some()
        && let Some(upgrade) = http.extensions_mut().remove::<OnUpgrade>()
    {
        match SharedMemoryStream::new(&epoch, wanted) {
            Ok(stream) => {
                app.engine.charge(&mut permit, epoch.opening_bytes())?;
                let about = About { transport: Transport::SharedMemory, ..about };
                let running = app.engine.running.begin(about);
                let begun = stream.begin(permit, running).await.map_err(|broken| failed(broken.error))?;
                let connection = http.extensions_mut().remove::<Connection>();
                tokio::spawn(begun.run(upgrade, connection));
                let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, shared_memory::PROTOCOL)];
                return Ok((StatusCode::SWITCHING_PROTOCOLS, schema, headers).into_response());
            }
            Err(error) => {
                app.engine.metrics.shared_memory_refused.inc();
                tracing::info!(
                    error = format!("{error:#}"),
                    "no shared memory is available; the batches go through the socket"
                );
            }
        }
    }
    app.engine.charge(&mut permit, batch_bytes(&epoch) + epoch.opening_bytes())?;
    let own = app.engine.own_batch(batch_bytes(&epoch))?;
    let running = app.engine.running.begin(about);
    let chunks = chunks(epoch, permit, own, running).await.map_err(|broken| failed(broken.error))?;
    let body = Body::from_stream(chunks);
    Ok((schema, content_type, body).into_response())
}

/// What is known of the stream of an epoch by its request.
fn about(
    epoch: &Epoch,
    number: u32,
    request: &EpochRequest,
    Correlation { request_id, trace, received }: &Correlation,
    identity: &Identity,
    http: &Request,
) -> About {
    let peer = http.extensions().get().copied().unwrap_or(Peer::local(Client::Unknown));
    let user_agent = http.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    About {
        request_id: Arc::clone(request_id),
        trace: trace.clone(),
        received: *received,
        peer,
        pace: http.extensions().get().cloned(),
        user_agent: user_agent.map(|text| shortened(&redacted(text), VALUE_SHOWN).into_owned()),
        token: identity.name().map(Arc::from),
        transport: peer.transport,
        dataset: epoch.dataset.clone(),
        split: epoch.split_name,
        schedule: epoch.schedule.clone(),
        epoch: number,
        epochs: epoch.epochs,
        shard: request.shard,
        batch_size: request.batch_size,
        batches: epoch.plan.batches(),
        rows: epoch.plan.rows(),
    }
}

/// Refuses an epoch of which samples are known to be damaged, before its first byte.
///
/// # Errors
/// With the packed file, the record batch and its rows.
async fn check_whole(app: &App, epoch: &Arc<Epoch>) -> Result<(), Error> {
    // Without damage, no request waits for a disk.
    if !epoch.split.is_damaged() {
        return Ok(());
    }
    let (epoch, is_writer) = (Arc::clone(epoch), app.lock.is_writer());
    let check = move || {
        let indices = (0..epoch.plan.batches()).flat_map(|n| epoch.plan.indices(n));
        epoch.split.check_known(indices).map_err(|error| {
            let (split, dataset) = (epoch.split_name, &epoch.dataset);
            let who = if is_writer { "" } else { "; this is a replica: its writer has to mend it" };
            Error::new(cause(&error), format!("split {split} of dataset {dataset:?}: {error}{who}"))
        })
    };
    app.apart.read(check).await
}

/// Refuses batches that would not fit if there were nothing else.
fn check_fits(app: &App, epoch: &Epoch, request: &EpochRequest) -> Result<(), Error> {
    let (bytes, bytes_max) = (batch_bytes(epoch) + epoch.opening_bytes(), app.engine.memory_bytes_max());
    if bytes <= bytes_max {
        return Ok(());
    }
    let rows = epoch.plan.len_of(0) as u64;
    let reason =
        format!("a batch takes {bytes} bytes of memory; this server has {bytes_max} (memory_bytes_max)");
    let allowed = format!("1..={}, as far as memory goes", (rows * (bytes_max / 2) / bytes).max(1));
    Err(Error::parameter("batch_size", request.batch_size, reason, allowed))
}

/// The refusal of samples that cannot be rendered.
fn failed(error: anyhow::Error) -> Error {
    let detail = format!("{error:#}");
    let Some(sample) = error.downcast_ref::<SampleError>() else { return Error::internal(detail) };
    tracing::error!(error = detail, "samples cannot be rendered");
    let cause = match sample {
        SampleError::Damaged(error) => cause(error),
        SampleError::Undecodable { .. } => Cause::BrokenDataset,
    };
    Error::new(cause, detail)
}

/// Draws a contact sheet of the first images that the stream would send.
#[utoipa::path(
    get,
    path = "/v1/datasets/{dataset}/epochs/{epoch}/preview.png",
    tag = "streams",
    params(
        ("dataset" = String, Path, description = "Name of the dataset"),
        ("epoch" = u32, Path, description = "Epoch, 0-based", maximum = 999_999),
        Preview, EpochRequest,
    ),
    responses(
        (status = 200, description = "The contact sheet", body = Binary, content_type = "image/png"),
        NotFound, Unprocessable, Unavailable, DiskFull,
    ),
)]
pub(crate) async fn preview(
    State(app): State<Arc<App>>,
    client: Client,
    Path((dataset, epoch)): Path<(String, String)>,
    Query((Preview { n: count }, request)): Query<(Preview, EpochRequest)>,
) -> Result<Response, Error> {
    let number = epoch_number(&epoch)?;
    let epoch = Arc::new(app.resolver().resolve(&dataset, number, &request, None)?);
    check_whole(&app, &epoch).await?;
    let image_bytes = epoch.recipe.shape().rgb_bytes() as u64;
    let bytes_max = app.engine.limits.batch_bytes_max;
    let bytes = u64::from(count) * image_bytes;
    if bytes > bytes_max {
        let reason = format!("images of {bytes} bytes exceed this server's limit of {bytes_max}");
        let allowed = format!("1..={}", (bytes_max / image_bytes).max(1));
        return Err(Error::parameter("n", count, reason, allowed));
    }
    let (memory, most) = (sheet::bytes(&epoch, count as usize), app.engine.answer_bytes_max());
    if memory > most {
        let reason = format!(
            "the sheet takes {memory} bytes of memory; allowed are {most}, a quarter of memory_bytes_max"
        );
        let allowed = format!("1..={} for these images", (u64::from(count) * most / memory).max(1));
        return Err(Error::parameter("n", count, reason, allowed));
    }
    let turn = app.engine.single_tasks.take(client).await;
    let memory = app.engine.memory_for_answer(memory)?;
    let owner = app.engine.owner(client);
    let sheet = Sheet::new(epoch, number, count as usize, (turn, memory));
    let drawn = app.engine.pool.start_work(owner, sheet).await.map_err(Error::internal)?;
    let mut encoding = drawn.map_err(failed)?;
    let png = loop {
        let step = app.engine.pool.run(owner, move |_, _| encoding.step()).await.map_err(Error::internal)?;
        match step.map_err(failed)? {
            ControlFlow::Continue(rest) => encoding = rest,
            ControlFlow::Break((png, (_, mut memory))) => {
                memory.shrink_to(png.capacity() as u64);
                break charged(png, memory);
            }
        }
    };
    Ok(([(header::CONTENT_TYPE, "image/png")], png).into_response())
}

fn epoch_number(text: &str) -> Result<u32, Error> {
    Ok(integer(0..=EPOCHS_MAX - 1).read("epoch", text)?)
}

/// Reads how many batches a client wants to hold in shared memory; none if it does not ask for any.
fn batches_wanted(headers: &HeaderMap) -> Result<Option<usize>, Error> {
    if !listed(headers, header::UPGRADE).any(|protocol| protocol == shared_memory::PROTOCOL) {
        return Ok(None);
    }
    let text = headers.get(shared_memory::BATCHES_HEADER).and_then(|value| value.to_str().ok());
    let batches = integer(1..=shared_memory::BATCHES_MAX);
    Ok(Some(batches.read(shared_memory::BATCHES_HEADER, text.unwrap_or_default())?))
}

/// The parts of a header that are separated by commas.
fn listed(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter();
    values.flat_map(|value| value.to_str().unwrap_or_default().split(',')).map(str::trim)
}

/// Reads the compression that the client asks for:
/// `Accept: application/vnd.apache.arrow.stream; codecs="zstd"`.
fn codec(headers: &HeaderMap) -> Result<Option<CompressionType>, Error> {
    let codecs = listed(headers, header::ACCEPT).find_map(|range| {
        let (kind, parameters) = range.split_once(';')?;
        let mut parameters = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
        let (_, codecs) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("codecs"))?;
        kind.trim().eq_ignore_ascii_case(CONTENT_TYPE).then(|| codecs.trim().trim_matches('"'))
    });
    match codecs {
        None | Some("") => Ok(None),
        Some("zstd") => Ok(Some(CompressionType::ZSTD)),
        Some("lz4") => Ok(Some(CompressionType::LZ4_FRAME)),
        Some(other) => Err(Error::parameter("codecs", other, "unknown codec in Accept", "zstd, lz4")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, expected: Option<Option<CompressionType>>) {
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
        assert_eq!(codec(&headers).ok(), expected, "{accept}");
    }

    #[test]
    fn the_codec_is_read_from_accept() {
        check("*/*", Some(None));
        check(CONTENT_TYPE, Some(None));
        check("application/vnd.apache.arrow.stream; codecs=\"zstd\"", Some(Some(CompressionType::ZSTD)));
        check(
            "text/html, application/vnd.apache.arrow.stream;codecs=lz4;q=1",
            Some(Some(CompressionType::LZ4_FRAME)),
        );
        check("application/vnd.apache.arrow.stream; codecs=\"gzip\"", None);
    }
}
