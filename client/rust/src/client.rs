//! Requests to one of several replicas.

use std::time::Duration;

use pba_wire::epoch::EpochRequest;
use pba_wire::{Problem, problem};
use reqwest::{Method, Response, Url};

use crate::epoch::{EpochStream, Source};
use crate::error::ClientError;
use crate::events::Events;
#[cfg(target_os = "linux")]
use crate::memory;

/// A server that does not even accept the connection by then is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a foreign answer that are shown.
const SHOWN_BYTES: usize = 200;

/// Talks to the replicas of one server.
#[derive(Clone, Debug)]
pub struct Client {
    replicas: Vec<Replica>,
}

#[derive(Clone, Debug)]
struct Replica {
    http: reqwest::Client,
    /// As it was given: `http://HOST:PORT` or `unix:PATH`.
    name: String,
    base: Url,
    /// Where batches may come through memory.
    #[cfg(target_os = "linux")]
    socket: Option<String>,
}

impl Replica {
    fn new(text: &str) -> Result<Replica, ClientError> {
        let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        let (builder, base) = match text.strip_prefix("unix:") {
            Some("") => {
                let reason = "no path of a socket".to_owned();
                return Err(ClientError::Url { url: text.to_owned(), reason });
            }
            // The host is never looked up; HTTP wants one all the same.
            Some(path) => (builder.unix_socket(path), server_url("http://localhost")?),
            None => (builder, server_url(text)?),
        };
        let http = builder.build().map_err(|error| ClientError::Stream(error.to_string()))?;
        Ok(Replica {
            http,
            name: text.to_owned(),
            base,
            #[cfg(target_os = "linux")]
            socket: text.strip_prefix("unix:").map(ToOwned::to_owned),
        })
    }
}

impl Client {
    /// A client of the replicas at `urls`, each `http://HOST:PORT` or, on this machine,
    /// `unix:PATH`; each serves the same datasets and schedules.
    ///
    /// # Errors
    /// When there is no URL, or one is not a server's.
    pub fn new(urls: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Client, ClientError> {
        let replicas =
            urls.into_iter().map(|url| Replica::new(url.as_ref())).collect::<Result<Vec<_>, _>>()?;
        if replicas.is_empty() {
            return Err(ClientError::NoServer);
        }
        Ok(Client { replicas })
    }

    /// The same, without the memory that a server at `unix:PATH` shares on Linux: batches come through
    /// the socket.
    pub fn without_shared_memory(mut self) -> Client {
        #[cfg(target_os = "linux")]
        self.replicas.iter_mut().for_each(|replica| replica.socket = None);
        self
    }

    /// Streams one epoch of a dataset. A cut stream is continued at the next batch, on the next
    /// replica.
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
                    let url = response.url().to_string();
                    let body = response.bytes().await;
                    return body.map(Vec::from).map_err(|error| unreachable(&url, &error));
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

    /// The URL of a replica.
    pub(crate) fn url(&self, replica: usize) -> &str {
        &self.replica(replica).name
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
        if let Replica { socket: Some(socket), name, .. } = self.replica(replica) {
            return match memory::ask(socket, path).await? {
                memory::Answer::Memory(stream) => Ok(Source::Memory(stream)),
                memory::Answer::Plain(response) => {
                    success(name, format!("{name}{path}"), response).await.map(Source::Http)
                }
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
        let Replica { http, name, base, .. } = self.replica(replica);
        let url = format!("{}{path}", base.as_str().trim_end_matches('/'));
        let mut request = http.request(method, &url);
        if let Some(body) = body {
            request = request.body(body);
        }
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let response = request.send().await.map_err(|error| unreachable(name, &error))?;
        success(name, url, response).await
    }
}

/// The answer of the server called `name` to a request for `url`, if it is a success.
async fn success(name: &str, url: String, response: Response) -> Result<Response, ClientError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let is_problem = response
        .headers()
        .get(reqwest::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(problem::CONTENT_TYPE.as_bytes()));
    let body = response.bytes().await.map_err(|error| unreachable(name, &error))?;
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) if is_problem => Err(ClientError::Refused(Box::new(problem))),
        _ => Err(ClientError::Foreign {
            url,
            status,
            body: String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)]).into_owned(),
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

fn server_url(text: &str) -> Result<Url, ClientError> {
    let wrong = |reason: String| ClientError::Url { url: text.to_owned(), reason };
    let url: Url = text.parse().map_err(|error| wrong(format!("{error}")))?;
    if url.scheme() != "http" || url.host().is_none() {
        return Err(wrong("only http is spoken here".to_owned()));
    }
    Ok(url)
}

/// An error of the transport, with its causes.
pub(crate) fn unreachable(url: &str, error: &reqwest::Error) -> ClientError {
    ClientError::Unreachable { url: url.to_owned(), reason: causes(error) }
}

/// The innermost cause says most: `connection refused` rather than `error sending request`.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_are_urls() {
        assert!(
            Client::new(["http://127.0.0.1:8080", "http://replica:80/prefix", "unix:/run/pba.sock"]).is_ok()
        );
        for wrong in ["127.0.0.1:8080", "ftp://host", "", "http://", "unix:"] {
            assert!(matches!(Client::new([wrong]), Err(ClientError::Url { .. })), "{wrong:?}");
        }
        assert!(matches!(Client::new([""; 0]), Err(ClientError::NoServer)));
    }

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(segment("../a b?"), "..%2Fa%20b%3F");
    }
}
