//! What the commands that talk to a server have in common.

use pba_client::{Client, ClientError};

/// Which server, and how to print what it says.
#[derive(Debug, clap::Args)]
pub struct Remote {
    /// The server
    #[arg(long, env = "PBA_SERVER", value_name = "URL", default_value = pba_wire::DEFAULT_URL, global = true)]
    pub server: String,
    /// Print the result as JSON
    #[arg(long, global = true)]
    pub json: bool,
}

impl Remote {
    /// A client of the server.
    pub fn client(&self) -> Result<Client, ClientError> {
        Client::new([&self.server])
    }
}
