//! The command line: `pba serve|health|stream|streams|demo|schedule|dataset|search|evaluate|compare|token`, one module each.
//!
//! Conventions that every command follows:
//!
//! - *A result* goes to standard output: [`remote::Remote::print`] prints it as a line of text, or with `--json` as the
//!   document that the server answered. Whatever else is printed there, [`output::progress`] and [`output::note`], is
//!   left out with `--quiet`.
//! - *A list* of things is printed by [`output::list`]: in a terminal in columns that fit its width, elsewhere with tabs
//!   and without a head. Newest first; times by [`time::shown`]; states painted by [`style::of_state`]. *A table* in a
//!   report, as that of one job, is printed by [`output::table`].
//! - *An error* is returned, and [`failure::report`] prints it, with `--json` as an object; a command neither prints it
//!   nor ends the process itself. [`exit`] has the exit codes. *A warning* is printed by [`output::warning`].
//! - *Progress* is a bar on standard error ([`bar`]), which is not seen where that is no terminal.
//! - What cannot be undone, and would surprise, is asked first ([`confirm`]).
//! - Help has examples (`after_help`), and flags that belong together have a heading (`help_heading`).

mod access;
pub mod bar;
mod compare;
mod completions;
mod confirm;
mod dataset;
mod demo;
mod difference;
mod environment;
mod evaluate;
mod exit;
mod experiment;
mod failure;
mod file;
mod health;
mod import;
mod jobs;
mod man;
mod options;
mod output;
mod query;
mod remote;
mod schedule;
mod screen;
mod search;
mod serve;
mod sources;
mod stream;
mod streams;
mod style;
mod table;
mod time;
mod token;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::options::{Early, Options};
use crate::cli::style::Stream;
use crate::log::{self, Format, Log};
use crate::trace;
use crate::version;

/// Streams augmented image batches to training jobs, following learned augmentation schedules.
#[derive(Debug, Parser)]
#[command(
    name = "pba",
    version = version::shown(),
    max_term_width = 100,
    after_help = "\
Examples:
  pba demo
  pba serve --dataset cifar10=./cifar10
  pba stream --dataset cifar10 --schedule cifar10-pba --epoch 199
  pba search start --dataset cifar10 --preset rcifar10 --watch

Exit codes: 0 success, 1 failure, 2 wrong command line, 130 ended by Ctrl-C."
)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    #[command(after_help = serve::EXAMPLES)]
    Serve(Box<crate::config::ServeArgs>),
    /// Ask whether a server is ready: 0 if it is, else 1 and the reason; for health checks
    Health(health::Args),
    /// Read one epoch from a server, with a progress bar
    Stream(stream::Args),
    /// List the streams that a server sends, and who waits for whom in each
    ///
    /// A client waits for batches that are not made yet, the server for a client that takes none: what JSON and metrics call
    /// backpressure.
    Streams(streams::Args),
    /// Try everything at once: run a server and stream one epoch of the built-in dataset
    Demo(Box<demo::Args>),
    /// List, show, import, export, compare, plot and delete schedules
    Schedule(schedule::Args),
    /// List, show and preview datasets
    Dataset(dataset::Args),
    /// Learn a schedule: start, watch, cancel and resume population searches
    Search(search::Args),
    /// Train a model from scratch with or without a schedule, and test it; list, watch, cancel and resume
    #[command(after_help = evaluate::EXAMPLES)]
    Evaluate(Box<evaluate::Args>),
    /// Train several ways to augment from scratch, with several seeds each, and say which is better
    #[command(after_help = compare::EXAMPLES)]
    Compare(Box<compare::Args>),
    /// Make tokens that a server lets in
    Token(token::Args),
    /// Print a script with which a shell completes commands and flags
    Completions(completions::Args),
    /// Write manual pages
    Man(man::Args),
}

/// The command line, with the help of every command complete.
fn command() -> clap::Command {
    let kinds = ["search", "evaluate", "compare"];
    kinds.into_iter().fold(Cli::command(), |command, kind| command.mut_subcommand(kind, jobs::with_examples))
}

/// Parses the command line, runs the command, and says why it failed if it did.
pub fn run() -> ExitCode {
    match parse_and_run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            failure::report(&error);
            ExitCode::from(exit::FAILURE as u8)
        }
    }
}

fn parse_and_run() -> anyhow::Result<()> {
    let color = Early::of(std::env::args_os()).apply();
    let mut pba = environment::without_empty(command()).color(color);
    pba.build();
    let matches = pba.clone().try_get_matches();
    let cli = matches.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, sources::of(&matches))));
    let (cli, given) = cli.unwrap_or_else(|error| tell(&environment::blame(&pba, error)));
    cli.options.apply();
    let serves = matches!(cli.command, Command::Serve(_) | Command::Demo(_));
    log_to_stderr(serves, cli.options)?;
    if serves {
        trace::start()?;
        environment::check(&Cli::command())?;
    } else {
        environment::warn(&Cli::command());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(*args, &given).await,
            Command::Health(args) => health::run(args).await,
            Command::Stream(args) => stream::run(args).await,
            Command::Streams(args) => streams::run(args).await,
            Command::Demo(args) => demo::run(*args, &given).await,
            Command::Schedule(args) => schedule::run(args).await,
            Command::Dataset(args) => dataset::run(args).await,
            Command::Search(args) => search::run(args).await,
            Command::Evaluate(args) => evaluate::run(*args).await,
            Command::Compare(args) => compare::run(*args).await,
            Command::Token(args) => token::run(args),
            Command::Completions(args) => {
                completions::run(&args, command());
                Ok(())
            }
            Command::Man(args) => man::run(&args, command()),
        }
    });
    // Whatever still runs, such as a write to a disk that does not answer, ends with the process.
    runtime.shutdown_background();
    trace::flush();
    log::flush();
    done
}

/// Prints the requested help, or the error in the command line, and exits.
fn tell(error: &clap::Error) -> ! {
    if error.use_stderr() && options::is_json() {
        failure::report_usage(error);
        std::process::exit(exit::USAGE);
    }
    if error.use_stderr() && Format::chosen() == Format::Json {
        log::say(Level::ERROR, failure::of_usage(error));
        std::process::exit(exit::USAGE);
    }
    if let Err(failure) = error.print().and_then(|()| std::io::stdout().flush())
        && !error.use_stderr()
    {
        output::fail(&failure);
    }
    std::process::exit(error.exit_code());
}

/// Logs go to standard error, and a server's without anybody waiting for them; `RUST_LOG` sets the level,
/// `PBA_LOG_FORMAT` the format. Flags win over both: with `--json`, what a command logs is JSON too.
fn log_to_stderr(serves: bool, options: Options) -> anyhow::Result<()> {
    let filter = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = filter.trim().trim_end_matches(',');
    let filter = if filter.is_empty() { "warn,pba_client=info,pba_server=info" } else { filter };
    let filter = options.log_filter().unwrap_or(filter);
    let filter: Targets = filter.parse().with_context(|| {
        format!(
            "RUST_LOG: {filter:?} is not a log filter; expected levels by target, like warn,pba_server=debug"
        )
    })?;
    let format = std::env::var(log::FORMAT).unwrap_or_default();
    let format = Format::named(&format)
        .with_context(|| format!("{}: {format:?} is not a format; allowed are text and json", log::FORMAT))?;
    let format = if options::is_json() { Format::Json } else { format };
    if serves || format == Format::Json {
        log::take_panics();
    }
    let has_colors = style::is_colored(Stream::Error);
    let out = match serves {
        true => BoxMakeWriter::new(Log::start(format, has_colors)?),
        false => BoxMakeWriter::new(std::io::stderr),
    };
    let lines = log::layer(format, out, has_colors);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    Ok(())
}
