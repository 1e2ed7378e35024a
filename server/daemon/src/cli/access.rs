//! The credentials that commands connect with, and the authority they trust.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use pba_client::{Client, ClientError, ClientOptions};

use crate::cli::environment::{self, SERVERS};

/// Flags of every command that talks to a server.
#[derive(Clone, Default, clap::Args)]
pub(crate) struct Access {
    /// Token to send to the server; prefer PBA_TOKEN, which other users of this machine cannot see
    #[arg(
        long,
        env = "PBA_TOKEN",
        value_name = "TOKEN",
        global = true,
        hide_env_values = true,
        help_heading = "Server"
    )]
    token: Option<String>,
    /// PEM file of the certificate authority to trust for https:// servers [default: the system's]
    #[arg(long, env = "PBA_CA", value_name = "FILE", global = true, help_heading = "Server")]
    ca: Option<PathBuf>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.options().fmt(f)
    }
}

impl Access {
    fn options(&self) -> ClientOptions {
        ClientOptions { token: self.token.clone(), ca: self.ca.clone(), ..ClientOptions::default() }
    }

    /// Whether a flag or a variable sets a token.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The authority set by a flag or a variable.
    pub(crate) fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// A client of replicas.
    pub(crate) fn client<S: AsRef<str>>(
        &self,
        urls: impl IntoIterator<Item = S>,
    ) -> Result<Client, ClientError> {
        Client::with_options(urls, &self.options())
    }

    /// A client of the servers that are meant where no argument names one: those of the environment, or the default.
    pub(crate) fn usual_client(&self) -> anyhow::Result<Client> {
        let Some(urls) = environment::value(SERVERS) else {
            return Ok(self.client([pba_wire::DEFAULT_URL])?);
        };
        let urls = urls.to_string_lossy();
        // A comma at the end names none.
        let listed = urls.trim_end().strip_suffix(',').filter(|listed| !listed.is_empty()).unwrap_or(&urls);
        self.client(listed.split(',').map(str::trim)).map_err(|error| match error {
            ClientError::Url { .. } => {
                anyhow!("{SERVERS} in the environment: {error}, or several with commas between them")
            }
            _ => error.into(),
        })
    }
}
