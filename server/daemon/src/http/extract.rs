//! Checked parts of a request, as handlers take them.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::app::App;
use crate::error::{Cause, Error};

/// The parameters of a route.
pub(crate) struct Query<Q>(pub(crate) Q);

impl<Q: pba_wire::Query, S: Sync> FromRequestParts<S> for Query<Q> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Query<Q>, Error> {
        Ok(Query(Q::from_query(parts.uri.query().unwrap_or_default())?))
    }
}

pub(crate) struct Body(pub(crate) Bytes);

impl FromRequest<Arc<App>> for Body {
    type Rejection = Error;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Body, Error> {
        let body = Bytes::from_request(request, app).await;
        body.map(Body).map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let bytes_max = app.engine.limits.body_bytes_max;
                Error::new(Cause::TooLarge, format!("the body is larger than {bytes_max} bytes"))
            }
            _ => Error::body(format!("the body could not be read: {rejection}")),
        })
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
