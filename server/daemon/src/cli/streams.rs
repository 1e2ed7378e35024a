//! `pba streams`: the streams that a server sends.

use std::time::Duration;

use pba_wire::streams::{Stream, StreamList};
use reqwest::Method;

use crate::cli::output;
use crate::cli::remote::Remote;
use crate::cli::table::Cell;

/// Time from one look to the next with `--watch`.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Puts the cursor into the upper left corner and clears what is below it.
const FROM_THE_TOP: &str = "\x1b[H\x1b[J";

/// Arguments of `pba streams`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  pba streams
  pba streams --watch
  pba streams --json | jq '.streams[] | {client, waits}'")]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
    /// Look again each second until Ctrl-C: in a terminal in place, elsewhere one list after another
    #[arg(long)]
    watch: bool,
}

/// Lists the streams, once or again and again.
pub(crate) async fn run(Args { remote, watch }: Args) -> anyhow::Result<()> {
    let client = remote.client()?;
    let redraws = watch && !remote.json && output::is_terminal();
    loop {
        let answer = client.request(Method::GET, "/v1/streams", None).await?;
        if redraws {
            output::bytes(FROM_THE_TOP.as_bytes());
        }
        match (remote.json, watch) {
            (true, false) => output::json(&remote.document(&answer)?),
            // One document a line.
            (true, true) => output::line(remote.document(&answer)?),
            (false, _) => show(&remote.read(&answer)?),
        }
        if !watch {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn show(list: &StreamList) {
    output::list(&HEAD, &list.streams.iter().map(row).collect::<Vec<_>>());
}

const HEAD: [&str; 11] = [
    "CLIENT",
    "TOKEN",
    "VIA",
    "DATASET",
    "EPOCH",
    "BATCHES",
    "IMAGES/S",
    "WAITS",
    "CLIENT WAITS",
    "SERVER WAITS",
    "REQUEST",
];

fn row(stream: &Stream) -> Vec<Cell> {
    let percent = |ratio: f64| format!("{:.0} %", 100.0 * ratio);
    let epochs = stream.epochs.map(|epochs| format!(" of {epochs}")).unwrap_or_default();
    let cells = [
        stream.client.clone(),
        stream.token.clone().unwrap_or_else(|| "-".to_owned()),
        stream.transport.to_string(),
        format!("{}, {}", stream.dataset, stream.split),
        format!("{}{epochs}", stream.epoch),
        format!("{} of {}", stream.sent, stream.batches),
        format!("{:.0}", stream.images_per_second),
        stream.waits.to_string(),
        percent(stream.client_wait_ratio),
        percent(stream.backpressure_ratio),
        stream.id.clone(),
    ];
    cells.map(Cell::from).into()
}
