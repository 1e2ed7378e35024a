//! `pba schedule`: the registry of a server.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use pba_client::{Client, ClientError};
use pba_schedules::{Schedule, formats, library};
use pba_wire::schedules::{ScheduleList, ScheduleSummary};
use reqwest::Method;
use serde_json::json;

use crate::catalog::stored::summary;
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
    /// Import a schedule from a file: pba-schedule JSON, or a lineage log
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
    /// Export a schedule as pba-schedule JSON
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
    Remove {
        /// Name
        name: String,
    },
}

/// Does what the subcommand says.
pub(crate) async fn run(Args { remote, command }: Args) -> anyhow::Result<()> {
    let client = remote.client()?;
    match command {
        Command::List => {
            let list = match client.request(Method::GET, "/v1/schedules", None).await {
                Ok(body) => remote.read(&body)?,
                Err(error) => ScheduleList {
                    schedules: offline(error, &remote, library::all())?.iter().map(summary).collect(),
                },
            };
            if remote.json { output::json(&list) } else { print_list(&list) }
        }
        Command::Show { name } => {
            let schedule = fetch(&client, &remote, &name).await?;
            match remote.json {
                true => output::line(formats::json::write_with_digest(&schedule).trim_end()),
                false => print_schedule(&schedule),
            }
        }
        Command::Import { file, name, epochs } => {
            if let Some(name) = &name {
                pba_types::check_name(name).map_err(|_| {
                    anyhow::anyhow!("--name {name:?}: allowed are {}", pba_types::names_allowed())
                })?;
            }
            let text = file::read(&file)?;
            // Read here too, so that mistakes are reported without a server and the name is known.
            let schedule = formats::read(&text, name.as_deref(), epochs)
                .with_context(|| format!("{} is not a schedule", file.display()))?;
            let is_log = formats::json::read(&text).is_err();
            anyhow::ensure!(
                name.is_some() || !is_log,
                "{} is a log, which contains no name; set one with --name",
                file.display()
            );
            anyhow::ensure!(
                epochs.is_none() || is_log,
                "{} already states the epochs of its search, {}; --epochs is for logs, and a schedule is \
                 stretched by the `epochs` of a stream",
                file.display(),
                schedule.epochs()
            );
            let path = format!("/v1/schedules/{}", schedule.name());
            let body =
                client.request(Method::PUT, &path, Some(formats::json::write(&schedule).into())).await?;
            let summary = remote.read(&body)?;
            let ScheduleSummary { name, epochs, segments, digest, .. } = &summary;
            let text = format!("{name}: {epochs} epochs, {segments} segments, digest {digest}");
            remote.print(remote.document(&body)?, text);
        }
        Command::Export { name, out } => {
            write(&remote, out, formats::json::write_with_digest(&fetch(&client, &remote, &name).await?))?;
        }
        Command::Plot { name, out } => {
            write(&remote, out, draw::schedule::draw(&fetch(&client, &remote, &name).await?))?;
        }
        Command::Remove { name } => {
            let path = format!("/v1/schedules/{}", segment(&name)?);
            client.request(Method::DELETE, &path, None).await?;
            remote.print(json!({ "removed": name }), format_args!("removed {name}"));
        }
    }
    Ok(())
}

/// A name that is safe in a path: the names of schedules and policies and digests are.
fn segment(name: &str) -> anyhow::Result<&str> {
    if name.parse::<pba_schedules::Digest>().is_err() && library::named(name)?.is_none() {
        pba_types::check_name(name)?;
    }
    Ok(name)
}

/// The schedule from the server; a published one, or a policy by name, also when no server runs.
async fn fetch(client: &Client, remote: &Remote, name: &str) -> anyhow::Result<Schedule> {
    let path = format!("/v1/schedules/{}", segment(name)?);
    match client.request(Method::GET, &path, None).await {
        Ok(body) => Ok(formats::json::read(std::str::from_utf8(&body)?)?),
        Err(error) => {
            let is_it = |schedule: &Schedule| schedule.digest().to_string() == name;
            let named = library::named(name)?.into_iter();
            Ok(offline(error, remote, named.chain(library::all().into_iter().filter(is_it)))?.swap_remove(0))
        }
    }
}

/// Schedules that are built into this program, when no server runs and none was named.
fn offline(
    error: ClientError,
    remote: &Remote,
    wanted: impl IntoIterator<Item = Schedule>,
) -> anyhow::Result<Vec<Schedule>> {
    let published: Vec<Schedule> = wanted.into_iter().collect();
    match (&error, &remote.server) {
        (ClientError::Unreachable { .. }, None) if !published.is_empty() => {
            tracing::info!("no server at {}; showing what is built into this program", remote.url());
            Ok(published)
        }
        _ => Err(error.into()),
    }
}

fn write(remote: &Remote, out: Option<PathBuf>, text: String) -> anyhow::Result<()> {
    let Some(path) = out else {
        output::bytes(text.as_bytes());
        return Ok(());
    };
    file::write(&path, text.as_bytes())?;
    remote.print(json!({ "out": path }), format_args!("written to {}", path.display()));
    Ok(())
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
    let length = match schedule.is_constant() {
        true => "one policy throughout".to_owned(),
        false => format!("{} segments over {} epochs", schedule.segments().len(), schedule.epochs()),
    };
    output::line(format_args!("{}: {length}\ndigest {}", schedule.name(), schedule.digest()));
    if let Some(source) = &schedule.provenance.source {
        output::line(format_args!("source {source}"));
    }
    output::line("");
    if schedule.is_constant() {
        // A sub-policy a line, where there are some.
        return output::line(schedule.at_search_epoch(0).to_string().replace("; ", "\n"));
    }
    let mut end = 0;
    let rows = schedule.segments().iter().enumerate().map(|(at, segment)| {
        let start = end;
        end += segment.epochs;
        let active = Some(segment.policy.to_string()).filter(|active| !active.is_empty());
        let epochs = format!("{start}..={}", end - 1);
        let active = active.unwrap_or_else(|| "nothing".to_owned());
        vec![(at + 1).to_string(), epochs, segment.epochs.to_string(), active]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    output::table(&["SEGMENT", "EPOCHS", "LENGTH", "OPS (probability/magnitude)"], &rows);
}
