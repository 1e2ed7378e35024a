//! A server that may end at any moment, and what is asked of it then.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Download;
use crate::chaos::fault::HANG;
use crate::chaos::harm::{Column, Harm};
use crate::chaos::strace;
use crate::http::Answer;
use crate::metrics::Metrics;
use crate::server::{Process, Server, data_folder};

/// A running server.
pub(crate) struct Daemon {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) data: Arc<TempDir>,
}

/// How to start one.
#[derive(Clone)]
pub(crate) struct Launch {
    pub(crate) data: Arc<TempDir>,
    pub(crate) flags: Vec<String>,
    /// Expressions for strace, with its log.
    pub(crate) faults: Option<(Vec<String>, PathBuf)>,
    /// A program that runs the server, given its command line.
    pub(crate) wrapper: Vec<String>,
}

impl Launch {
    /// On a data directory of its own, in which the built-in dataset is drawn.
    pub(crate) fn new(flags: &[&str]) -> Launch {
        Launch::on(data_folder(), flags)
    }

    pub(crate) fn on(data: Arc<TempDir>, flags: &[&str]) -> Launch {
        let flags = flags.iter().map(ToString::to_string).collect();
        Launch { data, flags, faults: None, wrapper: Vec::new() }
    }

    fn command(&self) -> Command {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let plain = Server::command(self.data.path(), &flags);
        let command = match self.wrapper.split_first() {
            None => plain,
            Some((program, arguments)) => {
                let mut whole = Command::new(program);
                whole.args(arguments).arg(plain.get_program()).args(plain.get_args());
                crate::binary::take_surroundings(&mut whole, &plain);
                whole
            }
        };
        match &self.faults {
            None => command,
            Some((faults, log)) => strace::under(&command, faults, log),
        }
    }

    /// Starts the process.
    pub(crate) fn spawn(&self) -> Process {
        Process::run(self.command())
    }

    /// Waits until a started process listens; nothing when it ended.
    pub(crate) fn listening(&self, process: Process) -> Option<Daemon> {
        let line = process.line()?;
        let address = line.strip_prefix("listening on http://")?.parse().ok()?;
        Some(Daemon { process, address, data: Arc::clone(&self.data) })
    }

    /// Starts a server that has to start, and waits until it is ready.
    pub(crate) fn start(&self) -> Result<Daemon, Harm> {
        let mut process = self.spawn();
        match process.line() {
            Some(line) => match line.strip_prefix("listening on http://").map(str::parse) {
                Some(Ok(address)) => {
                    let daemon = Daemon { process, address, data: Arc::clone(&self.data) };
                    daemon.ready()?;
                    Ok(daemon)
                }
                _ => Err(Harm::new(Column::Other, format!("the server said {line:?}"))),
            },
            None => {
                let status = process.wait();
                Err(Harm::new(Column::Dead, format!("no start ({status}): {}", tail(&process.stderr()))))
            }
        }
    }
}

impl Daemon {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until all datasets are imported.
    pub(crate) fn ready(&self) -> Result<(), Harm> {
        wait("the server to be ready", || self.get("/readyz").is_ok_and(|answer| answer.status == 200))
    }

    pub(crate) fn send(&self, method: &str, target: &str, body: &[u8]) -> io::Result<Answer> {
        send(self.address, method, target, body)
    }

    pub(crate) fn get(&self, target: &str) -> io::Result<Answer> {
        self.send("GET", target, b"")
    }

    /// A number among the metrics.
    pub(crate) fn metric(&self, series: &str) -> io::Result<f64> {
        let answer = self.get("/metrics")?;
        if answer.status != 200 || !answer.complete {
            return Err(io::Error::other(format!("/metrics: {}", answer.status)));
        }
        Ok(Metrics::parse(&answer.text()).get(series))
    }

    /// Checks that the server still answers, that none of its threads has panicked, and that nothing is left over
    /// from clients that have gone.
    pub(crate) fn healthy(&mut self) -> Result<(), Harm> {
        self.alive()?;
        let idle = |series| move |daemon: &Daemon| daemon.metric(series).is_ok_and(|value| value == 0.0);
        for series in ["pba_streams_active", "pba_queue_depth", "pba_shared_memory_bytes"] {
            let idle = idle(series);
            wait(&format!("{series} to be 0"), || idle(self)).or_else(|harm| self.alive().and(Err(harm)))?;
        }
        match self.get("/livez") {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(Harm::new(Column::Dead, format!("/livez: {other:?}"))),
        }
    }

    /// Does something that fails as well when the server dies, which then is what is told.
    pub(crate) fn blamed<T>(&mut self, work: impl FnOnce(&mut Daemon) -> Result<T, Harm>) -> Result<T, Harm> {
        work(self).or_else(|harm| self.alive().and(Err(harm)))
    }

    /// Checks that the process lives and that no thread of it panicked.
    pub(crate) fn alive(&mut self) -> Result<(), Harm> {
        let log = self.process.stderr();
        if !self.process.is_running() {
            let status = self.process.wait();
            return Err(Harm::new(Column::Dead, format!("the server ended ({status}): {}", tail(&log))));
        }
        match log.find("panicked at") {
            // The process lives on, but this was not foreseen.
            Some(at) => Err(Harm::new(Column::Other, format!("a panic: {}", first_lines(&log[at..])))),
            None => Ok(()),
        }
    }

    /// Ends it with kill -9, and starts another in the same way.
    pub(crate) fn killed_and_restarted(mut self, launch: &Launch) -> Result<Daemon, Harm> {
        self.kill();
        launch.start()
    }

    pub(crate) fn kill(&mut self) {
        if self.process.is_running() {
            self.process.signal("KILL");
        }
        self.process.wait();
    }
}

/// Sends a request and reads the answer, whole or cut; a body is JSON.
pub(crate) fn send(address: SocketAddr, method: &str, target: &str, body: &[u8]) -> io::Result<Answer> {
    let json = [("content-type", "application/json")];
    let headers = if body.is_empty() { &[][..] } else { &json[..] };
    Ok(Download::open(address, method, target, headers, body)?.finish())
}

/// Looks until something is so; it hangs when it is not within a minute.
pub(crate) fn wait(what: &str, mut look: impl FnMut() -> bool) -> Result<(), Harm> {
    let deadline = Instant::now() + HANG;
    while !look() {
        if Instant::now() > deadline {
            return Err(Harm::new(Column::Hung, format!("waited {HANG:?} for {what}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The last lines of a log.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

fn first_lines(log: &str) -> String {
    log.lines().take(2).collect::<Vec<_>>().join(" | ")
}
