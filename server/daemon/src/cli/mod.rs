//! The command line: `pba serve|stream|demo|schedule|dataset|search`, one module each.

pub mod bar;
mod dataset;
mod demo;
mod output;
mod remote;
mod schedule;
mod search;
mod serve;
mod stream;

use std::io::IsTerminal;

use clap::{Parser, Subcommand};

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
    Serve(crate::config::ServeArgs),
    /// Read one epoch from a server, with a progress bar
    Stream(stream::Args),
    /// Everything at once: a server, the built-in dataset, one epoch through the client
    Demo(demo::Args),
    /// List, show, import, export, plot and delete schedules
    Schedule(schedule::Args),
    /// List, show and preview datasets
    Dataset(dataset::Args),
    /// Learn a schedule: start, watch, cancel and resume population searches
    Search(search::Args),
}

/// Parses the command line and does what it says.
///
/// # Errors
/// When that fails; the error says at what.
pub fn run() -> anyhow::Result<()> {
    let cli = Cli::parse();
    log_to_stderr();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Stream(args) => stream::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Schedule(args) => schedule::run(args).await,
            Command::Dataset(args) => dataset::run(args).await,
            Command::Search(args) => search::run(args).await,
        }
    })
}

/// Logs go to standard error; `RUST_LOG` says how much, `PBA_LOG_FORMAT=json` how.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "warn,pba_server=info".into());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::env::var("PBA_LOG_FORMAT").is_ok_and(|format| format == "json") {
        subscriber.json().init();
    } else {
        subscriber.with_target(false).with_ansi(std::io::stderr().is_terminal()).init();
    }
}
