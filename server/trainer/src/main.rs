//! Does the work of jobs: the only code that links libtorch.
//!
//! It is a child process of the server, so that a failure in libtorch, on a GPU or for lack of memory
//! ends one job and not the streams. It reports events as JSON lines on its standard output, which
//! [`pba_search::protocol::Line`] reads; those of a search are:
//!
//! ```text
//! {"event":"started","spec":{...},"dataset_digest":"5d2d..."}        once per run
//! {"event":"resumed","epoch":12,"events":17}                         or this, when it resumes
//! {"event":"device","device":"cpu","strategy":"sequential","precision":"fp32","threads":2,"note":null}
//! {"event":"progress","epoch":3,"epochs":24,"fraction":0.14,...}     once a second
//! {"event":"scored","epoch":3,"scores":[0.24,0.19,null,0.23]}
//! {"event":"finished","epoch":3}                                     when it is asked to end here
//! {"event":"exploit","epoch":3,"target":1,"clone":0,...}
//! {"event":"checkpoint","epoch":3}
//! {"event":"saved","epoch":3}                                        every 30 s or so
//! {"event":"done","winner":3,"score":0.46,"digest":"...","schedule":{...}}
//! ```
//!
//! The events of a run ([`pba_search::Event`], [`pba_search::EvaluationEvent`]) are also written to the
//! journal in its folder. The last line is the last event, `interrupted`, or `failed` with the reason; a
//! refused spec is reported as `{"error":{"field":"population","message":"..."}}` before anything
//! starts. Exit codes are in [`pba_search::protocol::exit`].

mod bench;
mod checkpoint;
mod checkpoints;
mod cpu;
mod data;
mod device;
mod disk;
mod estimate;
mod gpu;
mod job;
mod members;
mod models;
mod network;
mod population;
mod report;
mod run_dir;
mod schedules;
mod signals;
mod torch;
mod work;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pba_search::protocol::{Line, Report, exit};
use pba_search::{Run, SpecError};

use crate::gpu::cuda;
use crate::signals::Interrupted;
use crate::torch::DeviceFault;

/// Trains populations and single models for the PBA server.
#[derive(Parser)]
#[command(name = "pba-trainer", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The files of the kinds of job, and their subcommands.
macro_rules! jobs {
    ($($kind:ident in $file:ident),*) => {
        $(mod $file;)*

        #[derive(Subcommand)]
        enum Kind {
            $(
                #[command(name = pba_search::$kind::JOB.command)]
                $kind($file::Args),
            )*
        }

        impl Kind {
            fn run(self) -> anyhow::Result<()> {
                match self {
                    $(Kind::$kind(args) => $file::run(args),)*
                }
            }
        }
    };
}

pba_search::kinds!(jobs);

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Job(Kind),
    Bench(Box<bench::Args>),
    /// Print the devices as JSON.
    #[command(name = pba_search::protocol::DEVICES)]
    Devices,
}

fn main() -> ExitCode {
    cuda::allow_many_streams();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(error) = error.downcast_ref::<SpecError>() {
                report::tell(&Line::<()>::Refused { error: error.into() });
                ExitCode::from(exit::WRONG_SPEC)
            } else if error.is::<DeviceFault>() {
                // Said as a crash is: the process that started this one starts it again.
                eprintln!("error: {error:#}");
                ExitCode::from(exit::CRASHED)
            } else if error.is::<Interrupted>() {
                report::tell(&Report::Interrupted);
                ExitCode::from(exit::INTERRUPTED)
            } else {
                report::tell(&Report::Failed { error: format!("{error:#}") });
                eprintln!("error: {error:#}");
                ExitCode::from(disk::exit_code(&error))
            }
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Job(kind) => kind.run(),
        Command::Bench(args) => bench::run(*args),
        Command::Devices => {
            report::line(&format!("{:#}", device::list()));
            Ok(())
        }
    }
}
