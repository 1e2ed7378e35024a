//! `pba schedule`: the registry of a server.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use pba_client::{Client, ClientError};
use pba_schedules::{Schedule, ScheduleError, formats, library};
use pba_search::{ComparisonSpec, SearchSpec};
use pba_wire::jobs::{Job, JobList};
use pba_wire::schedules::{ScheduleList, ScheduleSummary};
use reqwest::Method;
use serde_json::json;

use crate::catalog::stored::summary;
use crate::cli::confirm::confirm;
use crate::cli::import::Imported;
use crate::cli::remote::Remote;
use crate::cli::table::{Cell, Column};
use crate::cli::{difference, failure, file, import, output, time};
use crate::draw;

/// Exit code of `diff` where there is a difference, as that of the program of the same name.
const DIFFERENT: i32 = 1;
/// Exit code of `diff` where it cannot tell.
const TROUBLE: i32 = 2;

/// Arguments of `pba schedule`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  pba schedule list
  pba schedule show cifar10-pba
  pba schedule import pbt_policy_0.txt --name mine --epochs 200
  pba schedule diff mine cifar10-pba")]
pub(crate) struct Args {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the schedules: those that were added last come first
    #[command(after_help = "\
Examples:
  pba schedule list
  pba schedule list | cut -f1                          # their names
  pba schedule list --json | jq '.schedules[].name'")]
    List,
    /// Show the segments of a schedule
    #[command(after_help = "Example:\n  pba schedule show cifar10-pba")]
    Show {
        /// Name or digest
        name: String,
    },
    /// Import a schedule from a file: pba-schedule JSON, or a log of population based training
    ///
    /// Logs are those of Ray Tune: pbt_policy_*.txt is the lineage of one trial, pbt_global.txt has the exploits of all, of
    /// which --trial names one. Whose lineage was taken is printed.
    #[command(after_help = "\
Examples:
  pba schedule import my-schedule.json
  pba schedule import pbt_policy_0.txt --name mine --epochs 200
  pba schedule import ~/ray_results/search --trial a1b2c_00003 --name mine --epochs 200")]
    Import {
        /// File to read, or Tune's folder of an experiment, for its pbt_global.txt
        file: PathBuf,
        /// Name of the schedule; required for logs
        #[arg(long)]
        name: Option<String>,
        /// Epochs of the search; required for logs
        #[arg(long)]
        epochs: Option<u32>,
        /// Trial whose lineage is the schedule; required for pbt_global.txt: its tag, number or id, such as a1b2c_00003; its
        /// id where Tune logged several runs into the folder
        #[arg(long)]
        trial: Option<String>,
    },
    /// Export a schedule
    #[command(after_help = "\
Examples:
  pba schedule export cifar10-pba --out cifar10.json
  pba schedule export mine --as ray-tune --out replay.txt")]
    Export {
        /// Name or digest
        name: String,
        /// In whose terms
        #[arg(long = "as", value_enum, default_value_t)]
        form: Form,
        /// File to write [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Say what differs between two schedules, in which epochs
    ///
    /// Exits with 0 if they are the same but for their names and provenance, with 1 if not, and with 2 if that cannot be
    /// told.
    #[command(after_help = "\
Examples:
  pba schedule diff mine cifar10-pba
  pba schedule diff mine ./mine.json && echo the same")]
    Diff {
        /// Name or digest; a file of pba-schedule JSON if it ends in .json or has a / in it
        a: String,
        /// The other one
        b: String,
    },
    /// Plot a schedule as SVG
    #[command(after_help = "Example:\n  pba schedule plot cifar10-pba --out cifar10.svg")]
    Plot {
        /// Name or digest
        name: String,
        /// File to write [default: standard output]
        #[arg(long, value_name = "FILE.svg")]
        out: Option<PathBuf>,
    },
    /// Delete a schedule
    ///
    /// If a search or a comparison hands it out as its result, this is asked first in a terminal, and needs --yes
    /// elsewhere.
    #[command(alias = "remove", after_help = "Example:\n  pba schedule delete mine")]
    Delete {
        /// Name
        name: String,
        /// Delete it without asking, though a search or a comparison hands it out
        #[arg(short, long)]
        yes: bool,
    },
}

/// In whose terms a schedule is written.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Form {
    /// pba-schedule JSON, which `import` reads
    #[default]
    Json,
    /// A policy log for Ray Tune's PopulationBasedTrainingReplay
    RayTune,
    /// A table: a row for each slot of each segment
    Csv,
    /// The transform of torchvision that does the same, for the policies that it has
    Torchvision,
}

impl Form {
    fn write(self, schedule: &Schedule) -> Result<String, ScheduleError> {
        match self {
            Form::Json => Ok(formats::json::write_with_digest(schedule)),
            Form::RayTune => formats::ray_tune::write(schedule),
            Form::Csv => formats::csv::write(schedule),
            Form::Torchvision => formats::torchvision::write(schedule),
        }
    }
}

/// Does what the subcommand says.
pub(crate) async fn run(Args { remote, command }: Args) -> anyhow::Result<()> {
    let client = remote.client()?;
    match command {
        Command::List => {
            let mut list = match client.request(Method::GET, "/v1/schedules", None).await {
                Ok(body) => remote.read(&body)?,
                Err(error) => ScheduleList {
                    schedules: offline(error, &remote, library::all())?.iter().map(summary).collect(),
                },
            };
            // What is built in was not added, and stands at the end.
            list.schedules.sort_by(|one, other| other.added.cmp(&one.added));
            if remote.json { output::json(&list) } else { print_list(&list) }
        }
        Command::Show { name } => {
            let schedule = fetch(&client, &remote, &name).await?;
            match remote.json {
                true => output::line(formats::json::write_with_digest(&schedule).trim_end()),
                false => print_schedule(&schedule),
            }
        }
        Command::Import { file, name, epochs, trial } => {
            if let Some(name) = &name {
                pba_types::check_name(name).map_err(|_| {
                    anyhow::anyhow!("--name {name:?}: allowed are {}", pba_types::names_allowed())
                })?;
            }
            let Imported { schedule, trial } =
                import::read(&file, name.as_deref(), epochs, trial.as_deref())?;
            let path = format!("/v1/schedules/{}", schedule.name());
            let body =
                client.request(Method::PUT, &path, Some(formats::json::write(&schedule).into())).await?;
            let summary = remote.read(&body)?;
            let ScheduleSummary { name, epochs, segments, digest, .. } = &summary;
            let mut text = format!("{name}: {epochs} epochs, {segments} segments, digest {digest}");
            let mut document = remote.document(&body)?;
            if let Some(trial) = trial {
                text += &format!("; the lineage of trial {trial}");
                document["trial"] = trial.into();
            }
            remote.print(document, text);
        }
        Command::Export { name, form, out } => {
            let schedule = fetch(&client, &remote, &name).await?;
            let text = form.write(&schedule).with_context(|| format!("the schedule {name:?}"))?;
            write(&remote, out, text)?;
        }
        Command::Diff { a, b } => match diff(&client, &remote, [&a, &b]).await {
            Ok(true) => {}
            Ok(false) => std::process::exit(DIFFERENT),
            Err(error) => {
                failure::report(&error);
                std::process::exit(TROUBLE);
            }
        },
        Command::Plot { name, out } => {
            write(&remote, out, draw::schedule::draw(&fetch(&client, &remote, &name).await?))?;
        }
        Command::Delete { name, yes } => {
            let path = format!("/v1/schedules/{}", segment(&name)?);
            let holders = if yes { Vec::new() } else { holders(&client, &remote, &name).await? };
            if !holders.is_empty() {
                let consequences = format!(
                    "{} schedule {name:?} out as the result: without it, streams and new jobs that name it are refused, and \
                     no restart brings it back; jobs that were requested with it go on, and `pba search schedule {name}` \
                     still prints what a search of that name learned",
                    hand(&holders)
                );
                confirm(&format!("delete schedule {name:?}?"), &consequences)?;
            }
            client.request(Method::DELETE, &path, None).await?;
            remote.print(json!({ "deleted": name }), format_args!("deleted {name}"));
        }
    }
    Ok(())
}

/// The jobs that hand a schedule out as their result, in words: the search that learned it, and comparisons that
/// recommend it.
async fn holders(client: &Client, remote: &Remote, name: &str) -> anyhow::Result<Vec<String>> {
    let mut holders = Vec::new();
    let search = client.request(Method::GET, &format!("/v1/searches/{}", segment(name)?), None).await;
    match search {
        Ok(answer) => {
            let search: Job<SearchSpec> = remote.read(&answer)?;
            // With notes, the name is another schedule's by now.
            if search.results.schedule.as_deref() == Some(name) && search.notes.is_empty() {
                holders.push(format!("search {name:?}"));
            }
        }
        Err(ClientError::Refused(problem)) if problem.status == 404 => {}
        Err(error) => return Err(error.into()),
    }
    let answer = client.request(Method::GET, "/v1/comparisons", None).await?;
    let comparisons: JobList<ComparisonSpec> = remote.read(&answer)?;
    for comparison in comparisons.into_values().flatten() {
        let recommended =
            comparison.results.recommended.filter(|_| comparison.results.stream_command.is_some());
        // An ablation of a schedule is NAME@ABLATION.
        if recommended.is_some_and(|arm| arm.split('@').next() == Some(name)) {
            holders.push(format!("comparison {:?}", comparison.id));
        }
    }
    Ok(holders)
}

/// That some jobs hand out.
fn hand(holders: &[String]) -> String {
    match holders {
        [one] => format!("{one} hands"),
        _ => format!("{} hand", holders.join(" and ")),
    }
}

/// Prints what differs between two schedules; whether nothing does.
async fn diff(client: &Client, remote: &Remote, both: [&str; 2]) -> anyhow::Result<bool> {
    let mut schedules = Vec::new();
    for which in both {
        schedules.push(match which.ends_with(".json") || which.contains('/') {
            true => import::document(Path::new(which))?,
            false => fetch(client, remote, which).await?,
        });
    }
    let [a, b] = &schedules[..] else { unreachable!("there are two") };
    let found = pba_schedules::diff(a, b);
    match remote.json {
        true => output::json(&difference::document(both, [a, b], &found)),
        false => difference::print(both, [a, b], &found),
    }
    Ok(found.is_empty())
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

const COLUMNS: [Column; 5] = [
    Column::kept("NAME"),
    Column::ranked("EPOCHS", 4),
    Column::ranked("SEGMENTS", 2),
    Column::ranked("DIGEST", 1),
    Column::ranked("ADDED", 3),
];

/// Prints a list.
fn print_list(list: &ScheduleList) {
    let row = |schedule: &ScheduleSummary| {
        let added = schedule.added.as_deref();
        let digest: String = schedule.digest.chars().take(12).collect();
        let (epochs, segments) = (schedule.epochs.to_string(), schedule.segments.to_string());
        let cells =
            [schedule.name.clone(), epochs, segments, digest, time::shown(added, output::is_terminal())];
        cells.map(Cell::from).to_vec()
    };
    let rows: Vec<Vec<Cell>> = list.schedules.iter().map(row).collect();
    output::list(&COLUMNS, &rows);
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
