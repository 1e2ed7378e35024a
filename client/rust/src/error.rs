//! What can go wrong between client and server.

use std::path::PathBuf;

use pba_wire::Problem;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No server was named.
    #[error("no server is named; expected at least one URL, as http://127.0.0.1:8080")]
    NoServer,
    /// Something that is not the URL of a server.
    #[error(
        "{url:?} is not a server's URL: {reason}; expected http://HOST:PORT, https://HOST:PORT or unix:PATH"
    )]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A token that cannot be sent. It is not shown.
    #[error("the token cannot be sent; expected visible ASCII characters without spaces")]
    Token,
    /// Certificate authorities that cannot be used.
    #[error("cannot use {}: {reason}", path.display())]
    Authorities {
        /// The file, or what stands for it.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The server refused the request and said why.
    #[error("{0}{hint}", hint = hint(.0.status))]
    Refused(Box<Problem>),
    /// An answer that no PBA server gives.
    #[error("{url} answered {status}, which is not an answer of a PBA server: {body}{hint}", hint = hint(*.status))]
    Foreign {
        /// Who answered.
        url: String,
        /// With which status.
        status: u16,
        /// The beginning of its body.
        body: String,
    },
    /// No server could be reached.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// The first one that was tried.
        url: String,
        /// Why not, and what became of the others.
        reason: String,
    },
    /// A server that was reached and gave no whole answer. A change that was asked of it may have been
    /// made.
    #[error("{url} did not answer {request}{doubt}: {reason}", doubt = doubt(request))]
    Unanswered {
        /// Who was asked.
        url: String,
        /// Method and path of the request.
        request: String,
        /// What went wrong.
        reason: String,
    },
    /// The stream was cut, and could not be continued.
    #[error(
        "the stream was cut after {received} of {expected} batches, and {attempts} attempts to continue it failed: {reason}"
    )]
    Cut {
        /// Batches received whole.
        received: u64,
        /// Batches of the epoch.
        expected: u64,
        /// Attempts since the last batch.
        attempts: u32,
        /// Why the last attempt failed.
        reason: String,
    },
    /// A replica holds another dataset or schedule under the same name, or sends other batches than
    /// those that were asked for.
    #[error("{url} sends other data: its {key} is {found}, and should be {expected}")]
    Changed {
        /// Who answered.
        url: String,
        /// Which metadata differs.
        key: String,
        /// What it is now.
        found: String,
        /// What it was.
        expected: String,
    },
    /// Bytes that are not the promised Arrow stream.
    #[error("the stream is not what the server promised: {0}")]
    Stream(String),
}

impl ClientError {
    /// The error of one replica after that of another: what became of each.
    pub(crate) fn after(self, mut earlier: ClientError) -> ClientError {
        use ClientError::{Stream, Unanswered, Unreachable};
        match &mut earlier {
            Unreachable { reason, .. } | Unanswered { reason, .. } | Stream(reason) => {
                *reason += &format!("; {self}");
                earlier
            }
            _ => self,
        }
    }

    /// Whether another replica may do better: this one is not there, fell silent, or sent something other
    /// than it promised.
    pub(crate) fn is_passing(&self) -> bool {
        use ClientError::{Stream, Unanswered, Unreachable};
        matches!(self, Unreachable { .. } | Unanswered { .. } | Stream(_))
    }

    /// A server that is full, opens its datasets or shuts down, or a proxy in front of one that is away
    /// for the moment: another replica, or a later attempt, may do.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            ClientError::Refused(problem) => matches!(problem.status, 429 | 503),
            ClientError::Foreign { status, .. } => matches!(status, 429 | 502..=504),
            _ => false,
        }
    }
}

/// What is not known of a change that was asked for; what only reads has changed nothing.
fn doubt(request: &str) -> &'static str {
    if request.starts_with("GET ") { "" } else { ", so it may or may not have been done" }
}

fn hint(status: u16) -> &'static str {
    if status == 401 { "; name a token with `token` (--token, PBA_TOKEN)" } else { "" }
}
