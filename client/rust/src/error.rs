//! Errors of the client.

use std::path::PathBuf;
use std::time::Duration;

use pba_wire::{Problem, problem, stream};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ClientError {
    /// No server was named.
    #[error("no server is given; expected at least one URL, such as http://127.0.0.1:8080")]
    NoServer,
    /// A text that is not the URL of a server.
    #[error(
        "{url:?} is not a server's URL: {reason}; expected http://HOST:PORT, https://HOST:PORT or unix:PATH"
    )]
    Url { url: String, reason: String },
    /// A name that cannot be asked for, and that nothing has: URLs have another meaning for it.
    #[error("nothing is called {name:?}")]
    Name { name: String },
    /// A token that cannot be sent. It is not shown.
    #[error("the token cannot be sent; expected visible ASCII characters without spaces")]
    Token,
    /// Certificate authorities that cannot be used.
    #[error("cannot use {}: {reason}", path.display())]
    Authorities {
        /// The file, or a description of the source.
        path: PathBuf,
        reason: String,
    },
    /// The server refused the request, with a reason.
    #[error("{0}{hint}", hint = hint(.0.status))]
    Refused(Box<Problem>),
    /// The server is still importing the dataset. Streams, and requests that only read, wait for it instead.
    #[error("{problem}")]
    Importing {
        problem: Box<Problem>,
        /// When to ask again.
        retry_after: Duration,
    },
    /// An answer that is not what a PBA server sends: of another program at its address, or damaged on its way. A
    /// stream is asked for again.
    #[error("{url} answered {status}, which is not an answer of a PBA server: {body}{hint}", hint = hint(*.status))]
    Foreign {
        url: String,
        status: u16,
        /// The beginning of its body.
        body: String,
    },
    /// No server could be reached.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// The first server that was tried.
        url: String,
        /// Why it could not be reached, and the errors of the others.
        reason: String,
    },
    /// A server was reached but did not answer completely. A requested change may have been made.
    #[error("{url} did not answer {request}{doubt}: {reason}", doubt = doubt(request))]
    Unanswered {
        url: String,
        /// Method and path of the request.
        request: String,
        reason: String,
    },
    /// The stream was cut, and could not be resumed.
    #[error(
        "the stream was cut after {received} of {expected} batches, and {attempts} attempts to continue it failed: {reason}"
    )]
    Cut {
        received: u64,
        expected: u64,
        /// Attempts since the last batch.
        attempts: u32,
        reason: String,
    },
    /// A replica has a different dataset or schedule under the same name, or sends other batches than
    /// requested.
    #[error("{url} sends other data: its {key} is {found}, and should be {expected}{hint}", hint = of_key(key))]
    Changed {
        url: String,
        /// The metadata key that differs.
        key: String,
        found: String,
        expected: String,
    },
    /// A client remembers the recipe of each different request, to compare it with those of later epochs.
    #[error(
        "this client has asked for {max} different streams, and remembers no more of them; make another client"
    )]
    TooManyRequests { max: usize },
    /// The received bytes are not the promised Arrow stream.
    #[error("the stream is not what the server promised: {0}")]
    Stream(String),
}

impl ClientError {
    /// The errors of several replicas, with their URLs, as one that tells them all: of the kind of the first that
    /// is an answer, if there is one.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn of_all(mut failures: Vec<(String, ClientError)>) -> ClientError {
        use ClientError::{Foreign, Importing, Refused, Stream, Unanswered, Unreachable};
        let answers = |(_, error): &(String, ClientError)| matches!(error, Refused(_) | Importing { .. });
        let busy = failures.iter().position(|failure| answers(failure) && failure.1.is_busy());
        let first = busy.or_else(|| failures.iter().position(answers));
        let all = ClientError::told(&failures);
        let others: String = failures.get(1..).map(ClientError::told).unwrap_or_default();
        let is_alone = failures.len() == 1;
        let (url, mut error) = failures.swap_remove(first.unwrap_or(0));
        match &mut error {
            _ if is_alone => {}
            Refused(problem) | Importing { problem, .. } => problem.detail = all,
            Stream(reason) => *reason = format!("{url}: {reason}; {others}"),
            Unreachable { reason, .. } | Unanswered { reason, .. } | Foreign { body: reason, .. } => {
                *reason += &format!("; {others}");
            }
            _ => {}
        }
        error
    }

    /// What each of several replicas answered, with its URL.
    pub(crate) fn told(failures: &[(String, ClientError)]) -> String {
        let told = |(url, error): &(String, ClientError)| match error {
            ClientError::Refused(problem) | ClientError::Importing { problem, .. } => {
                format!("{url}: {}", problem.detail)
            }
            ClientError::Stream(_) => format!("{url}: {error}"),
            error => error.to_string(),
        };
        failures.iter().map(told).collect::<Vec<_>>().join("; ")
    }

    /// Whether another replica, or a later attempt, may succeed: this one is down, stopped sending, or sent something
    /// other than a PBA server does.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            ClientError::Unreachable { .. } | ClientError::Unanswered { .. } | ClientError::Stream(_) => true,
            ClientError::Foreign { .. } => !self.is_busy() && !self.is_of_replica(),
            _ => false,
        }
    }

    /// Whether another replica may succeed, while this one will not soon: it does not have what is asked for, or cannot
    /// read it, or is at fault itself; or a proxy before it does not let the client in. That the
    /// request is wrong, all would say.
    pub(crate) fn is_of_replica(&self) -> bool {
        match self {
            ClientError::Refused(problem) => {
                !self.is_busy() && matches!(problem.status, 401 | 403 | 404 | 407 | 422 | 500..)
            }
            ClientError::Foreign { status, .. } => matches!(status, 401 | 403 | 407),
            _ => false,
        }
    }

    /// A server that is full, importing datasets, mending one or shutting down, or a proxy whose server is temporarily
    /// down: another replica, or a later attempt, may succeed.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            ClientError::Refused(problem) => {
                matches!(problem.status, 429 | 503) || problem.kind == problem::DAMAGED
            }
            ClientError::Importing { .. } => true,
            ClientError::Foreign { status, .. } => matches!(status, 429 | 502..=504),
            _ => false,
        }
    }
}

/// A note that a requested change may have been made; nothing for a request that only reads.
fn doubt(request: &str) -> &'static str {
    if request.starts_with("GET ") { "" } else { ", so it may or may not have been done" }
}

fn of_key(key: &str) -> &'static str {
    match key {
        stream::RECIPE => {
            ": something else that pixels or order depend on differs, such as the dataset's base augmentation in \
             the server's configuration, the training images that the mean is of, or the server's version"
        }
        _ => "",
    }
}

fn hint(status: u16) -> &'static str {
    if status == 401 { "; set a token with `token` (--token, PBA_TOKEN)" } else { "" }
}
