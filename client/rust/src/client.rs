//! Requests to one of several replicas.

use std::time::Duration;

use pba_wire::epoch::EpochRequest;
use pba_wire::{Problem, problem, stream};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode};

use crate::address::{Address, cause};
use crate::epoch::{EpochStream, Source};
use crate::error::ClientError;
use crate::events::Events;
#[cfg(target_os = "linux")]
use crate::memory;
use crate::options::ClientOptions;

/// A server that does not even accept the connection by then is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Characters of a foreign answer that are shown.
const SHOWN_CHARACTERS: usize = 200;
/// Of an answer that is read as a whole; contact sheets are the longest.
const DOCUMENT_BYTES_MAX: usize = 256 << 20;
/// Attempts to ask a server that is busy again.
pub(crate) const ATTEMPTS_MAX: u32 = 6;
/// Pause before the second attempt; doubled each time.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Talks to the replicas of one server.
#[derive(Clone, Debug)]
pub struct Client {
    replicas: Vec<Replica>,
}

#[derive(Clone, Debug)]
struct Replica {
    http: reqwest::Client,
    address: Address,
    authorization: Option<HeaderValue>,
    stall: Duration,
    /// Whether batches may come through memory that a server on a Unix socket shares.
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

    /// A text of the server without the token, which it may repeat.
    fn hide(&self, text: &str) -> String {
        ClientOptions::hide(self.authorization.as_ref(), text)
    }
}

impl Client {
    /// A client of the replicas at `urls`, each `http://HOST:PORT`, `https://HOST:PORT` or, on this
    /// machine, `unix:PATH`; each serves the same datasets and schedules. `HOST:PORT` means `http://`.
    ///
    /// # Errors
    /// When there is no URL, or one is not a server's.
    pub fn new(urls: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Client, ClientError> {
        Client::with_options(urls, &ClientOptions::default())
    }

    /// The same, with a token or certificate authorities of one's own.
    ///
    /// # Errors
    /// When there is no URL, or one is not a server's; when the token cannot be sent, or the
    /// certificate authorities cannot be read.
    pub fn with_options(
        urls: impl IntoIterator<Item = impl AsRef<str>>,
        options: &ClientOptions,
    ) -> Result<Client, ClientError> {
        let replicas =
            urls.into_iter().map(|url| Replica::new(url.as_ref(), options)).collect::<Result<Vec<_>, _>>()?;
        if replicas.is_empty() {
            return Err(ClientError::NoServer);
        }
        Ok(Client { replicas })
    }

    /// The same, without the memory that a server at `unix:PATH` shares on Linux: batches come through
    /// the socket.
    pub fn without_shared_memory(mut self) -> Client {
        self.replicas.iter_mut().for_each(|replica| replica.shares_memory = false);
        self
    }

    /// Streams one epoch of a dataset. A cut stream is continued at the next batch, on the next
    /// replica.
    ///
    /// A server that is full, or still opens its datasets, is asked again for some seconds.
    ///
    /// # Errors
    /// When no replica can be reached, or one refuses the request.
    pub async fn epoch(
        &self,
        dataset: &str,
        epoch: u32,
        request: EpochRequest,
    ) -> Result<EpochStream, ClientError> {
        EpochStream::open(self.clone(), dataset.to_owned(), epoch, request).await
    }

    /// Sends a request to the first replica that can be reached, and answers the body. What only reads
    /// is asked of a busy server again for some seconds; a change that has reached a server is not sent
    /// to another one.
    ///
    /// # Errors
    /// When none can be reached, or it refuses.
    pub async fn request(
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

    /// Tries one replica after the other, and the busy ones again for some seconds.
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
            // Nobody waits for a server that may not exist; one that still opens its datasets does.
            match busy {
                None => return Err(failure),
                Some(error) if round == ATTEMPTS_MAX => return Err(error),
                Some(_) => tokio::time::sleep(PAUSE * 2u32.pow(round)).await,
            }
            round += 1;
        }
    }

    /// Follows what happens in a job, from its beginning to its end: `jobs` is its kind in paths, as
    /// `searches`.
    pub fn events(&self, jobs: &str, id: &str) -> Events {
        Events::new(self.clone(), jobs, id)
    }

    /// How many replicas there are.
    pub(crate) fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// Where a replica is.
    pub(crate) fn address(&self, replica: usize) -> &Address {
        &self.replica(replica).address
    }

    /// A text of a replica without the token, which it may repeat.
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

    /// Asks a replica for an epoch: through memory that it shares, where it is on this machine.
    pub(crate) async fn stream(&self, number: usize, path: &str) -> Result<Source, ClientError> {
        let replica = self.replica(number);
        #[cfg(target_os = "linux")]
        if let Replica { address, authorization, stall, shares_memory: true, .. } = replica
            && let Some(socket) = &address.socket
        {
            let asked = memory::ask(address, socket, path, authorization.as_ref());
            let answer = tokio::time::timeout(*stall, asked).await;
            return match answer.map_err(|elapsed| address.unanswered(Request::get(path), &elapsed))?? {
                memory::Answer::Memory(stream) => Ok(Source::Memory(stream)),
                memory::Answer::Plain(response) => epoch(replica, path, response).await,
            };
        }
        let response = self.send(number, Request::get(path), None, None).await?;
        epoch(replica, path, response).await
    }

    /// Sends a request to one replica; an answer that is no success is an error.
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

/// What is asked of a server.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub method: &'a Method,
    pub path: &'a str,
}

impl Request<'_> {
    pub fn get(path: &str) -> Request<'_> {
        Request { method: &Method::GET, path }
    }
}

/// The answer of a server, if it is a success.
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
async fn epoch(replica: &Replica, path: &str, response: Response) -> Result<Source, ClientError> {
    let response = success(replica, Request::get(path), response).await?;
    if response.status() == StatusCode::OK && has_type(&response, stream::CONTENT_TYPE) {
        return Ok(Source::Http(response));
    }
    Err(foreign(replica, path, response.status().as_u16(), "what is no Arrow stream"))
}

/// An answer of something that is no PBA server.
pub(crate) fn foreign_answer(
    client: &Client,
    replica: usize,
    path: &str,
    response: &Response,
) -> ClientError {
    foreign(client.replica(replica), path, response.status().as_u16(), "what is no stream of events")
}

fn foreign(replica: &Replica, path: &str, status: u16, body: &str) -> ClientError {
    let body = replica.hide(body).chars().take(SHOWN_CHARACTERS).collect();
    ClientError::Foreign { url: format!("{}{path}", replica.address), status, body }
}

/// Whether an answer says that it is of a media type.
pub(crate) fn has_type(response: &Response, media_type: &str) -> bool {
    let found = response.headers().get(CONTENT_TYPE);
    found.is_some_and(|value| value.as_bytes().starts_with(media_type.as_bytes()))
}

/// A whole body.
async fn whole(
    replica: &Replica,
    request: Request<'_>,
    mut response: Response,
) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    let broken = |error| replica.address.unanswered(request, &error);
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > DOCUMENT_BYTES_MAX {
            let reason = format!("{} answered more than {DOCUMENT_BYTES_MAX} bytes", replica.address);
            return Err(ClientError::Stream(reason));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Escapes a name for use as one segment of a path.
pub(crate) fn segment(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => escaped.push(byte.into()),
            _ => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_servers() {
        assert!(Client::new(["http://127.0.0.1:8080", "replica:80/prefix", "unix:/run/pba.sock"]).is_ok());
        assert!(matches!(Client::new(["ftp://host"]), Err(ClientError::Url { .. })));
        assert!(matches!(Client::new([""; 0]), Err(ClientError::NoServer)));
    }

    #[test]
    fn a_token_is_sent_and_never_shown() {
        let options = ClientOptions { token: Some("s3cret".to_owned()), ..ClientOptions::default() };
        let client = Client::with_options(["http://127.0.0.1:8080"], &options).unwrap();
        assert!(!format!("{client:?} {options:?}").contains("s3cret"));
        for wrong in ["", "two words", "line\nbreak", "umläut"] {
            let options = ClientOptions { token: Some(wrong.to_owned()), ..ClientOptions::default() };
            let error = Client::with_options(["http://127.0.0.1:8080"], &options).unwrap_err();
            assert!(matches!(error, ClientError::Token), "{error}");
        }
    }

    #[test]
    fn authorities_must_be_there_and_be_some() {
        let with = |ca: &str| {
            let options = ClientOptions { ca: Some(ca.into()), ..ClientOptions::default() };
            Client::with_options(["https://host"], &options)
        };
        for wrong in ["/no/such.pem", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
            let error = with(wrong).unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(segment("../a b?"), "..%2Fa%20b%3F");
    }
}
