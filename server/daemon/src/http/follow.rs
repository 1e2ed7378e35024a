//! The outermost layer: what a request is known by is made and told, it is timed, and a stream that is refused is counted
//! and logged.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use pba_types::{NAME_SHOWN, shortened};
use tracing::Instrument;

use crate::access::Identity;
use crate::access::secret::redacted;
use crate::app::App;
use crate::http::correlation::Correlation;
use crate::http::epochs;
use crate::http::problem::ProblemName;
use crate::metrics::{NO_DATASET, NO_ROUTE, Outcome};
use crate::stream::peer::Peer;

/// Gives a request what it is known by, and its answer the id; times it, and counts the streams that are refused.
pub(super) async fn follow(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let correlation = Correlation::of(request.headers()).traced(&request, route, peer.as_ref());
    request.extensions_mut().insert(correlation.clone());
    let is_stream = request.method() == Method::GET && route == epochs::BATCHES;
    let stream = is_stream.then(|| request.uri().path().to_owned());
    let mut response = next.run(request).instrument(correlation.span(peer.as_ref())).await;
    let seconds = correlation.received.elapsed().as_secs_f64();
    app.engine.metrics.request_duration.with_label_values(&[route]).observe(seconds);
    correlation.trace.answered(response.status());
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
        trace = correlation.trace.id(),
        token = response.extensions().get::<Identity>().and_then(Identity::name),
        dataset = &*shortened(&redacted(&dataset), NAME_SHOWN),
        "stream ended"
    );
}
