//! How a server ends, and every bound of time on the way there.
//!
//! ```text
//! SIGTERM  /readyz answers 503, jobs are told to save
//!    |     drain_delay_seconds, for load balancers to notice; none after SIGINT
//!    v
//! drain    new streams are refused
//!    |     drain_seconds at most, until the last stream has ended; and until LAST_JOBS after the signal
//!    v
//! end      LAST_REQUESTS for answers under way, LAST_ENTRIES for the audit log, LAST_SPANS for traces, LAST_LINES for the log
//! ```
//!
//! By default that is less than the 30 seconds that Kubernetes gives, as a test below adds up. For operators, README.md has
//! the bound.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Cause, Error};

/// How often a draining server checks whether it is done.
pub(crate) const DRAIN_POLL: Duration = Duration::from_millis(50);
/// Time that a trainer gets to finish its step, save and stop, before it is killed.
pub(crate) const TRAINER_STOP: Duration = Duration::from_secs(20);
/// Time from the signal until the server leaves jobs behind that do not end, beside the delay and the drain: what
/// trainers get, and some for what is written after them.
pub(crate) const LAST_JOBS: Duration = Duration::from_secs(25);
/// Time that other requests get to finish after the streams have ended.
pub(crate) const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// The signal that stops a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// SIGTERM, of a supervisor, which may have load balancers to tell.
    Terminate,
    /// SIGINT, of a person at a terminal.
    Interrupt,
}

impl Stop {
    /// How long new streams are still accepted, given how long load balancers need.
    pub(crate) fn delay(self, drain_delay_seconds: u64) -> Duration {
        match self {
            Stop::Terminate => Duration::from_secs(drain_delay_seconds),
            Stop::Interrupt => Duration::ZERO,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Stop::Terminate => "SIGTERM",
            Stop::Interrupt => "SIGINT",
        }
    }

    /// The exit code of a process that the signal ended at once.
    fn exit_code(self) -> i32 {
        match self {
            Stop::Terminate => 128 + libc::SIGTERM,
            Stop::Interrupt => 128 + libc::SIGINT,
        }
    }
}

/// Done at the first SIGTERM or SIGINT; the second ends the process at once, with the exit code of its signal.
///
/// # Errors
/// When the system refuses to watch for them.
pub(crate) fn stop_signal() -> anyhow::Result<impl Future<Output = Stop>> {
    stop_signal_once(Arc::new(AtomicBool::new(true)))
}

/// The same of a server. The first one ends the process, too, as long as the server starts, which may take long and has nothing to save: without that, the first
/// process of a container would not even hear it.
///
/// # Errors
/// When the system refuses to watch for them.
pub(crate) fn stop_signal_once(has_started: Arc<AtomicBool>) -> anyhow::Result<impl Future<Output = Stop>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! { _ = terminate.recv() => Stop::Terminate, _ = interrupt.recv() => Stop::Interrupt }
        };
        let first = next().await;
        if !has_started.load(Ordering::Relaxed) {
            crate::log::last_words(format_args!("ended by {} before the server had started", first.name()));
            std::process::exit(first.exit_code());
        }
        // The server may have ended by itself.
        let _ = stop.send(first);
        std::process::exit(next().await.exit_code());
    });
    Ok(async {
        match stopped.await {
            Ok(stop) => stop,
            // The runtime ends, and all of its tasks with it.
            Err(_) => std::future::pending().await,
        }
    })
}

/// How far a server is on its way to its end.
#[derive(Default)]
pub(crate) struct Stage(AtomicU8);

const SERVING: u8 = 0;
const LEAVING: u8 = 1;
const DRAINING: u8 = 2;

impl Stage {
    /// It was told to stop.
    pub(crate) fn leave(&self) {
        self.0.fetch_max(LEAVING, Ordering::Relaxed);
    }

    /// It takes no new streams any more.
    pub(crate) fn drain(&self) {
        self.0.fetch_max(DRAINING, Ordering::Relaxed);
    }

    /// What people should know of it, once it was told to stop.
    pub(crate) fn notice(&self) -> Option<&'static str> {
        match self.0.load(Ordering::Relaxed) {
            SERVING => None,
            LEAVING => {
                Some("This server is shutting down: it starts no jobs, and is about to take no new streams.")
            }
            _ => Some("This server is shutting down: it takes no new streams and starts no jobs."),
        }
    }

    /// Checks that the server was not told to stop.
    ///
    /// # Errors
    /// When it was.
    pub(crate) fn check_serving(&self) -> Result<(), Error> {
        match self.0.load(Ordering::Relaxed) {
            SERVING => Ok(()),
            _ => Err(Error::new(
                Cause::Draining,
                "the server is shutting down; it starts no jobs, and is about to take no new streams; use another replica",
            )),
        }
    }

    /// Checks that new streams are taken.
    ///
    /// # Errors
    /// When they are not any more.
    pub(crate) fn check_takes_streams(&self) -> Result<(), Error> {
        match self.0.load(Ordering::Relaxed) {
            SERVING | LEAVING => Ok(()),
            _ => {
                let detail = "the server is shutting down and takes no new streams; use another replica";
                Err(Error::new(Cause::Draining, detail))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ServeArgs};

    /// What Kubernetes gives by default, after which it kills.
    const GRACE: Duration = Duration::from_secs(30);
    /// What README.md says that all of it takes at most after drain and jobs.
    const AFTER: Duration = Duration::from_secs(5);

    #[test]
    fn the_defaults_end_within_the_grace_period() {
        let limits = Config::resolve(&ServeArgs::default()).unwrap().limits;
        let drained = Duration::from_secs(limits.drain_delay_seconds + limits.drain_seconds);
        let last =
            [LAST_REQUESTS, crate::audit::LAST_ENTRIES, crate::trace::LAST_SPANS, crate::log::LAST_LINES];
        let after = last.iter().sum::<Duration>();
        assert!(after < AFTER, "{after:?}");
        let most = drained.max(LAST_JOBS) + after;
        assert!(most < GRACE, "{most:?}");
        assert_eq!(LAST_JOBS.as_secs(), 25, "README.md says so");
        assert!(TRAINER_STOP < LAST_JOBS);
    }

    #[test]
    fn streams_are_taken_longer_than_jobs() {
        let stage = Stage::default();
        let takes = || (stage.check_serving().is_ok(), stage.check_takes_streams().is_ok());
        assert_eq!((takes(), stage.notice()), ((true, true), None));
        stage.leave();
        assert_eq!(takes(), (false, true));
        assert!(stage.notice().is_some_and(|notice| notice.contains("is about to take no new streams")));
        stage.drain();
        assert_eq!(takes(), (false, false));
        assert!(stage.notice().is_some_and(|notice| notice.contains("it takes no new streams")));
        stage.leave();
        assert_eq!(takes(), (false, false), "there is no way back");
    }
}
