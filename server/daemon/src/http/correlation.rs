//! By what a request can be followed: its id, its trace, and how long it took.
//!
//! All that is logged for a request is within its span, so each line tells the id. Work that is done apart takes the
//! span with it (`apart.rs`).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use pba_types::{NAME_SHOWN, shortened};
use pba_wire::request::{ID_HEADER, TRACE_HEADER, is_request_id, trace_id};
use tracing::{Instrument, Span};

use crate::app::App;
use crate::http::epochs;
use crate::http::problem::ProblemName;
use crate::metrics::{NO_DATASET, NO_ROUTE, Outcome};
use crate::stream::peer::Peer;

/// What a request is known by.
#[derive(Clone)]
pub(crate) struct Correlation {
    /// As its client chose it, or made here.
    pub(crate) request_id: Arc<str>,
    /// The trace that it is part of, if its client says so.
    pub(crate) trace_id: Option<Arc<str>>,
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
        let given = text(ID_HEADER).filter(|id| is_request_id(id));
        let request_id = given.map_or_else(new_id, str::to_owned).into();
        Correlation {
            request_id,
            trace_id: text(TRACE_HEADER).and_then(trace_id).map(Arc::from),
            received: Instant::now(),
        }
    }

    /// Tells its client the id.
    pub(crate) fn mark(&self, response: &mut Response) {
        let value =
            HeaderValue::try_from(&*self.request_id).expect("visible characters are a header's value");
        response.headers_mut().insert(HeaderName::from_static(ID_HEADER), value);
    }

    /// The span of a request; the name of its token is recorded in it when that is known.
    fn span(&self, peer: Option<&Peer>) -> Span {
        tracing::info_span!(
            "request",
            id = %self.request_id,
            trace = self.trace_id.as_deref(),
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

/// Gives a request what it is known by, and its answer the id; times it, and counts the streams that are refused.
pub(super) async fn follow(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let correlation = Correlation::of(request.headers());
    request.extensions_mut().insert(correlation.clone());
    let peer = request.extensions().get::<Peer>().copied();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    let stream = (is_read && route == epochs::BATCHES).then(|| request.uri().path().to_owned());
    let mut response = next.run(request).instrument(correlation.span(peer.as_ref())).await;
    let metrics = &app.engine.metrics;
    let seconds = correlation.received.elapsed().as_secs_f64();
    metrics.request_duration.with_label_values(&[route]).observe(seconds);
    if let Some(path) = stream.filter(|_| response.status().as_u16() >= 400) {
        refused(&app, &correlation, peer.as_ref(), &path, &response);
    }
    correlation.mark(&mut response);
    response
}

/// Counts and logs a stream that was refused, as others are when they have ended.
fn refused(app: &App, correlation: &Correlation, peer: Option<&Peer>, path: &str, response: &Response) {
    let dataset = path.split('/').nth(3).unwrap_or_default();
    let dataset = percent_encoding::percent_decode_str(dataset).decode_utf8_lossy();
    let known = if app.catalog.get(&dataset).is_ok() { &*dataset } else { NO_DATASET };
    app.engine.metrics.end_stream(known, Outcome::Refused);
    tracing::info!(
        outcome = Outcome::Refused.name(),
        reason = response.extensions().get().map(|ProblemName(name)| *name),
        status = response.status().as_u16(),
        client = peer.map(tracing::field::display),
        request = &*correlation.request_id,
        trace = correlation.trace_id.as_deref(),
        dataset = &*shortened(&dataset, NAME_SHOWN),
        "stream ended"
    );
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
