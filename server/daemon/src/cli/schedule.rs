//! `pba schedule`: the registry of a server.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use pba_client::{Client, ClientError};
use pba_schedules::{Schedule, formats, library};
use pba_wire::schedules::{ScheduleList, ScheduleSummary};
use reqwest::Method;
use serde_json::json;

use crate::catalog::schedules::summary;
use crate::cli::remote::Remote;
use crate::cli::{file, output};
use crate::draw;

/// Arguments of `pba schedule`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the schedules
    List,
    /// Show the segments of a schedule
    Show {
        /// Name or digest
        name: String,
    },
    /// Import a schedule from a file: pba-schedule/1 JSON, or a lineage log
    Import {
        /// File to read
        file: PathBuf,
        /// Name of the schedule; required for logs
        #[arg(long)]
        name: Option<String>,
        /// Epochs of the search; required for logs
        #[arg(long)]
        epochs: Option<u32>,
    },
    /// Export a schedule as pba-schedule/1 JSON
    Export {
        /// Name or digest
        name: String,
        /// File to write [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Plot a schedule as SVG
    Plot {
        /// Name or digest
        name: String,
        /// File to write [default: standard output]
        #[arg(long, value_name = "FILE.svg")]
        out: Option<PathBuf>,
    },
    /// Remove a schedule
    Delete {
        /// Name
        name: String,
    },
}

/// Does what the subcommand says.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.remote.client()?;
    match args.command {
        Command::List => {
            let list = match client.request(Method::GET, "/v1/schedules", None).await {
                Ok(body) => args.remote.read(&body)?,
                Err(error) => offline(error, &args.remote)?,
            };
            if args.remote.json {
                output::json(&list);
            } else {
                print_list(&list);
            }
        }
        Command::Show { name } => {
            let schedule = fetch(&client, &args.remote, &name).await?;
            if args.remote.json {
                output::line(formats::json::write(&schedule).trim_end());
            } else {
                print_schedule(&schedule);
            }
        }
        Command::Import { file, name, epochs } => {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            // Read here too, so that mistakes are reported without a server and the name is known.
            let schedule = formats::read(&text, name.as_deref(), epochs)
                .with_context(|| format!("{} is not a schedule", file.display()))?;
            anyhow::ensure!(
                name.is_some() || formats::json::read(&text).is_ok(),
                "{} is a log, which contains no name; set one with --name",
                file.display()
            );
            anyhow::ensure!(
                epochs.is_none() || formats::json::read(&text).is_err(),
                "{} says itself how many epochs its search had, {}; --epochs is for logs, and a schedule is \
                 stretched by the `epochs` of a stream",
                file.display(),
                schedule.epochs()
            );
            let path = format!("/v1/schedules/{}", schedule.name());
            let body = formats::json::write(&schedule).into_bytes();
            let body = client.request(Method::PUT, &path, Some(body)).await?;
            let summary: ScheduleSummary = args.remote.read(&body)?;
            if args.remote.json {
                output::json(&summary);
            } else {
                output::line(format_args!(
                    "{}: {} epochs, {} segments, digest {}",
                    schedule.name(),
                    schedule.epochs(),
                    schedule.segments().len(),
                    schedule.digest()
                ));
            }
        }
        Command::Export { name, out } => {
            let text = formats::json::write(&fetch(&client, &args.remote, &name).await?);
            write(&args.remote, out, text)?;
        }
        Command::Plot { name, out } => {
            let svg = draw::schedule::draw(&fetch(&client, &args.remote, &name).await?);
            write(&args.remote, out, svg)?;
        }
        Command::Delete { name } => {
            let path = format!("/v1/schedules/{}", segment(&name)?);
            let answer = client.request(Method::DELETE, &path, None).await?;
            anyhow::ensure!(
                answer.is_empty(),
                "the server did not answer like a PBA server: its answer should be empty"
            );
            if args.remote.json {
                output::json(&json!({ "deleted": name }));
            } else {
                output::line(format_args!("deleted {name}"));
            }
        }
    }
    Ok(())
}

/// A name that is safe in a path: the names of schedules and digests are.
fn segment(name: &str) -> anyhow::Result<&str> {
    if name.parse::<pba_schedules::Digest>().is_err() {
        pba_types::check_name(name)?;
    }
    Ok(name)
}

/// The schedule from the server; a published one also when no server runs.
async fn fetch(client: &Client, remote: &Remote, name: &str) -> anyhow::Result<Schedule> {
    let path = format!("/v1/schedules/{}", segment(name)?);
    match client.request(Method::GET, &path, None).await {
        Ok(body) => Ok(formats::json::read(std::str::from_utf8(&body)?)?),
        Err(error @ ClientError::Unreachable { .. }) if remote.server.is_none() => {
            let published = library::all()
                .into_iter()
                .find(|schedule| schedule.name() == name || schedule.digest().to_string() == name);
            let schedule = published.ok_or(error)?;
            tracing::info!(
                "no server at {}; showing the published schedule {name} that is built into this program",
                remote.url()
            );
            Ok(schedule)
        }
        Err(error) => Err(error.into()),
    }
}

/// The published schedules, when no server runs.
fn offline(error: ClientError, remote: &Remote) -> anyhow::Result<ScheduleList> {
    let (ClientError::Unreachable { .. }, None) = (&error, &remote.server) else { return Err(error.into()) };
    tracing::info!("no server at {}; showing the published schedules", remote.url());
    Ok(ScheduleList { schedules: library::all().iter().map(summary).collect() })
}

fn write(remote: &Remote, out: Option<PathBuf>, text: String) -> anyhow::Result<()> {
    match out {
        Some(path) => {
            file::write(&path, text.as_bytes())?;
            match remote.json {
                true => output::json(&json!({ "out": path })),
                false => output::line(format_args!("written to {}", path.display())),
            }
            Ok(())
        }
        None => {
            output::bytes(text.as_bytes());
            Ok(())
        }
    }
}

fn print_list(list: &ScheduleList) {
    let row = |schedule: &ScheduleSummary| {
        let digest = schedule.digest.chars().take(12).collect();
        vec![schedule.name.clone(), schedule.epochs.to_string(), schedule.segments.to_string(), digest]
    };
    let rows: Vec<Vec<String>> = list.schedules.iter().map(row).collect();
    output::table(&["NAME", "EPOCHS", "SEGMENTS", "DIGEST"], &rows);
}

fn print_schedule(schedule: &Schedule) {
    output::line(format_args!(
        "{}: {} segments over {} epochs\ndigest {}",
        schedule.name(),
        schedule.segments().len(),
        schedule.epochs(),
        schedule.digest()
    ));
    if let Some(source) = &schedule.provenance.source {
        output::line(format_args!("source {source}"));
    }
    output::line("");
    let mut start = 0;
    let mut rows = Vec::new();
    for (number, segment) in schedule.segments().iter().enumerate() {
        let active = segment.policy.to_string();
        let active = if active.is_empty() { "nothing".to_owned() } else { active };
        rows.push(vec![
            (number + 1).to_string(),
            format!("{start}..={}", start + segment.epochs - 1),
            segment.epochs.to_string(),
            active,
        ]);
        start += segment.epochs;
    }
    output::table(&["SEGMENT", "EPOCHS", "LENGTH", "OPS (probability/magnitude)"], &rows);
}
