//! The HTTP API: one module per resource, one table of routes.

mod apply;
mod dashboard;
mod datasets;
mod epochs;
mod evaluations;
mod jobs;
mod operations;
mod problem;
mod refusals;
mod schedules;
mod searches;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::Uri;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::app::App;
use crate::error::Error;
use crate::http::problem::ProblemName;

/// Longer query strings are refused; a policy of 60 integers takes some 200 bytes.
const QUERY_BYTES_MAX: usize = 8 << 10;

/// A request that is not answered by then was not sent whole, or waits for a turn in vain.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Every route.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(dashboard::page))
        .route("/favicon.ico", get(dashboard::icon))
        .route("/v1/datasets", get(datasets::list))
        .route("/v1/datasets/{dataset}", get(datasets::show))
        .route("/v1/datasets/{dataset}/epochs/{epoch}/batches", get(epochs::batches))
        .route("/v1/datasets/{dataset}/epochs/{epoch}/preview.png", get(epochs::preview))
        .route("/v1/apply", post(apply::apply))
        .route("/v1/schedules", get(schedules::list))
        .route("/v1/schedules/{schedule}", get(schedules::show).put(schedules::put).delete(schedules::delete))
        .route("/v1/schedules/{schedule}/plot.svg", get(schedules::plot))
        .merge(searches::routes())
        .merge(evaluations::routes())
        .route("/metrics", get(operations::metrics))
        .route("/livez", get(operations::live))
        .route("/readyz", get(operations::ready))
        .method_not_allowed_fallback(async |request: Request| {
            Error::method(request.method().as_str(), request.uri().path())
        })
        .fallback(async |uri: Uri| Error::no_route(uri.path()))
        .layer(from_fn_with_state(Arc::clone(&app), observe))
        .layer(DefaultBodyLimit::max(app.limits.body_bytes_max))
        .with_state(app)
}

/// Bounds the query, and counts every answer by route and status.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let query_bytes = request.uri().query().map_or(0, str::len);
    let response = if query_bytes > QUERY_BYTES_MAX {
        Error::too_large(format!("a query of {query_bytes} bytes; allowed are {QUERY_BYTES_MAX}"))
            .into_response()
    } else {
        // Bounds a body that does not come to its end; a stream's answer begins well before.
        match tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Error::timeout(ANSWER_TIMEOUT.as_secs()).into_response(),
        }
    };
    app.metrics.requests.with_label_values(&[route.as_str(), response.status().as_str()]).inc();
    if let Some(ProblemName(name)) = response.extensions().get() {
        app.metrics.request_errors.with_label_values(&[*name]).inc();
    }
    response
}

/// Refuses parameters on a route that has none.
fn no_parameters(uri: &Uri) -> Result<(), Error> {
    match pba_wire::epoch::pairs(uri.query().unwrap_or_default())?.first() {
        None => Ok(()),
        Some((parameter, value)) => {
            Err(Error::parameter(parameter, value, "unknown parameter", "no parameter here"))
        }
    }
}

/// Runs CPU work on the pool when its turn comes, and waits for it.
async fn on_pool<T: Send + 'static>(
    app: &App,
    job: impl FnOnce(&mut crate::stream::pool::Workspace) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let _turn = app.single_jobs.acquire().await.map_err(Error::internal)?;
    match app.pool.run(job).await {
        Ok(Ok(result)) => result,
        Ok(Err(panicked)) => Err(Error::internal(panicked)),
        Err(_) => Err(Error::internal("the pool was shut down")),
    }
}
