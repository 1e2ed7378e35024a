//! How an error is reported over HTTP: the one place that knows statuses.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pba_types::{VALUE_SHOWN, shortened};
use pba_wire::Problem;
use pba_wire::problem::{CONTENT_TYPE, URN};
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::{Ref, RefOr};

use crate::access::secret::redacted;
use crate::error::{Cause, Error};

/// Declares of each cause its status, name for programs and metrics, and title for people. The compiler
/// demands every cause.
macro_rules! causes {
    ($($cause:ident: $status:ident, $name:literal, $title:literal;)*) => {
        const ROWS: &[(StatusCode, &str, &str)] = &[$((StatusCode::$status, $name, $title),)*];

        fn row(cause: Cause) -> (StatusCode, &'static str, &'static str) {
            match cause {
                $(Cause::$cause => (StatusCode::$status, $name, $title),)*
            }
        }
    };
}

causes! {
    WrongParameter: BAD_REQUEST, "wrong-parameter", "wrong parameter";
    WrongBody: BAD_REQUEST, "wrong-body", "wrong body";
    Altered: BAD_REQUEST, "altered", "the request was changed on its way";
    NotFound: NOT_FOUND, "not-found", "not found";
    Forbidden: FORBIDDEN, "forbidden", "not allowed from there";
    PlainHttp: BAD_REQUEST, "plain-http", "this port speaks https";
    Unauthenticated: UNAUTHORIZED, "unauthenticated", "a token is needed";
    Role: FORBIDDEN, "role", "the token may do less";
    WrongMediaType: UNSUPPORTED_MEDIA_TYPE, "wrong-media-type", "wrong media type";
    AddressTooLong: URI_TOO_LONG, "address-too-long", "the address is too long";
    HeadersTooLarge: REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large", "the headers are too large";
    MethodNotAllowed: METHOD_NOT_ALLOWED, "method-not-allowed", "method not allowed";
    Conflict: CONFLICT, "conflict", "conflict with the current state";
    TooLarge: PAYLOAD_TOO_LARGE, "too-large", "too large";
    NotReadable: UNSUPPORTED_MEDIA_TYPE, "not-readable", "unsupported format";
    Damaged: UNPROCESSABLE_ENTITY, "damaged", "the dataset's packed file is damaged";
    BrokenDataset: UNPROCESSABLE_ENTITY, "broken-dataset", "the dataset is broken";
    Full: TOO_MANY_REQUESTS, "full", "all streams are taken";
    Memory: TOO_MANY_REQUESTS, "memory", "the server's memory is taken";
    Busy: TOO_MANY_REQUESTS, "busy", "too many jobs";
    TooMany: TOO_MANY_REQUESTS, "too-many", "there are too many";
    Connections: SERVICE_UNAVAILABLE, "connections", "all connections are taken";
    Timeout: REQUEST_TIMEOUT, "timeout", "the request took too long";
    NoTrainer: SERVICE_UNAVAILABLE, "no-trainer", "there is no trainer";
    Draining: SERVICE_UNAVAILABLE, "draining", "the server is shutting down";
    Importing: SERVICE_UNAVAILABLE, "importing", "the dataset is being imported";
    NotPacked: SERVICE_UNAVAILABLE, "not-packed", "the dataset is not packed";
    DiskFull: INSUFFICIENT_STORAGE, "disk-full", "the server's disk is full";
    ReadOnly: SERVICE_UNAVAILABLE, "read-only", "the server's disk is read-only";
    Internal: INTERNAL_SERVER_ERROR, "internal", "the server is at fault";
}

impl Error {
    /// The error as it is answered.
    fn problem(&self) -> Problem {
        let (status, name, title) = row(self.cause);
        // A token that was sent in a wrong place is not sent back.
        let told = |text: &str, characters: usize| shortened(&redacted(text), characters).into_owned();
        let shown = |text: &String| told(text, VALUE_SHOWN);
        Problem {
            kind: format!("{URN}{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: told(&self.detail, 8 * VALUE_SHOWN),
            parameter: self.parameter.as_ref().map(shown),
            value: self.value.as_ref().map(shown),
            allowed: self.allowed.as_ref().map(|text| told(text, 4 * VALUE_SHOWN)),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, name, _) = row(self.cause);
        let body = serde_json::to_vec_pretty(&self.problem()).expect("a problem is JSON");
        let mut response = (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response();
        if let Some(seconds) = retry_after(self.cause) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        if self.cause == Cause::Unauthenticated {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        response.extensions_mut().insert(ProblemName(name));
        response
    }
}

/// How to authenticate: with every 401.
pub(super) const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"pba\"");

/// When it makes sense to ask again: with every 429 and 503.
fn retry_after(cause: Cause) -> Option<&'static str> {
    match (cause, row(cause).0) {
        // Jobs take minutes, and a trainer has to be built, or something removed.
        (Cause::Busy | Cause::NoTrainer | Cause::ReadOnly | Cause::TooMany, _) => Some("30"),
        // As long as the first attempts to mend it take.
        (Cause::Damaged, _) => Some("2"),
        (_, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => Some("1"),
        _ => None,
    }
}

/// Marks a response as a problem, for the counter of problems by name.
#[derive(Clone, Copy)]
pub(crate) struct ProblemName(pub(crate) &'static str);

/// The names of all problems.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|(_, name, _)| *name)
}

/// The documentation of a status: all of its problems.
pub(crate) fn documented(status: StatusCode) -> utoipa::openapi::Response {
    let rows = ROWS.iter().filter(|(of, ..)| *of == status);
    let problems: Vec<String> = rows.map(|(_, name, title)| format!("`{URN}{name}`: {title}")).collect();
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(problems.join("; ")).content(CONTENT_TYPE, problem).build()
}

/// The problems of a status, for the `responses` of a route.
pub(crate) struct Problems<const STATUS: u16>;

impl<const STATUS: u16> utoipa::IntoResponses for Problems<STATUS> {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let status = StatusCode::from_u16(STATUS).expect("a status has three digits");
        [(STATUS.to_string(), documented(status).into())].into()
    }
}

pub(crate) type NotFound = Problems<404>;
pub(crate) type Conflict = Problems<409>;
pub(crate) type UnsupportedMediaType = Problems<415>;
pub(crate) type Unprocessable = Problems<422>;
pub(crate) type TooMany = Problems<429>;
pub(crate) type Unavailable = Problems<503>;
pub(crate) type DiskFull = Problems<507>;
