//! `pba stream`: reads one epoch.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use arrow_ipc::writer::StreamWriter;
use pba_client::{Client, EpochRequest};
use serde::Serialize;

use crate::cli::access::Access;
use crate::cli::file::OutFile;
use crate::cli::query::Flags;
use crate::cli::{bar, exit, failure, output};
use crate::shutdown::stop_signal;

/// Arguments of `pba stream`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  pba stream --dataset shapes --schedule cifar10-pba --epoch 199
  pba stream --dataset cifar10 --shard 0/4 --batch-size 256 --out epoch.arrows
  pba stream http://replica-1:8080 http://replica-2:8080 --dataset cifar10 --json")]
pub(crate) struct Args {
    /// URL of the server, as --server; further URLs name replicas to continue on
    #[arg(value_name = "URL")]
    urls: Vec<String>,
    /// URL of the server; may be repeated to name replicas; not together with URLs without a flag
    /// [env: PBA_SERVER, with commas between several] [default: http://127.0.0.1:8080]
    #[arg(long = "server", value_name = "URL", conflicts_with = "urls")]
    servers: Vec<String>,
    /// Name of the dataset
    #[arg(long, default_value = pba_datasets::BUILT_IN)]
    dataset: String,
    /// Epoch, from 0 to 999999, and below --epochs or the number that the schedule has
    #[arg(long, default_value_t = 0)]
    epoch: u32,
    /// Write the batches to this file, as an Arrow IPC stream
    #[arg(long, value_name = "FILE.arrows")]
    out: Option<PathBuf>,
    /// Print the result as JSON, and a failure, too
    #[arg(long, help_heading = "Global options")]
    json: bool,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    parameters: Flags<EpochRequest>,
}

impl Args {
    /// A client of the server and its replicas. Clap does not read the variable, because it would count it as a
    /// conflicting value.
    fn client(&self) -> anyhow::Result<Client> {
        let given: Vec<&String> = self.urls.iter().chain(&self.servers).collect();
        match given.is_empty() {
            true => self.access.usual_client(),
            false => Ok(self.access.client(given)?),
        }
    }
}

/// Reads an epoch and prints the result.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let request = args.parameters.query()?;
    let client = args.client()?;
    let read = read(&client, &args.dataset, args.epoch, request, args.out.as_deref());
    let result = tokio::select! {
        result = read => Some(result?),
        _ = stop_signal()? => None,
    };
    // What was written so far is gone by now.
    let Some(result) = result else {
        if args.json {
            failure::report_interrupt("interrupted");
        }
        std::process::exit(exit::INTERRUPTED)
    };
    if args.json {
        output::json(&result)
    } else {
        output::line(sentence(&result))
    }
    Ok(())
}

/// What was read, and whether client or server waited.
#[derive(Debug, Serialize)]
pub(crate) struct Read {
    dataset: String,
    epoch: u32,
    batches: u64,
    images: u64,
    bytes: u64,
    seconds: f64,
    images_per_second: f64,
    client_waited_seconds: f64,
    server_waited_seconds: f64,
    resumes: u32,
    out: Option<String>,
}

/// Reads an epoch with a progress bar.
pub(crate) async fn read(
    client: &Client,
    dataset: &str,
    epoch: u32,
    request: EpochRequest,
    out: Option<&Path>,
) -> anyhow::Result<Read> {
    let start = Instant::now();
    let mut stream = client.epoch(dataset, epoch, request).await?;
    let bar = bar::rows(&format!("{dataset}, epoch {epoch}"));
    bar.set_length(stream.rows());
    let context = || format!("cannot write {}", out.unwrap_or(Path::new("")).display());
    let mut file = match out {
        Some(path) => {
            let file = OutFile::create(path)?;
            let writer = StreamWriter::try_new_buffered(file.writer()?, stream.schema());
            Some((file, writer.with_context(context)?))
        }
        None => None,
    };
    let mut rows = 0;
    while let Some(batch) = stream.next().await? {
        rows += batch.num_rows() as u64;
        if let Some((_, writer)) = &mut file {
            writer.write(&batch).with_context(context)?;
        }
        bar.set_position(rows);
    }
    if let Some((file, mut writer)) = file {
        writer.finish().with_context(context)?;
        writer.flush().with_context(context)?;
        file.finish()?;
    }
    bar.finish_and_clear();
    let (seconds, stats) = (start.elapsed().as_secs_f64(), stream.stats());
    Ok(Read {
        dataset: dataset.to_owned(),
        epoch,
        batches: stream.batches(),
        images: rows,
        bytes: stats.bytes,
        seconds,
        images_per_second: rows as f64 / seconds,
        client_waited_seconds: stats.waited_for_server.as_secs_f64(),
        server_waited_seconds: stats.waited_for_client.as_secs_f64(),
        resumes: stats.resumes,
        out: out.map(|path| path.display().to_string()),
    })
}

/// The result, for people.
pub(crate) fn sentence(read: &Read) -> String {
    let resumed = match read.resumes {
        0 => String::new(),
        1 => ", continued once".to_owned(),
        resumes => format!(", continued {resumes} times"),
    };
    let counted = |count: u64, one: &str, many: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    };
    // As with drop_last and batches longer than the shard, or a start at its end.
    let left = if read.batches == 0 { "these parameters leave no batches: " } else { "" };
    let written = read.out.as_ref().map(|path| format!("\nwritten to {path}")).unwrap_or_default();
    format!(
        "{left}{} in {}, {:.1} MB in {:.2} s: {:.0} images/s{resumed}\n\
         the client waited for the server {:.2} s, the server for the client {:.2} s{written}",
        counted(read.images, "image", "images"),
        counted(read.batches, "batch", "batches"),
        read.bytes as f64 / 1e6,
        read.seconds,
        read.images_per_second,
        read.client_waited_seconds,
        read.server_waited_seconds,
    )
}
