//! The outermost layer: what a request is known by is made and told, it is timed, and a stream that is refused is counted
//! and logged. What may change something is done to its end even if its client leaves, so that it is counted, logged and
//! in the audit log, as it is made.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use pba_types::{NAME_SHOWN, shortened};
use tracing::Instrument;

use crate::access::Identity;
use crate::access::secret::redacted;
use crate::app::App;
use crate::error::{Cause, Error};
use crate::http::correlation::Correlation;
use crate::http::epochs;
use crate::http::problem::ProblemName;
use crate::metrics::{Metrics, NO_DATASET, NO_ROUTE, Outcome};
use crate::stream::peer::Peer;
use crate::stream::work::Panicked;

/// The status of what was not answered, as web servers count it.
const CLIENT_LEFT: &str = "499";

/// Gives a request what it is known by, and its answer the id; times it, and counts the streams that are refused.
pub(super) async fn follow(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let correlation = Correlation::of(request.headers()).traced(&request, route, peer.as_ref());
    request.extensions_mut().insert(correlation.clone());
    let route = route.to_owned();
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    let is_stream = request.method() == Method::GET && route == epochs::BATCHES;
    let stream = is_stream.then(|| request.uri().path().to_owned());
    let left = Left { metrics: app.engine.metrics.clone(), route: Some(route.clone()) };
    let answer = async move {
        let mut response = next.run(request).instrument(correlation.span(peer.as_ref())).await;
        let seconds = correlation.received.elapsed().as_secs_f64();
        app.engine.metrics.request_duration.with_label_values(&[&route]).observe(seconds);
        correlation.trace.answered(response.status());
        if let Some(path) = stream.filter(|_| response.status().as_u16() >= 400) {
            refused(&app, &correlation, peer.as_ref(), &path, &response);
        }
        correlation.mark(&mut response);
        left.answered();
        response
    };
    match is_read {
        true => answer.await,
        false => match tokio::spawn(answer).await {
            Ok(response) => response,
            // A panic was logged and counted where it happened.
            Err(_) => Error::new(Cause::Internal, Panicked).into_response(),
        },
    }
}

/// Counts a request that is dropped without an answer, as its client has left.
struct Left {
    metrics: Metrics,
    /// None once it was answered.
    route: Option<String>,
}

impl Left {
    /// It has an answer.
    fn answered(mut self) {
        self.route = None;
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if let Some(route) = &self.route {
            self.metrics.requests.with_label_values(&[route.as_str(), CLIENT_LEFT]).inc();
        }
    }
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
