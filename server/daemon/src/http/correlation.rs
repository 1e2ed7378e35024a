//! By what a request can be followed: its id and its trace.
//!
//! All that is logged for a request is within its span, so each line tells the id. Work that is done apart takes the
//! span with it (`apart.rs`).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use pba_wire::request::{ID_HEADER, TRACE_HEADER, is_request_id, trace_id};
use tracing::Span;

use crate::access::secret::redacted;
use crate::stream::peer::Peer;
use crate::trace::Trace;

/// What a request is known by.
#[derive(Clone)]
pub(crate) struct Correlation {
    /// As its client chose it, or made here: also in place of one in which a token stands.
    pub(crate) request_id: Arc<str>,
    pub(crate) trace: Trace,
    pub(crate) received: Instant,
}

impl<S: Sync> FromRequestParts<S> for Correlation {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Correlation, Infallible> {
        let known = parts.extensions.get().cloned();
        Ok(known.unwrap_or_else(|| Correlation::of(&parts.headers)))
    }
}

impl Correlation {
    /// Of a request that came now.
    pub(crate) fn of(headers: &HeaderMap) -> Correlation {
        let text = |header| headers.get(header).and_then(|value| value.to_str().ok());
        let given = text(ID_HEADER).filter(|id| is_request_id(id) && redacted(id) == *id);
        let request_id = given.map_or_else(new_id, str::to_owned).into();
        Correlation {
            request_id,
            trace: Trace::of(text(TRACE_HEADER).and_then(trace_id)),
            received: Instant::now(),
        }
    }

    /// The same with a span of its own, if spans are exported.
    pub(super) fn traced(self, request: &Request, route: &str, peer: Option<&Peer>) -> Correlation {
        let trace = self.trace.begun(request.headers(), request.method(), route);
        trace.tell("pba.request_id", || self.request_id.to_string());
        if let Some(peer) = peer {
            trace.tell("client.address", || peer.to_string());
        }
        Correlation { trace, ..self }
    }

    /// Tells its client the id.
    pub(crate) fn mark(&self, response: &mut Response) {
        let value =
            HeaderValue::try_from(&*self.request_id).expect("visible characters are a header's value");
        response.headers_mut().insert(HeaderName::from_static(ID_HEADER), value);
    }

    /// The span of a request; the name of its token is recorded in it when that is known.
    pub(super) fn span(&self, peer: Option<&Peer>) -> Span {
        tracing::info_span!(
            "request",
            id = %self.request_id,
            trace = self.trace.id(),
            client = peer.map(tracing::field::display),
            token = tracing::field::Empty,
        )
    }
}

/// 128 random bits.
fn new_id() -> String {
    let mut bytes = [0; 16];
    // Without the system's random numbers, ids are merely unlikely to be told apart.
    if getrandom::fill(&mut bytes).is_err() {
        tracing::debug!("the system has no random numbers");
    }
    format!("{:032x}", u128::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_if_it_is_one_and_else_made() {
        let of = |id: &str| {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static(ID_HEADER),
                HeaderValue::from_bytes(id.as_bytes()).unwrap(),
            )]);
            Correlation::of(&headers).request_id.to_string()
        };
        assert_eq!(of("a-7"), "a-7");
        let made = [of(""), of("two words"), of(&"x".repeat(129)), of("ü")];
        for id in &made {
            assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        }
        assert_ne!(made[0], made[1]);
    }
}
