//! What the commands that talk to a server have in common.

use std::fmt::Display;

use anyhow::Context;
use pba_client::Client;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::cli::access::Access;
use crate::cli::environment::{self, SERVERS};
use crate::cli::output;

/// The server, and how to print its answers.
#[derive(Debug, clap::Args)]
pub(crate) struct Remote {
    /// URL of the server; the variable may name several replicas, with commas between them [default:
    /// http://127.0.0.1:8080]
    #[arg(long, env = SERVERS, value_name = "URL", global = true, help_heading = "Server")]
    pub(crate) server: Option<String>,
    /// Print the result as JSON, and a failure, too
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    #[command(flatten)]
    access: Access,
}

impl Remote {
    /// A client of the server, or of its replicas.
    ///
    /// # Errors
    /// When a URL is not a server's, the token cannot be sent, or the authority cannot be read.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        match &self.server {
            Some(url) if !is_variable(url) => Ok(self.access.client([url])?),
            _ => self.access.usual_client(),
        }
    }

    /// An answer of the server as JSON.
    ///
    /// # Errors
    /// When it is not JSON.
    pub(crate) fn document(&self, answer: &[u8]) -> anyhow::Result<Value> {
        self.read::<Map<String, Value>>(answer).map(Value::Object)
    }

    /// An answer of the server.
    ///
    /// # Errors
    /// When it is not of this type.
    pub(crate) fn read<T: DeserializeOwned>(&self, answer: &[u8]) -> anyhow::Result<T> {
        let read = serde_json::from_slice(answer).ok();
        read.with_context(|| format!("{} did not answer like a PBA server", self.url()))
    }

    /// Prints a result: as JSON if that was asked for, else as a line of text.
    pub(crate) fn print(&self, json: impl Serialize, text: impl Display) {
        if self.json { output::json(&json) } else { output::line(text) }
    }

    /// Its URL, or that of the first of its replicas.
    pub(crate) fn url(&self) -> &str {
        match self.server.as_deref() {
            Some(urls) if is_variable(urls) => urls.split(',').next().unwrap_or(urls).trim(),
            Some(url) => url,
            None => pba_wire::DEFAULT_URL,
        }
    }

    /// A command to the same server, to be pasted into a shell.
    pub(crate) fn command(&self, command: impl std::fmt::Display) -> String {
        let mut whole = format!("pba {command}");
        // Replicas are in the environment only, where the command finds them as well.
        let are_replicas = self.server.as_deref().is_some_and(|urls| is_variable(urls) && urls.contains(','));
        if self.url() != pba_wire::DEFAULT_URL && !are_replicas {
            whole += &format!(" --server {}", quoted(self.url()));
        }
        // The token is not shown.
        if let Some(ca) = self.access.ca() {
            whole += &format!(" --ca {}", quoted(&ca.to_string_lossy()));
        }
        whole
    }
}

/// Whether an argument is the value of the variable, which stands for it where it is not given. Only there commas divide:
/// the path of a socket may have one.
fn is_variable(argument: &str) -> bool {
    environment::value(SERVERS).is_some_and(|value| value == argument)
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/:._-".contains(c);
    match word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(server: Option<&str>, expected: &str) {
        let remote = Remote { server: server.map(str::to_owned), json: false, access: Access::default() };
        assert_eq!(remote.command("search watch x"), expected);
    }

    #[test]
    fn commands_go_to_the_same_server() {
        check(None, "pba search watch x");
        check(Some(pba_wire::DEFAULT_URL), "pba search watch x");
        check(Some("http://10.0.0.1:80"), "pba search watch x --server http://10.0.0.1:80");
        check(Some("unix:/run/my pba's"), r"pba search watch x --server 'unix:/run/my pba'\''s'");
    }
}
