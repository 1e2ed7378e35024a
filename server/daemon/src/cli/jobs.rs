//! What `pba search`, `pba evaluate` and `pba compare` have in common.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Subcommand;
use pba_search::{ModelName, Preset, Progress, Run, TrainingPlace, read_fields};
use pba_wire::jobs::{JobAnswer, JobList, JobState, MISSING, Missing, PROGRESS, STATE};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::failure::JobEnded;
use crate::cli::options::is_quiet;
use crate::cli::remote::Remote;
use crate::cli::screen::{Screen, rough};
use crate::cli::table::{Cell, Column};
use crate::cli::{exit, failure, file, output, style, time};

/// From one line about the progress to the next, where no bar is seen.
const TOLD_INTERVAL: Duration = Duration::from_secs(60);

/// A kind of job as the command line shows it. A value holds what a watcher knows of one job.
pub(crate) trait Shown: Default {
    /// The kind.
    type Run: Run;

    /// The columns that only this kind has: its main result, and those at the end of the table.
    const COLUMNS: &'static [Column];

    /// The cells of a job in those columns.
    fn cells(results: &Results<Self>, reader: Reader) -> Vec<String>;

    /// Prints details of one job below its row.
    fn details(_remote: &Remote, _job: &Answer<Self>) {}

    /// Processes an event, and shows what comes of it if there is a screen.
    fn happened(&mut self, event: <Self::Run as Run>::Event, screen: Option<&Screen>);

    /// Prints the result of a job that is done.
    fn ended(&self, remote: &Remote, job: &Answer<Self>);
}

type Spec<S> = <<S as Shown>::Run as Run>::Spec;
type Results<S> = <Spec<S> as pba_search::Spec>::Results;
/// The server's answer about one job.
pub(crate) type Answer<S> = JobAnswer<Spec<S>, Results<S>>;

/// What can be done with any job.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List all, those that were requested last first
    ///
    /// In a terminal the columns fit its width. Elsewhere each has a line, with tabs between the columns, no head, nothing
    /// cut and times in UTC.
    List,
    /// Watch one until it ends
    ///
    /// In a terminal a table is redrawn above a bar; elsewhere each change is a line. Ctrl-C ends the watching only.
    Watch {
        /// Its id
        id: String,
    },
    /// Show the state of one
    Show {
        /// Its id
        id: String,
    },
    /// Cancel one
    Cancel {
        /// Its id
        id: String,
    },
    /// Resume one that failed or was cancelled
    Resume {
        /// Its id
        id: String,
    },
    /// Delete one that has ended, with its files; the schedule of a search stays
    #[command(alias = "remove")]
    Delete {
        /// Its id
        id: String,
        /// As for `pba schedule delete`; of a job, nothing is asked either way
        #[arg(short, long)]
        yes: bool,
    },
}

/// Adds an example to the help of each of these commands, of a kind of job.
pub(crate) fn with_examples(command: clap::Command) -> clap::Command {
    let kind = command.get_name().to_owned();
    let examples = [
        ("list", "list\n  pba KIND list | cut -f1,2                        # ids and states"),
        ("watch", "watch shapes-tiny-1"),
        ("show", "show shapes-tiny-1\n  pba KIND show shapes-tiny-1 --json | jq .state"),
        ("cancel", "cancel shapes-tiny-1"),
        ("resume", "resume shapes-tiny-1"),
        ("delete", "delete shapes-tiny-1"),
    ];
    examples.into_iter().fold(command, |command, (name, example)| {
        let heading = if example.contains('\n') { "Examples" } else { "Example" };
        let help = format!("{heading}:\n  pba KIND {example}").replace("KIND", &kind);
        command.mut_subcommand(name, |command| command.after_help(help))
    })
}

/// The fields that the specs of all jobs share, as flags; the server validates them.
#[derive(Debug, clap::Args, Serialize)]
#[command(next_help_heading = "How each model is trained")]
pub(crate) struct Training {
    #[arg(long, help = format!(
        "Settings of the paper, for all that is left out: one of {} (searches: {})",
        Preset::names(),
        Preset::OF_SEARCHES.iter().map(|preset| preset.name()).collect::<Vec<_>>().join(", "),
    ))]
    preset: Option<String>,
    /// Dataset [default: shapes]
    #[arg(long)]
    dataset: Option<String>,
    #[arg(long, help = format!(
        "{} [default: {}, as the paper says; wrn-28-2 is what the reference's 5 hours trained]",
        ModelName::allowed(),
        ModelName::default(),
    ))]
    model: Option<String>,
    /// Epochs that each model trains [default: 200]
    #[arg(long)]
    epochs: Option<Field>,
    /// Images to train on [default: the model's own, at most half of the split, for searches; else all]
    #[arg(long)]
    train_size: Option<Field>,
    /// Images per step [default: the model's own]
    #[arg(long)]
    batch_size: Option<Field>,
    /// Initial learning rate [default: the model's own]
    #[arg(long)]
    lr: Option<Field>,
    /// Weight decay [default: the model's own]
    #[arg(long)]
    weight_decay: Option<Field>,
    /// Learning-rate schedule: cosine, or JSON such as {"steps": [80, 120], "factor": 0.1}
    #[arg(long)]
    lr_schedule: Option<Field>,
    /// Base augmentation [default: the dataset's own]
    #[arg(long)]
    base: Option<String>,
    /// Seed of every random decision [default: 0]
    #[arg(long)]
    seed: Option<Field>,
    /// Seed of the choice of images [default: that of --seed]
    #[arg(long)]
    split_seed: Option<Field>,
    /// Device: auto, cpu, cuda or cuda:N
    #[arg(long)]
    device: Option<String>,
    /// Numbers that convolutions compute with: auto, fp32 or bf16
    #[arg(long)]
    precision: Option<String>,
}

/// A field as it was given: JSON if it parses as JSON, otherwise text.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Field(Value);

impl FromStr for Field {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Field, Self::Err> {
        Ok(Field(serde_json::from_str(text).unwrap_or_else(|_| text.into())))
    }
}

/// How a job is started.
#[derive(Debug, clap::Args)]
pub(crate) struct StartFlags {
    /// JSON file with the fields of the spec; flags override it
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Watch it until it ends
    #[arg(long)]
    watch: bool,
}

/// A command that starts a job of one kind, or does what its subcommand says.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(crate) struct StartOrElse<F: clap::Args> {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    start: StartFlags,
    #[command(flatten)]
    fields: F,
    #[command(subcommand)]
    command: Option<Command>,
}

impl<F: clap::Args + Serialize> StartOrElse<F> {
    /// Does it; `help` is shown if there is nothing to start.
    pub(crate) async fn run<S: Shown>(self, help: &str) -> anyhow::Result<()> {
        match self.command {
            Some(command) => run::<S>(&self.remote, command).await.map(drop),
            None => start::<S>(&self.remote, &self.start, &self.fields, Some(help)).await.map(drop),
        }
    }
}

/// Starts a job with the fields given in `flags` and in a file; gives it if it was watched to its end. `help` is
/// shown if there are no fields at all.
pub(crate) async fn start<S: Shown>(
    remote: &Remote,
    start: &StartFlags,
    flags: &impl Serialize,
    help: Option<&str>,
) -> anyhow::Result<Option<Answer<S>>> {
    let mut fields: Map<String, Value> = start.spec.as_deref().map(read).transpose()?.unwrap_or_default();
    let Value::Object(flags) = serde_json::to_value(flags)? else { bail!("flags are not an object") };
    fields.extend(flags.into_iter().filter(|(_, value)| !value.is_null()));
    if let (Some(help), None, true) = (help, &start.spec, fields.is_empty()) {
        bail!("{help}");
    }
    let path = format!("/v1/{}", S::Run::JOB.plural);
    let answer = remote.client()?.request(Method::POST, &path, Some(serde_json::to_vec(&fields)?)).await?;
    let job: Answer<S> = remote.read(&answer)?;
    let (name, command) = (S::Run::JOB.name, S::Run::JOB.command);
    let Answer::<S> { id, state, .. } = &job;
    if start.watch {
        // Before the id is printed: its reader may press Ctrl-C.
        let interrupt = interrupt()?;
        if !remote.json {
            output::line(format_args!("{name} {id}"));
        }
        job.warnings.iter().for_each(output::warning);
        return watch::<S>(remote, id, interrupt).await.map(Some);
    }
    job.warnings.iter().for_each(output::warning);
    if is_quiet() && !remote.json {
        // For a script that goes on with it.
        output::line(id);
        return Ok(None);
    }
    let watch = remote.command(format_args!("{command} watch {id}"));
    remote.print(remote.document(&answer)?, format_args!("{name} {id} is {state}; watch it with: {watch}"));
    Ok(None)
}

fn read(path: &Path) -> anyhow::Result<Map<String, Value>> {
    read_fields(&file::read(path)?).with_context(|| format!("{} is not a JSON object", path.display()))
}

fn interrupt() -> anyhow::Result<Signal> {
    signal(SignalKind::interrupt()).context("cannot watch for Ctrl-C")
}

/// Does what the subcommand says; gives a job that was watched to its end.
pub(crate) async fn run<S: Shown>(remote: &Remote, command: Command) -> anyhow::Result<Option<Answer<S>>> {
    let answer = match command {
        Command::Watch { id } => return watch::<S>(remote, &id, interrupt()?).await.map(Some),
        Command::List => {
            let path = format!("/v1/{}", S::Run::JOB.plural);
            let list = remote.client()?.request(Method::GET, &path, None).await?;
            if remote.json {
                output::json(&remote.document(&list)?);
            } else {
                let jobs: JobList<Spec<S>> = remote.read(&list)?;
                let mut jobs: Vec<Answer<S>> = jobs.into_values().flatten().collect();
                jobs.sort_by(|one, other| {
                    other.created.cmp(&one.created).then_with(|| one.id.cmp(&other.id))
                });
                let rows: Vec<Vec<Cell>> = jobs.iter().map(|job| row::<S>(job, Reader::here())).collect();
                output::list(&columns::<S>(), &rows);
            }
            return Ok(None);
        }
        Command::Show { id } => one::<S>(remote, Method::GET, &id, "").await?,
        Command::Cancel { id } => one::<S>(remote, Method::DELETE, &id, "").await?,
        Command::Resume { id } => one::<S>(remote, Method::POST, &id, "/resume").await?,
        Command::Delete { id, yes: _ } => {
            let answer = one::<S>(remote, Method::POST, &id, "/remove").await?;
            remote.print(remote.document(&answer)?, format_args!("deleted {} {id}", S::Run::JOB.name));
            return Ok(None);
        }
    };
    if remote.json {
        output::json(&remote.document(&answer)?);
        return Ok(None);
    }
    let job: Answer<S> = remote.read(&answer)?;
    let head: Vec<&str> = columns::<S>().iter().map(Column::head).collect();
    output::table(&head, &[row::<S>(&job, Reader::here())]);
    if let Some(error) = &job.error {
        output::line(format_args!("error: {error}"));
    }
    if let Some(reason) = &job.waiting {
        output::line(format_args!("waits: {reason}"));
    }
    S::details(remote, &job);
    show_notes(&job.notes);
    job.warnings.iter().for_each(output::warning);
    Ok(None)
}

/// Follows a job that another one, `followed`, starts when it is done: a moment later.
pub(crate) async fn watch_next<S: Shown>(remote: &Remote, followed: &str, id: &str) -> anyhow::Result<()> {
    let interrupt = interrupt()?;
    let mut tries = 0;
    let is_there = async || {
        let job: Answer<S> = remote.read(&one::<S>(remote, Method::GET, id, "").await?)?;
        let name = S::Run::JOB.name;
        anyhow::ensure!(job.follows.as_deref() == Some(followed), "{name} {id} does not follow {followed}");
        Ok(())
    };
    while let Err(error) = is_there().await {
        tries += 1;
        if tries > 100 {
            return Err(error);
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    watch::<S>(remote, id, interrupt).await.map(drop)
}

/// For whom numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// With units.
    People,
    /// As the server answers them.
    Programs,
}

impl Reader {
    /// That of standard output.
    pub(crate) fn here() -> Reader {
        if output::is_terminal() { Reader::People } else { Reader::Programs }
    }

    /// A fraction: for people a percentage. A dash where there is none.
    pub(crate) fn ratio(self, share: Option<f64>) -> String {
        match self {
            Reader::People => percent(share),
            Reader::Programs => share.map_or("-".to_owned(), |share| share.to_string()),
        }
    }
}

/// The columns of jobs.
fn columns<S: Shown>() -> Vec<Column> {
    let (result, more) = S::COLUMNS.split_first().expect("a kind of job has a result");
    let common = [
        Column::kept("ID"),
        Column::kept("STATE"),
        Column::ranked("EPOCH", 9),
        *result,
        Column::ranked("CREATED", 5),
        Column::ranked("SECONDS", 2),
        Column::ranked("LEFT", 8),
        Column::ranked("DATASET", 7),
        Column::ranked("MODEL", 6),
        Column::ranked("PLACE", 3),
    ];
    [&common, more].concat()
}

/// A job in columns.
fn row<S: Shown>(job: &Answer<S>, reader: Reader) -> Vec<Cell> {
    let mut cells = S::cells(&job.results, reader).into_iter();
    let result = cells.next().expect("a kind of job has a result");
    let state = if job.finishing { "finishing".to_owned() } else { job.state.to_string() };
    let left = job.progress.as_ref().and_then(|progress| progress.seconds_left);
    let common = [
        format!("{}/{}", job.epoch, job.epochs),
        result,
        time::shown(job.created.as_deref(), reader == Reader::People),
        format!("{:.1}", job.seconds),
        left.map_or("-".to_owned(), |seconds| match reader {
            Reader::People => rough(seconds),
            Reader::Programs => format!("{seconds:.1}"),
        }),
        job.dataset.clone(),
        job.model.clone(),
        job.place.as_ref().map_or("-".to_owned(), TrainingPlace::to_string),
    ];
    let first = [Cell::from(job.id.clone()), Cell::painted(state, style::of_state(job.state))];
    first.into_iter().chain(common.into_iter().chain(cells).map(Cell::from)).collect()
}

/// What the server answers about one job.
pub(crate) async fn one<S: Shown>(
    remote: &Remote,
    method: Method,
    id: &str,
    suffix: &str,
) -> anyhow::Result<Vec<u8>> {
    let path = format!("/v1/{}/{}{suffix}", S::Run::JOB.plural, pba_client::segment(id));
    Ok(remote.client()?.request(method, &path, None).await?)
}

/// Follows a job to its end; fails when the job does. An interrupt only stops watching.
async fn watch<S: Shown>(remote: &Remote, id: &str, mut interrupt: Signal) -> anyhow::Result<Answer<S>> {
    let (name, command) = (S::Run::JOB.name, S::Run::JOB.command);
    let mut events = remote.client()?.events(S::Run::JOB.plural, id);
    let screen = Screen::new();
    let (mut seen, mut last, mut place, mut told) = (S::default(), None, None, None);
    loop {
        let event = tokio::select! {
            event = events.next() => event?,
            _ = interrupt.recv() => {
                screen.clear();
                failure::report_interrupt(&format!(
                    "{name} {id} continues; watch it again with: {}\ncancel it with: {}",
                    remote.command(format_args!("{command} watch {id}")),
                    remote.command(format_args!("{command} cancel {id}")),
                ));
                std::process::exit(exit::INTERRUPTED);
            }
        };
        let Some(event) = event else { break };
        if remote.json {
            output::line(json!({ "event": event.kind, "data": event.data }));
        }
        match event.kind.as_str() {
            PROGRESS => {
                let progress: Progress = event.read()?;
                screen.progress(&progress);
                // Where no bar is seen, a line now and then.
                let is_due = place.is_some() && told.is_none_or(|at: Instant| at.elapsed() >= TOLD_INTERVAL);
                if !screen.is_seen() && !remote.json && progress.seconds_left.is_some() && is_due {
                    output::progress(screen.message());
                    told = Some(Instant::now());
                }
            }
            STATE => {
                let job: Answer<S> = event.read()?;
                if job.place != place && !remote.json {
                    screen.suspend(|| job.place.iter().for_each(tell_of));
                }
                place = job.place.clone();
                last = Some(job);
            }
            MISSING if !remote.json => {
                let missing: Missing = event.read()?;
                screen.suspend(|| tracing::warn!("{missing}: what happened there cannot be told"));
            }
            pba_client::RECONNECTING => {
                tracing::warn!("{}; trying again", event.read::<String>()?);
            }
            // A later server may tell of more.
            _ => {
                if let Ok(event) = event.read() {
                    seen.happened(event, (!remote.json).then_some(&screen));
                }
            }
        }
    }
    screen.clear();
    let Some(job) = last else { bail!("the server's events ended without the state of the {name}") };
    match job.state {
        JobState::Done if remote.json => {}
        JobState::Done => {
            seen.ended(remote, &job);
            show_notes(&job.notes);
        }
        state => {
            let message = match state {
                JobState::Failed => format!("the {name} failed: {}", job.error.unwrap_or_default()),
                state => format!("the {name} was {state}"),
            };
            return Err(JobEnded { state, message }.into());
        }
    }
    Ok(job)
}

/// Prints what has become of a job's schedules.
fn show_notes(notes: &[String]) {
    notes.iter().for_each(output::note);
}

/// Prints where a job trains.
pub(crate) fn tell_of(place: &TrainingPlace) {
    output::progress(format_args!("trains on {place}"));
    place.note.iter().for_each(output::note);
}

/// A fraction as a percentage; a dash where there is none.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share))
}
