//! Checked parts of a request, as handlers take them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, TRANSFER_ENCODING};
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use pba_wire::checksum::BODY_HEADER;
use tokio::time::{Instant, timeout_at};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::app::App;
use crate::error::{Cause, Error};
use crate::http::asked::Asked;
use crate::stream::budget::Reservation;
use crate::stream::client::Client;

/// The parameters of a route.
pub(crate) struct Query<Q>(pub(crate) Q);

impl<Q: pba_wire::Query, S: Sync> FromRequestParts<S> for Query<Q> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Query<Q>, Error> {
        Ok(Query(Q::from_query(parts.uri.query().unwrap_or_default())?))
    }
}

/// Who asks; the connection knows.
impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Client, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Client::Unknown))
    }
}

/// A body of at most `body_bytes_max` bytes, whose memory is reserved as it arrives, until the last part of it is
/// dropped.
pub(crate) struct Body(pub(crate) Bytes);

/// What is received of a body at first, if it is as much.
const FIRST_BYTES: usize = 64 << 10;

impl FromRequest<Arc<App>> for Body {
    type Rejection = Error;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Body, Error> {
        read(request, app, app.engine.body_bytes_max()).await.map(Body)
    }
}

/// A body that says that it is JSON, as no form of a web page can, and is not read yet.
pub(crate) struct JsonBody(pub(crate) Bytes);

/// The largest JSON that is asked for: specs of jobs, which take a few kilobytes. Read, they take up to 40 times as
/// much.
const JSON_BYTES_MAX: usize = 64 << 10;

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = Error;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<JsonBody, Error> {
        check_json(request.headers())?;
        read(request, app, app.engine.body_bytes_max().min(JSON_BYTES_MAX)).await.map(JsonBody)
    }
}

/// The fields of a form of a page.
pub(crate) struct Form(Bytes);

/// The longest form: a token, and a path.
const FORM_BYTES_MAX: usize = 8 << 10;

impl FromRequest<Arc<App>> for Form {
    type Rejection = Error;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Form, Error> {
        check_kind(request.headers(), "application/x-www-form-urlencoded")?;
        read(request, app, app.engine.body_bytes_max().min(FORM_BYTES_MAX)).await.map(Form)
    }
}

impl Form {
    /// The value of a field, if it is there.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(&self.0).find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
    }
}

fn check_json(headers: &HeaderMap) -> Result<(), Error> {
    check_kind(headers, "application/json")
}

/// Refuses a body that does not say that it is what is expected.
fn check_kind(headers: &HeaderMap, expected: &str) -> Result<(), Error> {
    let said = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let said = said.as_deref().unwrap_or_default();
    let kind = said.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let detail = format!("Content-Type: {said:?} is not what is expected here; send the body as {expected}");
    Err(Error {
        parameter: Some("Content-Type".to_owned()),
        value: Some(said.to_owned()),
        allowed: Some(expected.to_owned()),
        ..Error::new(Cause::WrongMediaType, detail)
    })
}

/// How often a body is checked for what came since.
const BODY_WINDOW: Duration = Duration::from_secs(10);

/// What has arrived of a body, and the memory that it takes.
struct Received {
    bytes: BytesMut,
    _memory: Option<Reservation>,
}

impl AsRef<[u8]> for Received {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Refuses a body that says that it is compressed: it would be read as if it were not.
fn check_coding(headers: &HeaderMap) -> Result<(), Error> {
    for (header, plain) in [(CONTENT_ENCODING, "identity"), (TRANSFER_ENCODING, "chunked")] {
        let said = headers.get_all(&header).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let said: Vec<_> = said.collect();
        let is_plain = |coding: &str| coding.trim().is_empty() || coding.trim().eq_ignore_ascii_case(plain);
        if let Some(said) = said.iter().find(|said| !said.split(',').all(is_plain)) {
            let detail = format!("{header}: {said:?} is not what is expected here; send the body as it is");
            return Err(Error {
                parameter: Some(header.to_string()),
                value: Some(said.to_string()),
                allowed: Some(plain.to_owned()),
                ..Error::new(Cause::WrongMediaType, detail)
            });
        }
    }
    Ok(())
}

/// Reads a body that comes whole, in time, and is not too large.
async fn read(request: Request, app: &App, bytes_max: usize) -> Result<Bytes, Error> {
    let too_large = || {
        Error::new(
            Cause::TooLarge,
            format!(
                "the body is larger than {bytes_max} bytes, the most of this request; all are bounded by body_bytes_max and a \
         sixteenth of memory_bytes_max"
            ),
        )
    };
    check_coding(request.headers())?;
    let bytes_per_second_min = app.engine.limits.body_bytes_per_second_min;
    let asked = request.extensions().get::<Asked>().cloned();
    let said = request.headers().get(BODY_HEADER).cloned();
    let body = request.into_body();
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let mut chunks = body.into_data_stream();
    let mut received = Received { bytes: BytesMut::new(), _memory: None };
    let (mut window_end, mut in_window) = (Instant::now() + BODY_WINDOW, 0);
    loop {
        match timeout_at(window_end, chunks.next()).await {
            Ok(None) => {
                if let Some(asked) = asked {
                    asked.check_body(said.as_ref(), received.as_ref())?;
                }
                return Ok(Bytes::from_owner(received));
            }
            Ok(Some(Ok(chunk))) => {
                let length = received.bytes.len() + chunk.len();
                if length > bytes_max {
                    return Err(too_large());
                }
                in_window += chunk.len() as u64;
                if length > received.bytes.capacity() {
                    let bytes = (2 * length).clamp(FIRST_BYTES, bytes_max.max(FIRST_BYTES));
                    let memory = app.engine.memory_for_body(bytes as u64)?;
                    let mut grown = BytesMut::with_capacity(bytes);
                    grown.extend_from_slice(&received.bytes);
                    received = Received { bytes: grown, _memory: Some(memory) };
                }
                received.bytes.extend_from_slice(&chunk);
            }
            Ok(Some(Err(error))) => {
                return Err(Error::body(format!("the body could not be read: {error}")));
            }
            // What a slow body takes from others is its part of the memory for bodies.
            Err(_) if in_window < bytes_per_second_min * BODY_WINDOW.as_secs() => {
                let detail = format!(
                    "only {in_window} bytes of the body came within {} s; at least {bytes_per_second_min} a second \
                     have to",
                    BODY_WINDOW.as_secs()
                );
                return Err(Error::new(Cause::Timeout, detail));
            }
            Err(_) => (window_end, in_window) = (Instant::now() + BODY_WINDOW, 0),
        }
    }
}

/// A body that is not text, in `/openapi.json`.
pub(crate) enum Binary {}

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
    }
}

impl ToSchema for Binary {}
