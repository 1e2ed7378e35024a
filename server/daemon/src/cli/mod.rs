//! The command line: `pba serve|health|stream|streams|demo|schedule|dataset|search|evaluate|compare`, one module each.

mod access;
pub mod bar;
mod compare;
mod dataset;
mod demo;
mod difference;
mod environment;
mod evaluate;
mod experiment;
mod file;
mod health;
mod import;
mod jobs;
mod output;
mod query;
mod remote;
mod schedule;
mod search;
mod serve;
mod stream;
mod streams;

/// Exit code of a command that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

use std::io::Write;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::log::{self, Format, Log};

/// Streams augmented image batches to training jobs, following learned augmentation schedules.
#[derive(Debug, Parser)]
#[command(name = "pba", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(Box<crate::config::ServeArgs>),
    /// Ask whether a server is ready: 0 if it is, else 1 and the reason; for health checks
    Health(health::Args),
    /// Read one epoch from a server, with a progress bar
    Stream(stream::Args),
    /// List the streams that a server sends, and who waits for whom in each
    Streams(streams::Args),
    /// Try everything at once: run a server and stream one epoch of the built-in dataset
    Demo(Box<demo::Args>),
    /// List, show, import, export, compare, plot and remove schedules
    Schedule(schedule::Args),
    /// List, show and preview datasets
    Dataset(dataset::Args),
    /// Learn a schedule: start, watch, cancel and resume population searches
    Search(search::Args),
    /// Train a model from scratch with or without a schedule, and test it; list, watch, cancel and resume
    Evaluate(Box<evaluate::Args>),
    /// Train several ways to augment from scratch, with several seeds each, and say which is better
    Compare(Box<compare::Args>),
}

/// Parses the command line and runs the command.
///
/// # Errors
/// When the command fails, with the reason.
pub fn run() -> anyhow::Result<()> {
    let mut command = environment::without_empty(Cli::command());
    command.build();
    let matches = command.clone().try_get_matches();
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = cli.unwrap_or_else(|error| tell(&environment::blame(&command, error)));
    let serves = matches!(cli.command, Command::Serve(_) | Command::Demo(_));
    log_to_stderr(serves)?;
    if serves {
        environment::check(&Cli::command())?;
    } else {
        environment::warn(&Cli::command());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(*args).await,
            Command::Health(args) => health::run(args).await,
            Command::Stream(args) => stream::run(args).await,
            Command::Streams(args) => streams::run(args).await,
            Command::Demo(args) => demo::run(*args).await,
            Command::Schedule(args) => schedule::run(args).await,
            Command::Dataset(args) => dataset::run(args).await,
            Command::Search(args) => search::run(args).await,
            Command::Evaluate(args) => evaluate::run(*args).await,
            Command::Compare(args) => compare::run(*args).await,
        }
    });
    // Whatever still runs, such as a write to a disk that does not answer, ends with the process.
    runtime.shutdown_background();
    log::flush();
    done
}

/// Prints the requested help, or the error in the command line, and exits.
fn tell(error: &clap::Error) -> ! {
    if error.use_stderr() && Format::chosen() == Format::Json {
        let text = error.render().to_string();
        log::say(Level::ERROR, text.trim().trim_start_matches("error: "));
        std::process::exit(error.exit_code());
    }
    if let Err(failure) = error.print().and_then(|()| std::io::stdout().flush())
        && !error.use_stderr()
    {
        output::fail(&failure);
    }
    std::process::exit(error.exit_code());
}

/// Logs go to standard error, and a server's without anybody waiting for them; `RUST_LOG` sets the level,
/// `PBA_LOG_FORMAT` the format.
fn log_to_stderr(serves: bool) -> anyhow::Result<()> {
    let filter = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = filter.trim().trim_end_matches(',');
    let filter = if filter.is_empty() { "warn,pba_client=info,pba_server=info" } else { filter };
    let filter: Targets = filter.parse().with_context(|| {
        format!(
            "RUST_LOG: {filter:?} is not a log filter; expected levels by target, like warn,pba_server=debug"
        )
    })?;
    let format = std::env::var(log::FORMAT).unwrap_or_default();
    let format = Format::named(&format)
        .with_context(|| format!("{}: {format:?} is not a format; allowed are text and json", log::FORMAT))?;
    if serves || format == Format::Json {
        log::take_panics();
    }
    let out = if serves { BoxMakeWriter::new(Log::start()?) } else { BoxMakeWriter::new(std::io::stderr) };
    let lines = log::layer(format, out);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    Ok(())
}
