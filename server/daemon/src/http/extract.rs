//! Checked parts of a request, as handlers take them.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use bytes::BytesMut;
use futures_util::StreamExt;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::app::App;
use crate::error::{Cause, Error};
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

/// The body of a request, whose memory is reserved as it arrives, until the last part of it is dropped.
pub(crate) struct Body(pub(crate) Bytes);

/// What is received of a body at first, if it is as much.
const FIRST_BYTES: usize = 64 << 10;

impl FromRequest<Arc<App>> for Body {
    type Rejection = Error;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Body, Error> {
        let bytes_max = app.engine.body_bytes_max();
        let too_large = || Error::new(Cause::TooLarge, format!("the body is larger than {bytes_max} bytes"));
        let body = request.into_body();
        if body.size_hint().lower() > bytes_max as u64 {
            return Err(too_large());
        }
        let mut chunks = body.into_data_stream();
        let mut received = Received { bytes: BytesMut::new(), _memory: None };
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| Error::body(format!("the body could not be read: {error}")))?;
            let length = received.bytes.len() + chunk.len();
            if length > bytes_max {
                return Err(too_large());
            }
            if length > received.bytes.capacity() {
                let bytes = (2 * length).clamp(FIRST_BYTES, bytes_max.max(FIRST_BYTES));
                let memory = app.engine.memory_for_body(bytes as u64)?;
                let mut grown = BytesMut::with_capacity(bytes);
                grown.extend_from_slice(&received.bytes);
                received = Received { bytes: grown, _memory: Some(memory) };
            }
            received.bytes.extend_from_slice(&chunk);
        }
        Ok(Body(Bytes::from_owner(received)))
    }
}

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

/// A body that is not text, in `/openapi.json`.
pub(crate) enum Binary {}

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
    }
}

impl ToSchema for Binary {}
