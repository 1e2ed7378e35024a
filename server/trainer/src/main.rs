//! Trains populations: the only code that links libtorch.
//!
//! It is a child process of the server, so that a failure in libtorch, on a GPU or for lack of memory
//! ends one search and not the streams. It reports events as JSON lines on its standard output, which
//! [`pba_search::protocol::Line`] reads:
//!
//! ```text
//! {"event":"started","spec":{...},"dataset_digest":"5d2d..."}        once per run
//! {"event":"resumed","epoch":12,"events":17}                         or this, when it resumes
//! {"event":"device","device":"cpu","strategy":"sequential","threads":2}
//! {"event":"progress","epoch":3,"epochs":24,"fraction":0.14,...}     once a second
//! {"event":"scored","epoch":3,"scores":[0.24,0.19,null,0.23]}
//! {"event":"exploit","epoch":3,"target":1,"clone":0,...}
//! {"event":"checkpoint","epoch":3}
//! {"event":"done","winner":3,"score":0.46,"digest":"...","schedule":{...}}
//! ```
//!
//! The events of a run ([`pba_search::Event`], [`pba_search::EvaluationEvent`]) are also written to the
//! journal in its folder. The last line is the last event, `interrupted`, or `failed` with the reason; a
//! refused spec is reported as `{"error":{"field":"population","message":"..."}}` before anything
//! starts. Exit codes are in [`pba_search::protocol::exit`].

mod bench;
mod checkpoint;
mod cpu;
mod data;
mod device;
mod evaluate;
mod gpu;
mod members;
mod models;
mod network;
mod population;
mod report;
mod run_dir;
mod search;
mod signals;
mod torch;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use pba_search::protocol::{Line, Report, exit, flags};
use pba_search::{Evaluation, EvaluationSpec, ModelName, Run, Search, SearchSpec, Spec, SpecError, Strategy};
use serde_json::json;

use crate::signals::Interrupted;

/// How long a trainer whose server died may take to exit.
const PATIENCE: Duration = Duration::from_secs(60);

/// Trains populations and single models for the PBA server.
#[derive(Parser)]
#[command(name = "pba-trainer", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a search in a folder, or resume the one in it.
    #[command(name = Search::JOB.command)]
    Search {
        #[command(flatten)]
        work: Work,
        /// Folder of the run: journal, checkpoints, schedule.
        #[arg(long = flags::DIR, required_unless_present = "check")]
        dir: Option<PathBuf>,
    },
    /// Train one model from scratch with or without a schedule, and report its test error.
    #[command(name = Evaluation::JOB.command)]
    Evaluate {
        #[command(flatten)]
        work: Work,
        /// Folder of the run, needed to resume it: journal, checkpoints, and the schedule that the spec
        /// names.
        #[arg(long = flags::DIR)]
        dir: Option<PathBuf>,
        /// A schedule file, the name of a published schedule, or `none`: base augmentation only
        /// [default: the one that the spec names].
        #[arg(long)]
        schedule: Option<String>,
    },
    /// Measure the strategies on the available device.
    Bench {
        /// `all`, or the name of one strategy.
        #[arg(long, default_value = "all")]
        strategy: String,
        /// The network.
        #[arg(long, default_value_t)]
        model: ModelName,
        /// Members of the population.
        #[arg(long, default_value_t = 16)]
        population: u32,
        /// Steps that each member trains, twice: once to warm up, once to be measured.
        #[arg(long, default_value_t = 31)]
        steps: usize,
        /// Images that each member is scored with.
        #[arg(long, default_value_t = 1000)]
        val_size: usize,
        /// Images per step.
        #[arg(long, default_value_t = 128)]
        batch_size: u32,
        /// Device: auto, cpu, cuda or cuda:N.
        #[arg(long, default_value = "auto")]
        device: String,
    },
    /// Print the devices as JSON.
    Devices,
}

/// Arguments that searches and evaluations share.
#[derive(Args)]
struct Work {
    /// The spec, a JSON object: a file, or `-` for standard input.
    #[arg(long = flags::SPEC)]
    spec: String,
    /// The dataset: `shapes`, a packed folder, or a path in any supported format.
    #[arg(long = flags::DATASET)]
    dataset: PathBuf,
    /// Folder that caches decoded datasets [default: cache in the run folder, or pba-trainer in the
    /// system's folder for temporary files].
    #[arg(long = flags::CACHE)]
    cache: Option<PathBuf>,
    /// Only check whether it could start.
    #[arg(long = flags::CHECK)]
    check: bool,
    /// Continue when the parent process dies.
    #[arg(long)]
    detached: bool,
    /// Id of the parent process. If it has already exited, nothing starts. If another trainer uses the
    /// folder, such as one whose parent was killed, this one waits for it.
    #[arg(long = flags::PARENT, conflicts_with = "detached")]
    parent: Option<i32>,
}

impl Work {
    fn text(&self) -> anyhow::Result<String> {
        match self.spec.as_str() {
            flags::STDIN => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("cannot read the spec from stdin")?;
                Ok(text)
            }
            path => std::fs::read_to_string(path).with_context(|| format!("cannot read the spec {path}")),
        }
    }

    /// How long the run folder may stay locked: a server that was killed and restarted starts a trainer
    /// while its previous trainer is still exiting.
    fn patience(&self) -> Duration {
        if self.parent.is_some() { PATIENCE } else { Duration::ZERO }
    }

    fn cache(&self, run_dir: Option<&Path>) -> PathBuf {
        match (&self.cache, run_dir) {
            (Some(cache), _) => cache.clone(),
            (None, Some(run_dir)) => run_dir.join("cache"),
            (None, None) => std::env::temp_dir().join("pba-trainer"),
        }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(error) = error.downcast_ref::<SpecError>() {
                report::tell(&Line::<()>::Refused { error: error.into() });
                ExitCode::from(exit::WRONG_SPEC)
            } else if error.is::<Interrupted>() {
                report::tell(&Report::Interrupted);
                ExitCode::from(exit::INTERRUPTED)
            } else {
                report::tell(&Report::Failed { error: format!("{error:#}") });
                eprintln!("error: {error:#}");
                ExitCode::from(exit::FAILED)
            }
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Search { work, dir } => {
            let spec = SearchSpec::from_json(&work.text()?)?;
            signals::install(work.parent, !work.detached);
            let checked = search::check(spec, &work.dataset, &work.cache(dir.as_deref()))?;
            match dir {
                Some(dir) if !work.check => search::search(checked, &dir, work.patience()),
                _ => Ok(()),
            }
        }
        Command::Evaluate { work, dir, schedule } => {
            let spec = EvaluationSpec::from_json(&work.text()?)?;
            signals::install(work.parent, !work.detached);
            // With --check, the schedule that the spec names may be put in the folder later.
            let schedule = match &schedule {
                None if work.check => None,
                given => evaluate::schedule(given.as_deref(), &spec, dir.as_deref())?,
            };
            let checked = evaluate::check(spec, &work.dataset, &work.cache(dir.as_deref()))?;
            match work.check {
                false => evaluate::evaluate(checked, schedule, dir.as_deref(), work.patience()),
                true => Ok(()),
            }
        }
        Command::Bench { strategy, model, population, steps, val_size, batch_size, device } => {
            let spec = SearchSpec::from_json(
                &json!({
                    "model": model, "population": population, "device": device, "batch_size": batch_size,
                    "strategy": if strategy == "all" { "auto" } else { &strategy },
                })
                .to_string(),
            )?;
            let strategies = match strategy.as_str() {
                "all" => Strategy::ALL.map(|(strategy, _)| strategy)[1..].to_vec(),
                _ => vec![spec.strategy],
            };
            bench::bench(&spec, &strategies, steps.max(1), val_size.max(1))
        }
        Command::Devices => {
            report::line(&format!("{:#}", device::list()));
            Ok(())
        }
    }
}
