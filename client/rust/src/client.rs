//! Requests to one of several replicas.

use std::time::Duration;

use pba_wire::epoch::EpochRequest;
use pba_wire::{Problem, problem};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Method, Response};

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
        Ok(Replica { http, address, authorization, shares_memory: true })
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

    /// Sends a request to the first replica that can be reached, and answers the body.
    ///
    /// # Errors
    /// When none can be reached, or it refuses.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, ClientError> {
        let mut last = ClientError::NoServer;
        for replica in 0..self.replicas.len() {
            match self.send(replica, method.clone(), path, body.clone()).await {
                Ok(response) => {
                    let body = response.bytes().await;
                    return body
                        .map(Vec::from)
                        .map_err(|error| self.replica(replica).address.unreachable(&error));
                }
                Err(error @ ClientError::Unreachable { .. }) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Follows what happens in a search, from its beginning to its end.
    pub fn events(&self, search: &str) -> Events {
        Events::new(self.clone(), search)
    }

    /// How many replicas there are.
    pub(crate) fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// Where a replica is.
    pub(crate) fn address(&self, replica: usize) -> &Address {
        &self.replica(replica).address
    }

    fn replica(&self, replica: usize) -> &Replica {
        &self.replicas[replica % self.replicas.len()]
    }

    /// Sends a request to one replica; an answer that is no success is an error.
    pub(crate) async fn send(
        &self,
        replica: usize,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response, ClientError> {
        self.send_with(replica, method, path, body, None).await
    }

    /// Asks a replica for an epoch: through memory that it shares, where it is on this machine.
    pub(crate) async fn stream(&self, replica: usize, path: &str) -> Result<Source, ClientError> {
        #[cfg(target_os = "linux")]
        if let replica @ Replica { address, authorization, shares_memory: true, .. } = self.replica(replica)
            && let Some(socket) = &address.socket
        {
            return match memory::ask(address, socket, path, authorization.as_ref()).await? {
                memory::Answer::Memory(stream) => Ok(Source::Memory(stream)),
                memory::Answer::Plain(response) => success(replica, path, response).await.map(Source::Http),
            };
        }
        self.send(replica, Method::GET, path, None).await.map(Source::Http)
    }

    /// As [`Client::send`], with one more header.
    pub(crate) async fn send_with(
        &self,
        replica: usize,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        header: Option<(&str, &str)>,
    ) -> Result<Response, ClientError> {
        let replica = self.replica(replica);
        let Replica { http, address, .. } = replica;
        let mut request = http.request(method, address.join(path));
        if let Some(body) = body {
            request = request.body(body);
        }
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let response = request.send().await.map_err(|error| address.unreachable(&error))?;
        success(replica, path, response).await
    }
}

/// The answer of a server to a request for `path`, if it is a success.
async fn success(replica: &Replica, path: &str, response: Response) -> Result<Response, ClientError> {
    let Replica { address, authorization, .. } = replica;
    let hide = |text: &str| ClientOptions::hide(authorization.as_ref(), text);
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let is_problem = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(problem::CONTENT_TYPE.as_bytes()));
    let body = response.bytes().await.map_err(|error| address.unreachable(&error))?;
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) if is_problem => Err(ClientError::Refused(Box::new(Problem {
            detail: hide(&problem.detail),
            value: problem.value.as_deref().map(hide),
            ..problem
        }))),
        _ => Err(ClientError::Foreign {
            url: format!("{address}{path}"),
            status,
            body: hide(&String::from_utf8_lossy(&body)).chars().take(SHOWN_CHARACTERS).collect(),
        }),
    }
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
        let options = ClientOptions { token: Some("s3cret".to_owned()), ca: None };
        let client = Client::with_options(["http://127.0.0.1:8080"], &options).unwrap();
        assert!(!format!("{client:?} {options:?}").contains("s3cret"));
        for wrong in ["", "two words", "line\nbreak", "umläut"] {
            let options = ClientOptions { token: Some(wrong.to_owned()), ca: None };
            let error = Client::with_options(["http://127.0.0.1:8080"], &options).unwrap_err();
            assert!(matches!(error, ClientError::Token), "{error}");
        }
    }

    #[test]
    fn authorities_must_be_there_and_be_some() {
        let with = |ca: &str| {
            Client::with_options(["https://host"], &ClientOptions { token: None, ca: Some(ca.into()) })
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
