//! Tokens that are added and revoked while the server runs: a file that is read again when it changes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::access::authenticator::Authenticator;
use crate::access::tokens::{self, Tokens};
use crate::metrics::{Metrics, Reload};

/// How often the file is looked at. Its content counts: where Kubernetes mounts a Secret, a link is swapped, and times say
/// little.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The file of tokens, and those that stand elsewhere and stay.
pub(crate) struct TokensFile {
    pub(crate) path: PathBuf,
    pub(crate) others: Tokens,
}

impl TokensFile {
    /// Looks at the file for as long as the server runs. A change takes effect once two looks have found it the same, so
    /// that a file which is being written is not taken for whole. What cannot be read or is wrong is logged once, and
    /// changes nothing.
    pub(crate) async fn watch(self, authenticator: Arc<Authenticator>, metrics: Metrics) {
        let (mut seen, mut applied) = (None, None);
        loop {
            let path = self.path.clone();
            let look = spawn_blocking(move || tokens::read_text(&path).map_err(|error| format!("{error:#}")));
            // It fails only when the runtime ends.
            let Ok(found) = look.await else { return };
            if seen.as_ref() == Some(&found) && applied.as_ref() != Some(&found) {
                self.apply(&found, applied.is_none(), &authenticator, &metrics);
                applied = Some(found);
            } else {
                seen = Some(found);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn apply(
        &self,
        found: &Result<String, String>,
        is_first: bool,
        authenticator: &Authenticator,
        metrics: &Metrics,
    ) {
        let file = self.path.display();
        let read = found.as_ref().map_err(String::clone).and_then(|text| {
            let tokens = Tokens::parse(text).and_then(|tokens| self.others.with(tokens));
            tokens.map_err(|error| format!("{file} is not a valid file of tokens: {error:#}"))
        });
        let tokens = match read {
            Ok(tokens) => tokens,
            Err(error) => {
                tracing::error!(error, "the tokens cannot be read again; those of before stay");
                metrics.count_token_reload(Reload::Failed);
                return;
            }
        };
        let before = authenticator.tokens();
        let [old, new] = [&*before, &tokens].map(|tokens| tokens.names().collect::<BTreeSet<_>>());
        // What was read at the start is read once more here, and nothing is told of it.
        if !is_first || old != new {
            let names = |names: Vec<&str>| names.join(", ");
            tracing::info!(
                %file,
                tokens = new.len(),
                added = names(new.difference(&old).copied().collect()),
                revoked = names(old.difference(&new).copied().collect()),
                "the tokens were read again"
            );
            metrics.count_token_reload(Reload::Succeeded);
        }
        authenticator.replace(tokens);
    }
}
