//! `pba streams`: the streams that a server sends.

use std::time::Duration;

use pba_wire::streams::{Stream, StreamList};
use reqwest::Method;

use crate::cli::output;
use crate::cli::remote::Remote;
use crate::cli::table::{Cell, Column};

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
    let is_for_people = output::is_terminal();
    let rows: Vec<Vec<Cell>> = list.streams.iter().map(|stream| row(stream, is_for_people)).collect();
    output::list(&COLUMNS, &rows);
}

/// Who waits is what the list is for; what else it says is left out before that.
const COLUMNS: [Column; 11] = [
    Column::kept("CLIENT"),
    Column::ranked("TOKEN", 2),
    Column::ranked("VIA", 3),
    Column::ranked("DATASET", 7),
    Column::ranked("EPOCH", 4),
    Column::ranked("BATCHES", 5),
    Column::ranked("IMAGES/S", 6),
    Column::kept("WAITS"),
    Column::ranked("CLIENT WAITS", 8),
    Column::ranked("SERVER WAITS", 8),
    Column::ranked("REQUEST", 1),
];

/// A stream in columns, with percentages for people and ratios for programs.
fn row(stream: &Stream, is_for_people: bool) -> Vec<Cell> {
    let ratio = |ratio: f64| match is_for_people {
        true => format!("{:.0} %", 100.0 * ratio),
        false => format!("{ratio:.3}"),
    };
    let epochs = stream.epochs.map(|epochs| format!(" of {epochs}")).unwrap_or_default();
    let cells = [
        stream.client.clone(),
        stream.token.clone().unwrap_or_else(|| "-".to_owned()),
        stream.transport.to_string(),
        format!("{}, {}", stream.dataset, stream.split),
        format!("{}{epochs}", stream.epoch),
        format!("{} of {}", stream.batches_sent, stream.batches),
        format!("{:.0}", stream.images_per_second),
        stream.waits.to_string(),
        ratio(stream.client_wait_ratio),
        ratio(stream.backpressure_ratio),
        stream.request_id.clone(),
    ];
    cells.map(Cell::from).into()
}
