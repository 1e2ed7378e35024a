//! `pba health`: whether a server is ready, for images without a shell.

use std::time::Duration;

use anyhow::Context;
use pba_client::Client;
use serde::Serialize;
use tokio::time::timeout;

use crate::cli::access::Access;
use crate::cli::output;

/// Time for everything: less than what probes wait by themselves.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `pba health`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
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
struct Healthy<'a> {
    /// What was asked.
    checked: &'static str,
    /// What is wrong with it all the same.
    details: Vec<&'a str>,
}

/// Prints what a healthy server says of itself.
///
/// # Errors
/// When it is not ready, or with `--live` not alive, or says neither in time.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (checked, path) = if args.live { ("alive", "/livez") } else { ("ready", "/readyz") };
    let client = args.client()?;
    let answer = timeout(PATIENCE, client.ask(path)).await;
    let answer =
        answer.with_context(|| format!("the server does not answer within {} s", PATIENCE.as_secs()))?;
    let text = String::from_utf8(answer?).context("the server did not answer like a PBA server")?;
    let (first, details) = text.split_once('\n').unwrap_or((&text, ""));
    anyhow::ensure!(first == "ok", "the server did not answer like a PBA server");
    match args.json {
        true => output::json(&Healthy { checked, details: details.lines().collect() }),
        false => output::bytes(text.as_bytes()),
    }
    Ok(())
}
