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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::secret::Hash;
    use crate::access::socket_role::SocketRole;

    /// The text of a file with one token.
    fn file(name: &str, secret: &str) -> String {
        let hash = Hash::of(secret.as_bytes());
        format!("[[tokens]]\nname = \"{name}\"\nrole = \"reader\"\nsha256 = \"{hash}\"\n")
    }

    /// Applies what the first look and further ones have found to tokens that were read at the start, and returns how often
    /// the metrics say that they were replaced, and that they could not be.
    fn apply(at_start: &str, found: &[Result<&String, &str>]) -> (Arc<Authenticator>, [u64; 2]) {
        let others = Tokens::parse(&file("other", "3")).unwrap();
        let tokens = others.with(Tokens::parse(at_start).unwrap()).unwrap();
        let authenticator = Arc::new(Authenticator::new(tokens, true, SocketRole::default()));
        let metrics = Metrics::new().unwrap();
        let file = TokensFile { path: "tokens.toml".into(), others };
        let mut reload = Reload::new(file, Arc::clone(&authenticator), metrics.clone());
        found.iter().for_each(|found| reload.apply(*found));
        let counts =
            ["succeeded", "failed"].map(|outcome| metrics.token_reloads.with_label_values(&[outcome]).get());
        (authenticator, counts)
    }

    #[test]
    fn a_change_since_the_start_is_told_at_the_first_look() {
        let [one, two, renewed] = [file("a", "1"), file("b", "2"), file("a", "2")];
        assert_eq!(apply(&one, &[Ok(&one)]).1, [0, 0], "nothing has changed");
        assert_eq!(apply(&one, &[Ok(&two)]).1, [1, 0]);
        let (authenticator, counts) = apply(&one, &[Ok(&renewed)]);
        assert_eq!(counts, [1, 0]);
        assert!(authenticator.holder(b"1").is_none() && authenticator.holder(b"2").is_some());
        assert!(authenticator.holder(b"3").is_some(), "it stands elsewhere, and stays");
        // What is read again later is told of, whatever it holds.
        assert_eq!(apply(&one, &[Ok(&one), Ok(&one)]).1, [1, 0]);
        assert_eq!(apply(&one, &[Err("gone"), Ok(&one)]).1, [1, 1]);
    }

    #[test]
    fn what_is_wrong_changes_nothing() {
        let (one, cut, doubled) = (file("a", "1"), "[[tok".to_owned(), file("a", "3"));
        let (authenticator, counts) = apply(&one, &[Ok(&cut), Ok(&doubled), Err("gone")]);
        assert_eq!(counts, [0, 3]);
        assert_eq!(authenticator.holder(b"1").unwrap().name(), Some("a"));
        assert_eq!(authenticator.holder(b"3").unwrap().name(), Some("other"));
    }
}
