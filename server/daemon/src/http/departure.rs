//! Clients that leave before their answer.

use std::future::Future;

use axum::response::{IntoResponse, Response};
use tracing::{Instrument, Span};

use crate::error::{Cause, Error};
use crate::metrics::Metrics;
use crate::stream::work::Panicked;

/// The status of what was not answered because its client left, as web servers count it.
const CLIENT_LEFT: &str = "499";

/// The answer, which is made though the client leaves: so what it changes is counted, logged and in the audit log.
pub(super) async fn outlive(answer: impl Future<Output = Response> + Send + 'static) -> Response {
    let answer = tokio::spawn(answer.instrument(Span::current()));
    // A panic was logged and counted where it happened.
    answer.await.unwrap_or_else(|_| Error::new(Cause::Internal, Panicked).into_response())
}

/// The answer, which ends with the client, and then counts as one that was not given.
pub(super) async fn count(answer: impl Future<Output = Response>, metrics: Metrics, route: &str) -> Response {
    let mut waiting = Waiting { metrics, route, is_answered: false };
    let answer = answer.await;
    waiting.is_answered = true;
    answer
}

/// A client that waits for its answer.
struct Waiting<'a> {
    metrics: Metrics,
    route: &'a str,
    is_answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.metrics.requests.with_label_values(&[self.route, CLIENT_LEFT]).inc();
        }
    }
}
