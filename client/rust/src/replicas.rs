//! Requests to one of several replicas.

use std::time::Duration;

use pba_wire::{Problem, problem, stream};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode};

use crate::address::{Address, cause};
use crate::body::Body;
use crate::error::ClientError;
use crate::options::ClientOptions;
use crate::request::Request;
#[cfg(target_os = "linux")]
use crate::shared_memory;

/// A server that does not accept the connection within this time counts as down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Characters shown of an answer that is not a PBA server's.
const SHOWN_CHARACTERS: usize = 200;
/// Most bytes of an answer that is not a stream; contact sheets are the longest.
const DOCUMENT_BYTES_MAX: usize = 256 << 20;
/// Retries on a busy server.
pub(crate) const ATTEMPTS_MAX: u32 = 6;
/// Pause before the second attempt; doubled each time.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// The replicas of one server: at least one.
#[derive(Clone, Debug)]
pub(crate) struct Replicas {
    replicas: Vec<Replica>,
}

#[derive(Clone, Debug)]
struct Replica {
    http: reqwest::Client,
    address: Address,
    authorization: Option<HeaderValue>,
    stall: Duration,
    /// Whether batches may come through shared memory from a server on a Unix socket.
    shares_memory: bool,
}

impl Replica {
    fn new(text: &str, options: &ClientOptions) -> Result<Replica, ClientError> {
        let address = Address::parse(text)?;
        let authorization = options.authorization()?;
        let trust = options.trust(address.base.scheme() == "https")?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(options.stall)
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
        Ok(Replica { http, address, authorization, stall: options.stall, shares_memory: true })
    }

    /// A server's text with the token hidden, which it may repeat.
    fn hide(&self, text: &str) -> String {
        ClientOptions::hide(self.authorization.as_ref(), text)
    }
}

impl Replicas {
    /// The replicas at `urls`.
    pub(crate) fn new(
        urls: impl IntoIterator<Item = impl AsRef<str>>,
        options: &ClientOptions,
    ) -> Result<Replicas, ClientError> {
        let replicas =
            urls.into_iter().map(|url| Replica::new(url.as_ref(), options)).collect::<Result<Vec<_>, _>>()?;
        if replicas.is_empty() {
            return Err(ClientError::NoServer);
        }
        Ok(Replicas { replicas })
    }

    /// Makes batches come through the socket from now on.
    pub(crate) fn forgo_shared_memory(&mut self) {
        self.replicas.iter_mut().for_each(|replica| replica.shares_memory = false);
    }

    /// As [`Client::request`](crate::Client::request).
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, ClientError> {
        let answer = self.first(async |replica| {
            let request = Request { method: &method, path };
            let answer = match self.send(replica, request, body.clone(), None).await {
                Ok(response) => whole(self.replica(replica), request, response).await,
                Err(error) => Err(error),
            };
            let goes_on = match &answer {
                Err(ClientError::Unreachable { .. }) => true,
                Err(error) => method == Method::GET && error.is_passing(),
                Ok(_) => false,
            };
            if goes_on { answer.map(Ok) } else { Ok(answer) }
        });
        answer.await?
    }

    /// Tries one replica after the other, and retries the busy ones for some seconds.
    pub(crate) async fn first<T>(
        &self,
        mut attempt: impl AsyncFnMut(usize) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut round = 0;
        loop {
            let mut failure = ClientError::NoServer;
            let mut busy = None;
            for replica in 0..self.replicas.len() {
                match attempt(replica).await {
                    Err(error) if error.is_busy() => busy = Some(error),
                    Err(error) if error.is_passing() => failure = error.after(failure),
                    done => return done,
                }
            }
            // Do not wait for a server that may not exist; one that is still importing datasets does exist.
            match busy {
                None => return Err(failure),
                Some(error) if round == ATTEMPTS_MAX => return Err(error),
                Some(_) => tokio::time::sleep(PAUSE * 2u32.pow(round)).await,
            }
            round += 1;
        }
    }

    /// How many replicas there are.
    pub(crate) fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// The address of a replica.
    pub(crate) fn address(&self, replica: usize) -> &Address {
        &self.replica(replica).address
    }

    /// A replica's text with the token hidden, which it may repeat.
    pub(crate) fn hide(&self, replica: usize, text: &str) -> String {
        self.replica(replica).hide(text)
    }

    /// How long a replica may send nothing.
    pub(crate) fn stall(&self, replica: usize) -> Duration {
        self.replica(replica).stall
    }

    fn replica(&self, replica: usize) -> &Replica {
        &self.replicas[replica % self.replicas.len()]
    }

    /// Requests an epoch from a replica: through shared memory, if it is on this machine.
    pub(crate) async fn stream(&self, number: usize, path: &str) -> Result<Body, ClientError> {
        let replica = self.replica(number);
        #[cfg(target_os = "linux")]
        if let Replica { address, authorization, stall, shares_memory: true, .. } = replica
            && let Some(socket) = &address.socket
        {
            let asked = shared_memory::ask(address, socket, path, authorization.as_ref());
            let answer = tokio::time::timeout(*stall, asked).await;
            return match answer.map_err(|elapsed| address.unanswered(Request::get(path), &elapsed))?? {
                shared_memory::Answer::Shared(stream) => Ok(Body::SharedMemory(stream)),
                shared_memory::Answer::Plain(response) => epoch(replica, path, response).await,
            };
        }
        let response = self.send(number, Request::get(path), None, None).await?;
        epoch(replica, path, response).await
    }

    /// Sends a request to one replica; an answer without success is an error.
    pub(crate) async fn send(
        &self,
        replica: usize,
        request: Request<'_>,
        body: Option<Vec<u8>>,
        header: Option<(&str, &str)>,
    ) -> Result<Response, ClientError> {
        let replica = self.replica(replica);
        let Replica { http, address, .. } = replica;
        let mut sent = http.request(request.method.clone(), address.join(request.path));
        if let Some(body) = body {
            sent = sent.body(body);
        }
        if let Some((name, value)) = header {
            sent = sent.header(name, value);
        }
        let response = sent.send().await.map_err(|error| {
            // Either way, nothing was sent.
            let is_unsent = error.is_connect() || error.is_builder();
            if is_unsent { address.unreachable(&error) } else { address.unanswered(request, &error) }
        })?;
        success(replica, request, response).await
    }
}

/// The answer of a server, if successful.
async fn success(
    replica: &Replica,
    request: Request<'_>,
    response: Response,
) -> Result<Response, ClientError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let is_problem = has_type(&response, problem::CONTENT_TYPE);
    let body = whole(replica, request, response).await?;
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) if is_problem => Err(ClientError::Refused(Box::new(Problem {
            detail: replica.hide(&problem.detail),
            value: problem.value.as_deref().map(|value| replica.hide(value)),
            parameter: problem.parameter.as_deref().map(|parameter| replica.hide(parameter)),
            allowed: problem.allowed.as_deref().map(|allowed| replica.hide(allowed)),
            ..problem
        }))),
        _ => Err(foreign(replica, request.path, status, &String::from_utf8_lossy(&body))),
    }
}

/// An answer that is an epoch.
async fn epoch(replica: &Replica, path: &str, response: Response) -> Result<Body, ClientError> {
    let response = success(replica, Request::get(path), response).await?;
    if response.status() == StatusCode::OK && has_type(&response, stream::CONTENT_TYPE) {
        return Ok(Body::Http(response));
    }
    Err(foreign(replica, path, response.status().as_u16(), "not an Arrow stream"))
}

/// The error for an answer that does not come from a PBA server.
pub(crate) fn foreign_answer(
    replicas: &Replicas,
    replica: usize,
    path: &str,
    response: &Response,
) -> ClientError {
    foreign(replicas.replica(replica), path, response.status().as_u16(), "not a stream of events")
}

fn foreign(replica: &Replica, path: &str, status: u16, body: &str) -> ClientError {
    let body = replica.hide(body).chars().take(SHOWN_CHARACTERS).collect();
    ClientError::Foreign { url: format!("{}{path}", replica.address), status, body }
}

/// Whether an answer has a media type.
pub(crate) fn has_type(response: &Response, media_type: &str) -> bool {
    let found = response.headers().get(CONTENT_TYPE);
    found.is_some_and(|value| value.as_bytes().starts_with(media_type.as_bytes()))
}

/// A complete body.
async fn whole(
    replica: &Replica,
    request: Request<'_>,
    mut response: Response,
) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    let broken = |error| replica.address.unanswered(request, &error);
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > DOCUMENT_BYTES_MAX {
            let reason = format!("{} sent more than {DOCUMENT_BYTES_MAX} bytes", replica.address);
            return Err(ClientError::Stream(reason));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
