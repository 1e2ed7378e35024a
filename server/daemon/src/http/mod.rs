//! The HTTP API: one module per resource, one table of routes.

pub(crate) mod apply;
pub(crate) mod asked;
mod attempt;
mod audit;
mod authentication;
mod comparisons;
pub(crate) mod correlation;
mod datasets;
mod departure;
mod epochs;
mod extract;
mod follow;
mod jobs;
mod json;
pub(crate) mod metrics_port;
mod operations;
mod pages;
pub(crate) mod plain_http;
pub(crate) mod problem;
mod schedules;
mod searches;
pub(crate) mod security;
mod sign_in;
mod streams;

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use futures_util::FutureExt;
use pba_wire::Role;
use tracing::Span;
use utoipa::OpenApi;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::ParameterIn;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::Identity;
use crate::app::App;
use crate::boundary::MetricsPort;
use crate::error::{Cause, Error};
use crate::http::asked::Asked;
use crate::http::attempt::Attempt;
use crate::http::authentication::{Roles, check_role, for_role, identify};
use crate::http::problem::{ProblemName, documented};
use crate::metrics::{BROKEN_STREAM, NO_ROUTE};
use crate::stream::budget::Reservation;
use crate::stream::client::Client;
use crate::stream::engine::Engine;
use crate::stream::turns::Turn;
use crate::stream::work::{Cancellation, Panicked};
use crate::stream::workspace::Workspace;

/// Longer query strings are refused; a policy of 60 integers takes some 200 bytes.
const QUERY_BYTES_MAX: usize = 8 << 10;

/// Longer paths are refused; the longest has two names and an epoch.
const PATH_BYTES_MAX: usize = 2 << 10;

/// Larger heads are refused; a browser's cookies for localhost fit in, whichever application set them.
const HEADERS_BYTES_MAX: usize = 32 << 10;

/// A replica serves the schedules that it knows if the disk takes longer than this to say which there are.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// A request that is not answered by then was not sent completely, or did not get its turn.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Answers that any route may give.
const ANYWHERE: [StatusCode; 9] = [
    StatusCode::BAD_REQUEST,
    StatusCode::FORBIDDEN,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::URI_TOO_LONG,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::INTERNAL_SERVER_ERROR,
];

/// The content of `/openapi.json` besides the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "PBA server",
        description = "Streams augmented image batches, and learns augmentation schedules. Every answer has the header \
            PBA-Request, a checksum of the request as it arrived; if it lies ready as a whole PBA-Body, one of its \
            body; and a stream PBA-Schema, one of its schema. A request may have the first two, and is refused if it \
            was changed on its way; client/wire/src/checksum.rs defines them"
    ),
    components(schemas(pba_wire::Problem))
)]
struct Document;

/// Every route, by which servers may answer it, and by the role that it needs: a route is in one group, so that no handler
/// has to remember either.
pub(crate) fn router(app: Arc<App>) -> Router {
    let writer_only = || from_fn_with_state(Arc::clone(&app), writer_only);
    let not_draining = from_fn_with_state(Arc::clone(&app), not_draining);
    let not_leaving = from_fn_with_state(Arc::clone(&app), not_leaving);
    // They read, wherever they are asked.
    let mut reads = OpenApiRouter::with_openapi(Document::openapi())
        .merge(pages::routes())
        .routes(routes!(datasets::list))
        .routes(routes!(datasets::show))
        .routes(routes!(epochs::preview))
        .routes(routes!(streams::list))
        .routes(routes!(apply::apply))
        .routes(routes!(schedules::list))
        .routes(routes!(schedules::show))
        .routes(routes!(schedules::plot))
        .routes(routes!(searches::plot))
        .routes(routes!(searches::schedule))
        .routes(routes!(comparisons::plot))
        .routes(routes!(comparisons::report))
        .routes(routes!(operations::metrics))
        .routes(routes!(operations::openapi));
    // They need no token.
    let open = OpenApiRouter::new()
        .routes(routes!(operations::live))
        .routes(routes!(operations::ready))
        .routes(routes!(sign_in::show, sign_in::start))
        .routes(routes!(sign_in::end));
    // They tell what others did.
    let oversight = OpenApiRouter::new().routes(routes!(audit::list));
    // They change what the data directory holds.
    let mut writes = OpenApiRouter::new()
        .routes(routes!(schedules::put, schedules::delete))
        .routes(routes!(searches::finish));
    // They begin something that takes long.
    let begins = OpenApiRouter::new()
        .routes(routes!(epochs::batches))
        .route_layer(not_draining)
        .route_layer(from_fn(with_identity));
    // They are asked of the server that hosts the jobs.
    let (mut starts, mut follows) = (OpenApiRouter::new(), OpenApiRouter::new());
    macro_rules! routes_of {
        ($($kind:ident in $file:ident),*) => { [$(jobs::routes::<pba_search::$kind>()),*] };
    }
    for jobs in pba_search::kinds!(routes_of) {
        (reads, writes, starts) =
            (reads.merge(jobs.reads), writes.merge(jobs.writes), starts.merge(jobs.begins));
        follows = follows.merge(jobs.follows);
    }
    let follows = follows.route_layer(from_fn_with_state(Arc::clone(&app), host_only));
    let writes = writes.route_layer(writer_only());
    let starts = starts.route_layer(not_leaving).route_layer(writer_only());

    let router = for_role(Role::Reader, reads.merge(follows).merge(begins))
        .merge(for_role(Role::Researcher, writes.merge(starts)))
        .merge(for_role(Role::Admin, oversight))
        .merge(open);
    let (router, mut document) = router.split_for_parts();
    let is_needed = app.authenticator.is_needed();
    authentication::document(&mut document, is_needed);
    let (mut without_query, mut roles) = (HashSet::new(), Roles::default());
    for (path, item) in &mut document.paths.paths {
        for ((method, path), operation) in authentication::of_path(path, item) {
            // The name of its handler is unique within its module, which is its tag.
            let names = [operation.tags.iter().flatten().next(), operation.operation_id.as_ref()];
            operation.operation_id = Some(names.into_iter().flatten().cloned().collect::<Vec<_>>().join("_"));
            let succeeds = |status: &&String| status.parse().is_ok_and(|status: u16| status < 400);
            let statuses = operation.responses.responses.keys().filter(succeeds);
            app.engine.metrics.begin_route(&path, statuses.map(String::as_str));
            let has_query = operation.parameters.iter().flatten().any(|parameter| {
                matches!(parameter, RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query)
            });
            let role = authentication::role_of(operation);
            let unknown = role.filter(|_| is_needed).map(|_| StatusCode::UNAUTHORIZED);
            for status in ANYWHERE.into_iter().chain(unknown) {
                operation.responses.responses.insert(status.as_str().to_owned(), documented(status).into());
            }
            pages::document(operation);
            roles.add((method.clone(), path.clone()), role);
            if !has_query {
                without_query.insert((method, path));
            }
        }
    }
    app.engine.metrics.begin_route(NO_ROUTE, [StatusCode::NOT_FOUND.as_str()]);
    for kind in problem::names().chain([BROKEN_STREAM]) {
        app.engine.metrics.request_errors.with_label_values(&[kind]);
    }
    router
        .method_not_allowed_fallback(async |request: Request| {
            let detail = format!("{:?} does not answer {}", request.uri().path(), request.method());
            Error::new(Cause::MethodNotAllowed, detail)
        })
        .fallback(async |uri: Uri| {
            let detail = format!("there is no page {:?}; /openapi.json lists the routes", uri.path());
            Error::new(Cause::NotFound, detail)
        })
        .layer(from_fn_with_state((Arc::clone(&app), Arc::new(Operations { without_query, roles })), see_to))
        .layer(from_fn_with_state(Arc::clone(&app), follow::follow))
        .layer(Extension(Arc::new(document)))
        .with_state(app)
}

/// Methods and routes.
type Routes = HashSet<(Method, String)>;

/// What is known of the operations before they are done.
struct Operations {
    /// Those that take no parameters.
    without_query: Routes,
    roles: Roles,
}

/// Has a request that may change something done to its end even if its client leaves.
async fn see_to(
    State((app, operations)): State<(Arc<App>, Arc<Operations>)>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let needed = operations.roles.needed(request.method(), route.as_deref());
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    let is_change = needed.is_some_and(|role| role > Role::Reader) && !is_read;
    let metrics = app.engine.metrics.clone();
    let answer = observe(app, operations, request, next);
    match is_change {
        true => departure::outlive(answer).await,
        false => departure::count(answer, metrics, route.as_deref().unwrap_or(NO_ROUTE)).await,
    }
}

/// Refuses what comes from elsewhere, and who is not known or may not do what is asked; bounds the query, and refuses
/// one on routes without parameters; counts every answer by route and status, and notes changes in the audit log;
/// answers for a handler that panics; and gives each answer its checksums.
async fn observe(app: Arc<App>, operations: Arc<Operations>, mut request: Request, next: Next) -> Response {
    let Operations { without_query, roles } = &*operations;
    let asked = Asked::by(&request);
    request.extensions_mut().insert(asked.clone());
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    // The address for metrics asks for no token.
    let is_open = request.extensions().get::<MetricsPort>().is_some();
    let needed = roles.needed(request.method(), matched.as_deref()).filter(|_| !is_open);
    let attempt = if is_open { None } else { Attempt::of(&request, needed) };
    let checked = app.boundary.check(&request);
    let checked = checked.and_then(|()| match (identify(&app.authenticator, &request), needed) {
        // What needs no token minds none that is wrong.
        (Err(_), None) => Ok(Identity::stranger()),
        (identified, _) => identified,
    });
    let identity = checked.as_ref().ok().cloned();
    let checked = checked.and_then(|identity| {
        if let Some(name) = identity.name() {
            Span::current().record("token", name);
        }
        asked.check(request.headers())?;
        check_role(&identity, needed)?;
        request.extensions_mut().insert(identity);
        check_address(without_query, matched.as_deref(), &request)
    });
    let response = match checked {
        Err(error) if error.cause == Cause::Unauthenticated => {
            let next = sign_in::back_to(request.method(), request.uri());
            sign_in::refusal(error, request.headers(), &next)
        }
        Err(error) => error.into_response(),
        Ok(()) => {
            let is_asked = matched.as_deref().is_some_and(asks_for_schedules);
            let answer = async {
                if is_asked && !app.lock.is_writer() {
                    look_again(&app).await;
                }
                next.run(request).await
            };
            charge(&app.engine, answered(answer).await).await
        }
    };
    if let Some(attempt) = attempt {
        attempt.add_to(&app.audit, identity.as_ref(), &response);
    }
    let response = asked.signed(response).await;
    let metrics = &app.engine.metrics;
    let route = matched.as_deref().unwrap_or(NO_ROUTE);
    metrics.requests.with_label_values(&[route, response.status().as_str()]).inc();
    if let Some(ProblemName(name)) = response.extensions().get() {
        metrics.request_errors.with_label_values(&[*name]).inc();
    }
    response
}

/// Whether a route needs the schedules as they are now.
fn asks_for_schedules(route: &str) -> bool {
    pages::show_schedules(route)
        || route.starts_with("/v1/") && (!route.starts_with("/v1/datasets") || route.contains("/epochs/"))
}

/// Takes over what the server that writes to the data directory has changed in its schedules. If the disk does
/// not answer, what is known is served.
async fn look_again(app: &Arc<App>) {
    let refresh = read(Arc::clone(app), |app| {
        app.registry.refresh();
        Ok(())
    });
    if tokio::time::timeout(REFRESH_TIMEOUT, refresh).await.is_err() {
        tracing::warn!("the disk does not answer; the schedules may be outdated");
    }
}

/// The answer of a handler, or that in its place if it panics or does not end.
async fn answered(answer: impl Future<Output = Response>) -> Response {
    // Bounds a body that does not come to its end; a stream's answer begins well before. No state of a
    // handler outlives its panic, but for what is behind locks, whose users mind that.
    let answer = AssertUnwindSafe(tokio::time::timeout(ANSWER_TIMEOUT, answer)).catch_unwind();
    match answer.await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            let seconds = ANSWER_TIMEOUT.as_secs();
            let detail = format!(
                "no answer within {seconds} s; was the body sent completely, and does the server's disk answer? A \
                 change that was asked for may still be made"
            );
            Error::new(Cause::Timeout, detail).into_response()
        }
        // It was logged and counted where it happened.
        Err(_) => Error::new(Cause::Internal, Panicked).into_response(),
    }
}

fn check_address(without_query: &Routes, route: Option<&str>, request: &Request) -> Result<(), Error> {
    let query = request.uri().query().unwrap_or_default();
    if query.len() > QUERY_BYTES_MAX {
        let detail = format!("the query has {} bytes; allowed are {QUERY_BYTES_MAX}", query.len());
        return Err(Error::new(Cause::TooLarge, detail));
    }
    if request.uri().path().len() > PATH_BYTES_MAX {
        let detail =
            format!("the path has {} bytes; allowed are {PATH_BYTES_MAX}", request.uri().path().len());
        return Err(Error::new(Cause::AddressTooLong, detail));
    }
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let headers = headers.sum::<usize>();
    if headers > HEADERS_BYTES_MAX {
        let detail = format!("the headers have {headers} bytes; allowed are {HEADERS_BYTES_MAX}");
        return Err(Error::new(Cause::HeadersTooLarge, detail));
    }
    if percent_encoding::percent_decode_str(request.uri().path()).decode_utf8().is_err() {
        return Err(Error::new(Cause::WrongParameter, "the path is not UTF-8 text"));
    }
    let Some(route) = route else { return Ok(()) };
    // What is asked by HEAD is what GET would answer.
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    if query.is_empty() || !without_query.contains(&(method, route.to_owned())) {
        return Ok(());
    }
    pba_wire::query::pairs(query)?.first().map_or(Ok(()), |(parameter, value)| {
        Err(Error::parameter(parameter, value, "unknown parameter", "no parameters"))
    })
}

/// Lets a request pass if this server may write to its data directory.
async fn writer_only(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Error> {
    app.lock.check_writer()?;
    Ok(next.run(request).await)
}

/// Lets a request pass if this server hosts the jobs, of which another is told nothing.
async fn host_only(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Error> {
    app.lock.check_writer().map_err(|refused| {
        let detail = "this server does not host the jobs, and hears of no events; ask the server that does, or ask \
            this one again and again for the job itself, whose state it reads from the data directory";
        Error::new(refused.cause, detail)
    })?;
    Ok(next.run(request).await)
}

/// Tells the outer layers whose request it was, for the line of a stream that is refused.
async fn with_identity(request: Request, next: Next) -> Response {
    let identity = request.extensions().get::<Identity>().cloned();
    let mut response = next.run(request).await;
    if let Some(identity) = identity {
        response.extensions_mut().insert(identity);
    }
    response
}

/// Lets a request pass until the server takes no new streams.
async fn not_draining(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Error> {
    app.stage.check_takes_streams()?;
    Ok(next.run(request).await)
}

/// Lets a request pass until the server is told to stop.
async fn not_leaving(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Error> {
    app.stage.check_serving()?;
    Ok(next.run(request).await)
}

/// Smaller answers are not counted as memory in flight, so that a server whose memory is taken still says how it
/// is: as many of them as there are connections is what they take at most.
const SMALL_ANSWER_BYTES: u64 = 128 << 10;

/// Marks an answer whose memory is reserved.
#[derive(Clone, Copy)]
struct Charged;

/// Reserves the memory of an answer that lies ready as a whole, until it is sent.
async fn charge(engine: &Engine, response: Response) -> Response {
    let Some(bytes) = response.body().size_hint().exact().filter(|bytes| *bytes > SMALL_ANSWER_BYTES) else {
        return response;
    };
    if response.extensions().get::<Charged>().is_some() {
        return response;
    }
    let memory = match engine.memory_for_answer(bytes) {
        Ok(memory) => memory,
        Err(error) => return error.into_response(),
    };
    let (parts, body) = response.into_parts();
    match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => (parts, charged(bytes, memory)).into_response(),
        Err(error) => Error::internal(error).into_response(),
    }
}

/// An answer whose memory is given back when it is sent.
fn charged(bytes: impl AsRef<[u8]> + Send + 'static, memory: Reservation) -> (Extension<Charged>, Body) {
    (Extension(Charged), Body::from(Bytes::from_owner(Held { bytes, _memory: memory })))
}

/// Bytes, and the memory that they take.
struct Held<B> {
    bytes: B,
    _memory: Reservation,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Held<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// Runs work that only reads, apart.
async fn read<T: Send + 'static>(
    app: Arc<App>,
    work: impl FnOnce(&App) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    app.apart.clone().read(move || work(&app)).await
}

/// Runs work that waits for no disk, apart.
async fn compute<T: Send + 'static>(
    app: Arc<App>,
    work: impl FnOnce(&App) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    app.apart.clone().compute(move || work(&app)).await
}

/// Runs work that changes the data directory, apart. It is finished even if the client has left.
async fn change<T: Send + 'static>(
    app: Arc<App>,
    work: impl FnOnce(&App) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let apart = app.apart.clone();
    let work = move || {
        let done = app.lock.check_in_place().and_then(|()| work(&app));
        app.health.changed(done.as_ref().err());
        done
    };
    apart.change(work).await
}

/// Runs CPU work on the pool, and waits for it. It keeps its turn until it has ended.
async fn on_pool<T: Send + 'static>(
    app: &App,
    client: Client,
    turn: Turn,
    task: impl FnOnce(&mut Workspace, &Cancellation) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let task = move |workspace: &mut Workspace, cancellation: &Cancellation| {
        let _turn = turn;
        task(workspace, cancellation)
    };
    let answer = app.engine.pool.run(app.engine.owner(client), task);
    answer.await.unwrap_or_else(|panic| Err(Error::internal(panic)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ServeArgs};
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn answers_are_counted_until_they_are_sent() {
        let mut limits = Config::resolve(&ServeArgs::default()).unwrap().limits;
        limits.memory_bytes_max = 16 << 20;
        let engine = Engine::start(limits, Metrics::new().unwrap()).unwrap();
        let taken = || engine.metrics.memory_in_flight_bytes.get();
        let answer = |bytes: usize| vec![7_u8; bytes].into_response();
        // A quarter of all.
        let mut unread = Vec::new();
        for _ in 0..4 {
            unread.push(charge(&engine, answer(1 << 20)).await);
        }
        assert_eq!((unread[3].status(), taken()), (StatusCode::OK, 4 << 20));
        let refused = charge(&engine, answer(1 << 20)).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.headers().contains_key("retry-after"));
        // What says how the server is, and what is not there as a whole.
        assert_eq!(charge(&engine, answer(128 << 10)).await.status(), StatusCode::OK);
        let stream = futures_util::stream::repeat(Ok::<_, std::convert::Infallible>(vec![0_u8; 1 << 20]));
        let stream = Body::from_stream(stream).into_response();
        assert_eq!(charge(&engine, stream).await.status(), StatusCode::OK);
        // As it was, and once only.
        let first = charge(&engine, unread.remove(0)).await;
        assert_eq!(taken(), 4 << 20);
        assert_eq!(axum::body::to_bytes(first.into_body(), usize::MAX).await.unwrap(), vec![7_u8; 1 << 20]);
        assert_eq!(taken(), 3 << 20);
        assert_eq!(charge(&engine, answer(1 << 20)).await.status(), StatusCode::OK);
        drop(unread);
        assert_eq!(taken(), 0);
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_answered() {
        let panics = async || -> Response { panic!("on purpose") };
        let response = answered(panics()).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(
            response.extensions().get::<ProblemName>().is_some_and(|ProblemName(name)| *name == "internal")
        );
    }
}
