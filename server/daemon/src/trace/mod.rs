//! The trace that a request is part of, and its span there.
//!
//! With the feature `otel`, the span of each request is exported to an OpenTelemetry collector if the environment names
//! one. It begins when the request has come, and ends with the answer: for a stream, with the stream.

#[cfg(not(feature = "otel"))]
mod absent;
mod collector;
#[cfg(feature = "otel")]
mod export;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(not(feature = "otel"))]
use absent as export;
use axum::http::{HeaderMap, Method, StatusCode};

pub(crate) use self::export::start;
use self::export::{Span, Value};

/// Time that the last spans get when the process ends.
pub(crate) const LAST_SPANS: Duration = Duration::from_millis(500);

/// The trace that a request is part of, and its span there. Cheap to clone; the span ends with the last clone.
#[derive(Clone)]
pub(crate) struct Trace {
    id: Option<Arc<str>>,
    span: Option<Arc<Span>>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trace").field(&self.id).finish()
    }
}

impl Trace {
    /// One without a span, by the id that the client has sent, if it has.
    pub(crate) fn of(id: Option<&str>) -> Trace {
        Trace { id: id.map(Arc::from), span: None }
    }

    /// The same with a span, if spans are exported: part of the client's trace, or else of a new one.
    pub(crate) fn begun(self, headers: &HeaderMap, method: &Method, route: &str) -> Trace {
        match Span::begin(headers, method, route) {
            Some((span, id)) => Trace { id: Some(id.into()), span: Some(Arc::new(span)) },
            None => self,
        }
    }

    /// The id of the trace, 32 hexadecimal digits.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Adds an attribute to the span, if there is one.
    pub(crate) fn tell<V: Into<Value>>(&self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(span) = &self.span {
            span.set(key, value().into());
        }
    }

    /// Tells the status of the answer, by which the span is one of a failure or not: what the client did wrong is no
    /// failure of the server.
    pub(crate) fn answered(&self, status: StatusCode) {
        self.tell("http.response.status_code", || i64::from(status.as_u16()));
        if status.is_server_error() {
            self.fail(status.to_string());
        }
    }

    /// Makes the span one of a failure.
    pub(crate) fn fail(&self, reason: String) {
        if let Some(span) = &self.span {
            span.fail(reason);
        }
    }
}

/// Exports what is not exported yet, but not for long.
pub(crate) fn flush() {
    export::flush(LAST_SPANS);
}
