//! Requests to one server, and what is checked of its answers before they are believed.

use std::time::{Duration, Instant};

use arrow_buffer::Buffer;
use pba_wire::checksum::Sum;
use pba_wire::{Problem, checksum, problem, stream};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response, StatusCode};

use crate::address::{Address, Request, cause};
use crate::error::ClientError;
use crate::options::{AGENT, ClientOptions};
#[cfg(target_os = "linux")]
use crate::shared_memory::{self, SharedMemoryStream};

/// A server that does not accept the connection within this time counts as down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Characters shown of an answer that is not a PBA server's.
const SHOWN_CHARACTERS: usize = 200;
/// Most bytes of an answer that is not a stream; contact sheets are the longest.
const DOCUMENT_BYTES_MAX: usize = 256 << 20;
/// Seconds until a server that is importing a dataset is asked again: at least, and if it does not say.
const RETRY_AFTER_MIN: u64 = 1;
/// Most of them that a server can ask for.
const RETRY_AFTER_MAX: u64 = 60;

/// One server.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    http: reqwest::Client,
    pub(crate) address: Address,
    authorization: Option<HeaderValue>,
    /// How long it may send nothing.
    pub(crate) stall: Duration,
    /// Whether the checksums of a plain stream are checked.
    pub(crate) checks: bool,
    /// Whether batches may come through shared memory from a server on a Unix socket.
    pub(crate) shares_memory: bool,
}

impl Replica {
    pub(crate) fn new(text: &str, options: &ClientOptions) -> Result<Replica, ClientError> {
        let address = Address::parse(text)?;
        let authorization = options.authorization()?;
        let trust = options.trust(address.base.scheme() == "https")?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(options.stall)
            .user_agent(AGENT)
            // A server is where its URL says, whatever `http_proxy` holds.
            .no_proxy()
            .tcp_nodelay(true)
            .tls_backend_preconfigured(trust)
            // A token goes to the server that it was meant for, and a POST stays one.
            .redirect(Policy::none());
        if let Some(path) = &address.socket {
            builder = builder.unix_socket(path.as_str());
        }
        if let Some(value) = &authorization {
            builder = builder.default_headers(HeaderMap::from_iter([(AUTHORIZATION, value.clone())]));
        }
        let http = builder.build().map_err(|error| ClientError::Stream(cause(&error)))?;
        let checks = options.checksums.unwrap_or(address.base.scheme() != "https");
        Ok(Replica { http, address, authorization, stall: options.stall, checks, shares_memory: true })
    }

    /// Its text with the token hidden, which it may repeat.
    pub(crate) fn hide(&self, text: &str) -> String {
        let token =
            self.authorization.as_ref().and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        token.map_or_else(|| text.to_owned(), |token| text.replace(token, "..."))
    }

    /// The complete answer to a request.
    pub(crate) async fn document(
        &self,
        request: Request<'_>,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, ClientError> {
        check_path(request.path)?;
        // The server does nothing of what was changed on its way.
        let asked = checksum::of_request(request.method.as_str(), request.path);
        let mut whole = asked;
        let mut sent = self.request(request).header(checksum::REQUEST_HEADER, asked.to_string());
        if let Some(body) = body {
            // All others are logs of lineages, which are text.
            let is_json = body.trim_ascii_start().first() == Some(&b'{');
            let kind = if is_json { "application/json" } else { "text/plain; charset=utf-8" };
            whole = checksum::of_body(&body, asked);
            sent =
                sent.header(CONTENT_TYPE, kind).header(checksum::BODY_HEADER, whole.to_string()).body(body);
        }
        let response = self.send(request, sent).await?;
        let response = self.success(request, whole, response).await?;
        let headers = response.headers().clone();
        let body = self.whole(request, response).await?;
        tracing::trace!(bytes = body.len(), "the answer was read");
        self.check_answer(request, &headers, Some((&body, &[whole])))?;
        Ok(body)
    }

    /// An answer must be to what was asked, and its body, if that lies ready as a whole, as it was sent: a proxy or a
    /// broken network may have made something else of either. A body comes with what it may be the answer to.
    fn check_answer(
        &self,
        request: Request<'_>,
        headers: &HeaderMap,
        body: Option<(&[u8], &[Sum])>,
    ) -> Result<(), ClientError> {
        let asked = checksum::of_request(request.method.as_str(), request.path);
        let says = |header, expected, otherwise| {
            check_header(header, text(headers, header), expected, otherwise)
                .map_err(|reason| self.address.otherwise(request, self.hide(&reason)))
        };
        says(checksum::REQUEST_HEADER, asked, "the answer is to another request")?;
        let Some((body, to)) = body else { return Ok(()) };
        let found = text(headers, checksum::BODY_HEADER);
        let mut sums = to.iter().map(|asked| checksum::of_body(body, *asked));
        let first = sums.next().expect("it is the answer to something");
        if sums.any(|sum| found == Some(&sum.to_string())) {
            return Ok(());
        }
        says(checksum::BODY_HEADER, first, "the answer was damaged on its way, or is to another body")
    }

    /// The events of a job after the one with an id.
    pub(crate) async fn events(&self, path: &str, last_id: Option<&str>) -> Result<Response, ClientError> {
        check_path(path)?;
        let mut sent = self.request(Request::get(path));
        if let Some(id) = last_id {
            sent = sent.header("Last-Event-ID", id);
        }
        let response = self.send(Request::get(path), sent).await?;
        let response = self.of_type(path, response, "text/event-stream", "not a stream of events").await?;
        self.check_answer(Request::get(path), response.headers(), None)?;
        Ok(response)
    }

    /// Requests an epoch: through shared memory, if it is on this machine.
    pub(crate) async fn stream(&self, path: &str) -> Result<Body, ClientError> {
        check_path(path)?;
        let request = Request::get(path);
        let response = match self {
            #[cfg(target_os = "linux")]
            Replica {
                address: address @ Address { socket: Some(socket), .. }, shares_memory: true, ..
            } => {
                let asked = shared_memory::ask(address, socket, path, self.authorization.as_ref());
                let answer = tokio::time::timeout(self.stall, asked).await;
                match answer.map_err(|elapsed| address.unanswered(request, &elapsed))?? {
                    shared_memory::Answer::Shared(stream) => return Ok(Body::SharedMemory(stream)),
                    shared_memory::Answer::Plain(response) => response,
                }
            }
            _ => self.send(request, self.request(request)).await?,
        };
        self.of_type(path, response, stream::CONTENT_TYPE, "not an Arrow stream").await.map(Body::Http)
    }

    fn request(&self, request: Request<'_>) -> RequestBuilder {
        self.http.request(request.method.clone(), self.address.join(request.path))
    }

    async fn send(&self, request: Request<'_>, sent: RequestBuilder) -> Result<Response, ClientError> {
        let begun = Instant::now();
        tracing::debug!("{} {} to {}", request.method, self.hide(request.path), self.address);
        let answered = sent.send().await.inspect(|response| {
            let (status, length) = (response.status().as_u16(), response.content_length());
            tracing::debug!(status, length, seconds = begun.elapsed().as_secs_f64(), "answered");
        });
        answered.map_err(|error| {
            tracing::debug!(error = self.hide(&cause(&error)), "not answered");
            // Either way, nothing was sent.
            let is_unsent = error.is_connect() || error.is_builder();
            if is_unsent {
                self.address.unreachable(&error)
            } else {
                self.address.unanswered(request, &error)
            }
        })
    }

    /// The answer, if successful; `whole` is the checksum of the request with its body.
    async fn success(
        &self,
        request: Request<'_>,
        whole: Sum,
        response: Response,
    ) -> Result<Response, ClientError> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let is_problem = has_type(&response, problem::CONTENT_TYPE);
        let retry_after = retry_after(&response);
        let headers = response.headers().clone();
        let body = self.whole(request, response).await?;
        let hide = |text: String| self.hide(&text);
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if is_problem && is_genuine(&problem, status) => {
                let problem = Box::new(Problem {
                    detail: hide(problem.detail),
                    value: problem.value.map(hide),
                    parameter: problem.parameter.map(hide),
                    allowed: problem.allowed.map(hide),
                    ..problem
                });
                self.check_refusal(request, whole, &headers, &body, &problem)?;
                Err(match problem.kind.as_str() {
                    problem::IMPORTING => ClientError::Importing { problem, retry_after },
                    _ => ClientError::Refused(problem),
                })
            }
            _ => {
                let body = String::from_utf8_lossy(&body);
                // One that was damaged is no refusal, whatever its status says now.
                Err(match body.contains(problem::URN) {
                    true => {
                        let shown = self.shown(&body);
                        let reason = format!("a refusal ({status}) was damaged on its way: {shown}");
                        self.address.otherwise(request, reason)
                    }
                    false if *request.method == Method::GET => self.foreign(request.path, status, &body),
                    false => {
                        let shown = self.shown(&body);
                        let reason = format!("{status} is not an answer of a PBA server: {shown}");
                        self.address.otherwise(request, reason)
                    }
                })
            }
        }
    }

    /// A refusal must be one of what was sent, as an answer must be.
    fn check_refusal(
        &self,
        request: Request<'_>,
        whole: Sum,
        headers: &HeaderMap,
        body: &[u8],
        problem: &Problem,
    ) -> Result<(), ClientError> {
        if !problem.kind.starts_with(problem::URN) {
            // That of a proxy is to whatever the proxy got.
            return Ok(());
        }
        if problem.kind == problem::ALTERED
            && let Some(arrived) = text(headers, checksum::REQUEST_HEADER).and_then(Sum::read)
            && text(headers, checksum::BODY_HEADER) == Some(&checksum::of_body(body, arrived).to_string())
        {
            // It is of a request that was changed: nothing was done.
            return Ok(());
        }
        let asked = checksum::of_request(request.method.as_str(), request.path);
        // The body of what is refused may not have been read.
        self.check_answer(request, headers, Some((body, &[asked, whole])))?;
        // The host is in no checksum, as proxies may have another name for the server.
        let [host, authority] = self.address.host();
        let is_of_host = problem.parameter.as_deref() == Some("Host");
        match problem.value.as_deref() {
            Some(value)
                if is_of_host && ![host, authority].iter().any(|host| host.eq_ignore_ascii_case(value)) =>
            {
                Err(self
                    .address
                    .otherwise(request, format!("the header Host was changed on its way: {problem}")))
            }
            _ => Ok(()),
        }
    }

    /// The answer, if successful and of a media type.
    async fn of_type(
        &self,
        path: &str,
        response: Response,
        media_type: &str,
        otherwise: &str,
    ) -> Result<Response, ClientError> {
        let whole = checksum::of_request("GET", path);
        let response = self.success(Request::get(path), whole, response).await?;
        if response.status() == StatusCode::OK && has_type(&response, media_type) {
            return Ok(response);
        }
        Err(self.foreign(path, response.status().as_u16(), otherwise))
    }

    /// The error for an answer that does not come from a PBA server.
    fn foreign(&self, path: &str, status: u16, body: &str) -> ClientError {
        ClientError::Foreign { url: format!("{}{path}", self.address), status, body: self.shown(body) }
    }

    /// The beginning of a body.
    fn shown(&self, body: &str) -> String {
        self.hide(body).chars().take(SHOWN_CHARACTERS).collect()
    }

    /// A complete body.
    async fn whole(&self, request: Request<'_>, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        let broken = |error| self.address.unanswered(request, &error);
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > DOCUMENT_BYTES_MAX {
                let reason = format!("{} sent more than {DOCUMENT_BYTES_MAX} bytes", self.address);
                return Err(ClientError::Stream(reason));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// Whether a problem is one that a PBA server sends with a status, or a proxy before it that does not let the
/// client in.
fn is_genuine(problem: &Problem, status: u16) -> bool {
    let is_known = problem.kind.starts_with(problem::URN) || matches!(status, 401 | 403 | 407);
    is_known && problem.status == status
}

/// A header's text; empty if it is none.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// Refuses a path that would be sent as another one.
fn check_path(path: &str) -> Result<(), ClientError> {
    let path = path.split('?').next().unwrap_or(path);
    let name = path.split('/').find(|segment| matches!(*segment, "." | ".."));
    name.map_or(Ok(()), |name| Err(ClientError::Name { name: name.to_owned() }))
}

/// Checks that a header of an answer is as it should be; if not, says why the answer is not to be believed.
pub(crate) fn check_header(
    header: &str,
    found: Option<&str>,
    expected: checksum::Sum,
    otherwise: &str,
) -> Result<(), String> {
    match found {
        Some(found) if found == expected.to_string() => Ok(()),
        Some(found) => Err(format!("{otherwise}: {header} is {found:?}, and should be {expected}")),
        None => Err(format!(
            "the answer has no {header}: it is not a PBA server, or one of another version, or a proxy between drops \
             headers that it does not know"
        )),
    }
}

/// When to ask again, within bounds. The form with a date is for caches.
fn retry_after(response: &Response) -> Duration {
    let found = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(found.unwrap_or(RETRY_AFTER_MIN).clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX))
}

/// Whether an answer has a media type.
fn has_type(response: &Response, media_type: &str) -> bool {
    let found = response.headers().get(CONTENT_TYPE);
    found.is_some_and(|value| value.as_bytes().starts_with(media_type.as_bytes()))
}

/// The body of a stream, from a socket or from shared memory.
pub(crate) enum Body {
    Http(Response),
    #[cfg(target_os = "linux")]
    SharedMemory(Box<SharedMemoryStream>),
}

impl Body {
    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = match self {
            Body::Http(response) => response.headers(),
            #[cfg(target_os = "linux")]
            Body::SharedMemory(stream) => stream.headers(),
        };
        text(headers, name)
    }

    /// The next bytes of the answer; none at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Buffer>, ClientError> {
        let next = match self {
            Body::Http(response) => {
                response.chunk().await.map(|chunk| chunk.map(Buffer::from)).map_err(|error| cause(&error))
            }
            #[cfg(target_os = "linux")]
            Body::SharedMemory(stream) => stream.next().await.map_err(|error| error.to_string()),
        };
        next.map_err(ClientError::Stream)
    }
}
