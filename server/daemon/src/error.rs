//! The one table from what went wrong to an HTTP answer.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pba_wire::epoch::nearest;
use pba_wire::problem::CONTENT_TYPE;
use pba_wire::{ParameterError, Problem};

/// A refused request.
#[derive(Clone, Debug)]
pub struct ApiError {
    kind: Kind,
    detail: String,
    parameter: Option<String>,
    value: Option<String>,
    allowed: Option<String>,
}

/// What can be wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    WrongParameter,
    WrongBody,
    NotFound,
    MethodNotAllowed,
    Conflict,
    TooLarge,
    NotReadable,
    BrokenDataset,
    Full,
    Busy,
    Timeout,
    NoTrainer,
    Draining,
    Opening,
    Internal,
}

impl Kind {
    /// Status, name for programs and metrics, title for people.
    fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Kind::WrongParameter => (StatusCode::BAD_REQUEST, "wrong-parameter", "wrong parameter"),
            Kind::WrongBody => (StatusCode::BAD_REQUEST, "wrong-body", "wrong body"),
            Kind::NotFound => (StatusCode::NOT_FOUND, "not-found", "no such thing"),
            Kind::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "method not allowed")
            }
            Kind::Conflict => (StatusCode::CONFLICT, "conflict", "in conflict with what is there"),
            Kind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "too large"),
            Kind::NotReadable => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-readable", "not a format that is read")
            }
            Kind::BrokenDataset => {
                (StatusCode::UNPROCESSABLE_ENTITY, "broken-dataset", "the dataset is broken")
            }
            Kind::Full => (StatusCode::TOO_MANY_REQUESTS, "full", "all streams are taken"),
            Kind::Busy => (StatusCode::TOO_MANY_REQUESTS, "busy", "too many searches"),
            Kind::Timeout => (StatusCode::REQUEST_TIMEOUT, "timeout", "the request took too long"),
            Kind::NoTrainer => (StatusCode::SERVICE_UNAVAILABLE, "no-trainer", "there is no trainer"),
            Kind::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", "the server is shutting down"),
            Kind::Opening => (StatusCode::SERVICE_UNAVAILABLE, "opening", "the server is starting"),
            Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server is at fault"),
        }
    }
}

impl ApiError {
    fn new(kind: Kind, detail: impl Into<String>) -> ApiError {
        ApiError { kind, detail: detail.into(), parameter: None, value: None, allowed: None }
    }

    /// A parameter of the wrong type, out of range or unknown.
    pub fn parameter(
        parameter: impl Into<String>,
        value: impl Into<String>,
        reason: impl Into<String>,
        allowed: impl Into<String>,
    ) -> ApiError {
        ParameterError::new(parameter, value, reason, allowed).into()
    }

    /// A body that is not what it should be.
    pub fn body(detail: impl Into<String>) -> ApiError {
        ApiError::new(Kind::WrongBody, detail)
    }

    /// A name that nothing has, with the nearest name that something has.
    pub fn not_found<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> ApiError {
        let known: Vec<&str> = known.into_iter().collect();
        let hint = match nearest(name, known.iter().copied()) {
            Some(nearest) => format!(", did you mean {nearest:?}?"),
            None => String::new(),
        };
        ApiError {
            parameter: Some(what.to_owned()),
            value: Some(name.to_owned()),
            allowed: Some(known.join(", ")),
            ..ApiError::new(
                Kind::NotFound,
                format!("there is no {what} {name:?}{hint}; there are: {}", known.join(", ")),
            )
        }
    }

    /// The same, with words that are allowed too, and never suggested.
    pub fn or_one_of(mut self, words: &[&str]) -> ApiError {
        for word in words {
            self.detail += &format!(", {word}");
            if let Some(allowed) = &mut self.allowed {
                *allowed += &format!(", {word}");
            }
        }
        self
    }

    /// A path that is no route.
    pub fn no_route(path: &str) -> ApiError {
        ApiError::new(
            Kind::NotFound,
            format!("there is no page {path:?}; the routes are listed in the README"),
        )
    }

    /// A method that a route does not have.
    pub fn method(method: &str, path: &str) -> ApiError {
        ApiError::new(Kind::MethodNotAllowed, format!("{path:?} does not answer {method}"))
    }

    /// A name that is taken by something else.
    pub fn conflict(detail: impl Into<String>) -> ApiError {
        ApiError::new(Kind::Conflict, detail)
    }

    /// A body over its bound.
    pub fn too_large(detail: impl Into<String>) -> ApiError {
        ApiError::new(Kind::TooLarge, detail)
    }

    /// A file in no format that is read.
    pub fn not_readable(detail: impl Into<String>) -> ApiError {
        ApiError::new(Kind::NotReadable, detail)
    }

    /// A dataset, or a split of it, that could not be read.
    pub fn broken_dataset(detail: impl Into<String>) -> ApiError {
        ApiError::new(Kind::BrokenDataset, detail)
    }

    /// No stream is free.
    pub fn full(streams_max: usize) -> ApiError {
        ApiError::new(Kind::Full, format!("all {streams_max} streams are taken; try again in a second"))
    }

    /// No search can be added to the line.
    pub fn busy(detail: impl Into<String>) -> ApiError {
        ApiError::new(Kind::Busy, detail)
    }

    /// The request did not come whole, or its turn did not come.
    pub fn timeout(seconds: u64) -> ApiError {
        ApiError::new(Kind::Timeout, format!("no answer within {seconds} s; was the body sent whole?"))
    }

    /// No trainer runs here.
    pub fn no_trainer(detail: impl Into<String>) -> ApiError {
        ApiError::new(Kind::NoTrainer, detail)
    }

    /// A field of a spec that is wrong, in the words of whoever checked it.
    pub fn field(field: &str, message: &str) -> ApiError {
        ApiError { parameter: Some(field.to_owned()), ..ApiError::new(Kind::WrongParameter, message) }
    }

    /// A field of a spec that is out of range, of the wrong type or unknown.
    pub fn spec(error: &pba_search::SpecError) -> ApiError {
        ApiError {
            value: Some(error.value.clone()),
            allowed: Some(error.allowed.clone()),
            ..ApiError::field(&error.field, &error.to_string())
        }
    }

    /// The server takes no new streams.
    pub fn draining() -> ApiError {
        ApiError::new(
            Kind::Draining,
            "the server is shutting down and takes no new streams; use another replica",
        )
    }

    /// The server does not serve yet.
    pub fn opening(dataset: &str) -> ApiError {
        ApiError::new(
            Kind::Opening,
            format!(
                "the server is still opening its datasets, {dataset:?} at the moment; it serves as soon as /readyz answers 200"
            ),
        )
    }

    /// Our own fault. The cause is logged, and told: there is no secret in it.
    pub fn internal(error: impl std::fmt::Display) -> ApiError {
        tracing::error!(error = %error, "request failed");
        ApiError::new(Kind::Internal, error.to_string())
    }

    /// The kind's name, for metrics.
    pub fn name(&self) -> &'static str {
        self.kind.row().1
    }

    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        self.kind.row().0
    }

    /// What is wrong, for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The answer's body.
    pub fn problem(&self) -> Problem {
        let (status, name, title) = self.kind.row();
        Problem {
            kind: format!("urn:pba:problem:{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: shortened(&self.detail, 4 * SHOWN_MAX),
            parameter: self.parameter.as_deref().map(|text| shortened(text, SHOWN_MAX)),
            value: self.value.as_deref().map(|text| shortened(text, SHOWN_MAX)),
            allowed: self.allowed.as_deref().map(|text| shortened(text, 2 * SHOWN_MAX)),
        }
    }
}

/// Characters of a value that are told back.
const SHOWN_MAX: usize = 500;

/// The beginning of a text, marked where it was cut.
fn shortened(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}... ({} bytes in all)", &text[..end], text.len()),
    }
}

impl From<ParameterError> for ApiError {
    fn from(error: ParameterError) -> ApiError {
        let detail = error.to_string();
        ApiError {
            parameter: Some(error.parameter),
            value: Some(error.value),
            allowed: Some(error.allowed),
            ..ApiError::new(Kind::WrongParameter, detail)
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec_pretty(&self.problem()).expect("a problem is JSON");
        let mut response = (self.status(), [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response();
        if matches!(self.kind, Kind::Full | Kind::Draining | Kind::Opening) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // For the counter of errors by kind.
        response.extensions_mut().insert(ErrorKind(self.name()));
        response
    }
}

/// Marks a response as an error of a kind.
#[derive(Clone, Copy)]
pub struct ErrorKind(pub &'static str);
