//! A client of the replicas of one server.

use pba_wire::EpochRequest;
use reqwest::Method;

use crate::address::Request;
use crate::epoch::EpochStream;
use crate::error::ClientError;
use crate::events::Events;
use crate::options::ClientOptions;
use crate::recipes::Recipes;
use crate::replicas::Replicas;

/// Talks to the replicas of one server.
#[derive(Clone, Debug)]
pub struct Client {
    replicas: Replicas,
    recipes: Recipes,
}

impl Client {
    /// A client of the replicas at `urls`, each `http://HOST:PORT`, `https://HOST:PORT` or, on this
    /// machine, `unix:PATH`; each serves the same datasets and schedules. `HOST:PORT` means `http://`.
    ///
    /// # Errors
    /// When there is no URL, or one is not a server's URL.
    pub fn new(urls: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Client, ClientError> {
        Client::with_options(urls, &ClientOptions::default())
    }

    /// The same, with options such as a token or certificate authorities.
    ///
    /// # Errors
    /// When there is no URL, or one is not a server's URL; when the token cannot be sent, or the
    /// certificate authorities cannot be read.
    pub fn with_options(
        urls: impl IntoIterator<Item = impl AsRef<str>>,
        options: &ClientOptions,
    ) -> Result<Client, ClientError> {
        Ok(Client { replicas: Replicas::new(urls, options)?, recipes: Recipes::default() })
    }

    /// The same, without shared memory: batches of a server at `unix:PATH` come through the socket.
    pub fn without_shared_memory(mut self) -> Client {
        self.replicas.forgo_shared_memory();
        self
    }

    /// Streams one epoch of a dataset. A cut stream resumes at the next batch, on the next replica.
    ///
    /// A server that is full, that is cut off, or that is away after one was reached, is retried for some seconds, and
    /// so is what answers otherwise than a PBA server does. While no replica has the dataset and one is still
    /// importing it, the client waits, and logs the progress.
    ///
    /// All epochs of a client and its clones are of one training run: where only epoch, shard and batches differ, the
    /// recipe ([`EpochStream::recipe`]) has to be that of the first. For a dataset that has changed, make another client.
    ///
    /// # Errors
    /// When no replica can be reached, or all refuse the request; when one finds the request wrong, or sends samples by
    /// another recipe than before.
    pub async fn epoch(
        &self,
        dataset: &str,
        epoch: u32,
        request: EpochRequest,
    ) -> Result<EpochStream, ClientError> {
        EpochStream::open(self.replicas.clone(), &self.recipes, dataset.to_owned(), epoch, request).await
    }

    /// Sends a request to the first replica that can be reached, and returns the body. A request that only
    /// reads is retried on a busy server for some seconds, and for as long as the server is importing the
    /// dataset, and goes on to the next replica where one does not have what is asked for; a change that has reached
    /// a server is not sent to another one.
    ///
    /// # Errors
    /// When none can be reached, or all refuse.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, ClientError> {
        let request = Request { method: &method, path };
        let answer = self.replicas.first(false, async |number| {
            let answer = self.replicas.at(number).document(request, body.clone()).await;
            let goes_on = match &answer {
                Err(ClientError::Unreachable { .. }) => true,
                Err(error) => {
                    method == Method::GET && (error.is_passing() || error.is_busy() || error.is_of_replica())
                }
                Ok(_) => false,
            };
            if goes_on { answer.map(Ok) } else { Ok(answer) }
        });
        answer.await?
    }

    /// Gets a page from the first of the replicas, and waits for nothing: a server that is busy, is importing or is away
    /// is an error at once.
    ///
    /// # Errors
    /// When it cannot be reached, or does not answer with success.
    pub async fn ask(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        self.replicas.at(0).document(Request::get(path), None).await
    }

    /// Follows the events of a job, from its beginning to its end; `jobs` is its kind in paths, such as
    /// `searches`.
    pub fn events(&self, jobs: &str, id: &str) -> Events {
        Events::new(self.replicas.clone(), jobs, id)
    }
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
}
