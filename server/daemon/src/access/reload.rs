//! Tokens that are added, changed and revoked while the server runs: a file that is read again when it changes.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use crate::access::authenticator::Authenticator;
use crate::access::changes::Changes;
use crate::access::tokens::{self, Tokens};
use crate::metrics::{self, Metrics};
use crate::watched::Watched;

/// The file of tokens, and those that stand elsewhere and stay.
pub(crate) struct TokensFile {
    pub(crate) path: PathBuf,
    pub(crate) others: Tokens,
}

/// The tokens in use, and the file that may hold others. What cannot be read or is wrong is logged once, and changes
/// nothing.
pub(crate) struct Reload {
    file: TokensFile,
    authenticator: Arc<Authenticator>,
    metrics: Metrics,
    is_first: bool,
}

impl Reload {
    pub(crate) fn new(file: TokensFile, authenticator: Arc<Authenticator>, metrics: Metrics) -> Reload {
        Reload { file, authenticator, metrics, is_first: true }
    }

    /// The tokens that the server has if the file holds this text.
    fn tokens(&self, text: &str) -> anyhow::Result<Tokens> {
        let tokens = Tokens::parse(text).and_then(|tokens| self.file.others.with(tokens));
        tokens.with_context(|| format!("{} is not a valid file of tokens", self.file.path.display()))
    }
}

impl Watched for Reload {
    type Contents = String;

    fn read(&self) -> anyhow::Result<String> {
        tokens::read_text(&self.file.path)
    }

    fn apply(&mut self, found: Result<&String, &str>) {
        let tokens = found
            .map_err(str::to_owned)
            .and_then(|text| self.tokens(text).map_err(|error| format!("{error:#}")));
        match tokens {
            Ok(tokens) => {
                let changes = Changes::between(&self.authenticator.tokens(), &tokens);
                let count = tokens.len();
                self.authenticator.replace(tokens);
                // The file was read at the start, before it was watched: of what has not changed since, nothing is told.
                if !self.is_first || !changes.is_empty() {
                    changes.tell(&self.file.path, count);
                    self.metrics.count_token_reload(metrics::Reload::Succeeded);
                }
            }
            Err(error) => {
                tracing::error!(error, "the tokens cannot be read again; those of before stay");
                self.metrics.count_token_reload(metrics::Reload::Failed);
            }
        }
        self.is_first = false;
    }
}
