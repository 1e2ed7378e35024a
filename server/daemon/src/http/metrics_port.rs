//! The address for Prometheus and for Kubernetes' probes, which answers what they ask and nothing else.
//!
//! Whoever can reach it may read it, so the rules of the boundary and of tokens do not bind it: a scraper asks for a pod
//! by its address, a proxy or a service by any name, and none of them shows a token. What it says are numbers, with the
//! names of datasets and routes beside them, and nothing that is asked there changes anything.

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};

use crate::boundary::MetricsPort;
use crate::error::{Cause, Error};
use crate::http::asked::Asked;

/// What is answered there, and at the other addresses though all connections are taken.
pub(crate) const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// The routes that are answered there, of all.
pub(crate) fn only(router: Router) -> Router {
    router.layer(from_fn(async |mut request: Request, next: Next| -> Response {
        let is_read = [Method::GET, Method::HEAD].contains(request.method());
        if PROBES.contains(&request.uri().path()) && is_read {
            request.extensions_mut().insert(MetricsPort);
            return next.run(request).await;
        }
        if PROBES.contains(&request.uri().path()) {
            let detail = format!("{:?} does not answer {}", request.uri().path(), request.method());
            return Asked::by(&request).signed(Error::new(Cause::MethodNotAllowed, detail).into_response()).await;
        }
        let detail = format!(
            "there is no page {:?} here: this address (metrics_listen) answers {} only; the server's own address (listen) \
             has all the others",
            request.uri().path(),
            PROBES.join(", ")
        );
        Asked::by(&request).signed(Error::new(Cause::NotFound, detail).into_response()).await
    }))
}
