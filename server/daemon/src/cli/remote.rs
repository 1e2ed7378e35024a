//! What the commands that talk to a server have in common.

use pba_client::{Client, ClientError};

/// Which server, and how to print what it says.
#[derive(Debug, clap::Args)]
pub struct Remote {
    /// The server [default: http://127.0.0.1:8080]
    #[arg(long, env = "PBA_SERVER", value_name = "URL", global = true)]
    pub server: Option<String>,
    /// Print the result as JSON
    #[arg(long, global = true)]
    pub json: bool,
}

impl Remote {
    /// A client of the server.
    pub fn client(&self) -> Result<Client, ClientError> {
        Client::new([self.url()])
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        self.server.as_deref().unwrap_or(pba_wire::DEFAULT_URL)
    }
}
