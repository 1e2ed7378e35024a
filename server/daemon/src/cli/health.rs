//! `pba health`: whether a server is ready, for images without a shell.

use std::time::Duration;

use anyhow::Context;
use pba_client::Client;
use pba_wire::Readiness;
use serde::Serialize;
use tokio::time::timeout;

use crate::cli::access::Access;
use crate::cli::output;

/// Time for everything: less than what probes wait by themselves.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `pba health`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Where the server has tokens, what is wrong with it is told to clients with one (--token, PBA_TOKEN); one that the server
refuses is an error.

Examples:
  pba health
  pba health https://pba.example.org --ca ca.pem
  pba health unix:/run/pba/pba.sock --live")]
pub(crate) struct Args {
    /// URL of the server, as --server
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// URL of the server; not together with a URL without a flag [env: PBA_SERVER, of several the first] [default:
    /// http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", conflicts_with = "url", help_heading = "Server")]
    server: Option<String>,
    /// Ask whether it is alive: it is, too, while it imports datasets or drains
    #[arg(long)]
    live: bool,
    /// Print the result as JSON
    #[arg(long, help_heading = "Global options")]
    json: bool,
    #[command(flatten)]
    access: Access,
}

impl Args {
    /// Clap does not read the variable, because it would count it as a conflicting value.
    fn client(&self) -> anyhow::Result<Client> {
        match self.url.as_ref().or(self.server.as_ref()) {
            Some(url) => Ok(self.access.client([url])?),
            None => self.access.usual_client(),
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Healthy {
    /// What was asked.
    checked: &'static str,
    /// Why the server is a replica and not the writer; null if it is none, or that is not told.
    replica: Option<String>,
    /// Each problem that does not stop it from streaming; null if they are not told.
    details: Option<Vec<String>>,
    /// To whom they are told, if they are not.
    withheld: Option<String>,
}

/// Prints what a healthy server says of itself.
///
/// # Errors
/// When it is not ready, or with `--live` not alive, or says neither in time; when it refuses the token that was sent.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.client()?;
    let (text, healthy) = timeout(PATIENCE, ask(&client, &args))
        .await
        .with_context(|| format!("the server does not answer within {} s", PATIENCE.as_secs()))??;
    match args.json {
        true => output::json(&healthy),
        false => output::bytes(text.as_bytes()),
    }
    Ok(())
}

/// What the server says, as text and for `--json`.
async fn ask(client: &Client, args: &Args) -> anyhow::Result<(String, Healthy)> {
    let path = if args.live { "/livez" } else { "/readyz" };
    let text = String::from_utf8(client.ask(path).await?).ok();
    let answer = text.and_then(|text| Some((Readiness::parse(&text)?, text)));
    let (readiness, text) = answer.context("the server did not answer like a PBA server")?;
    let healthy = match readiness {
        _ if args.live => Healthy { checked: "alive", replica: None, details: None, withheld: None },
        Readiness::Shown { replica, details } => {
            Healthy { checked: "ready", replica, details: Some(details), withheld: None }
        }
        Readiness::Withheld { reason } => {
            if args.access.has_token() {
                // Probes are answered whatever token they send. This is refused if it is none of the server's.
                client.ask("/metrics").await?;
            }
            Healthy { checked: "ready", replica: None, details: None, withheld: Some(reason) }
        }
    };
    Ok((text, healthy))
}
