//! System calls that fail, wait or kill, by `strace` on the unmodified binary.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::chaos::harm::{Harm, harness};

/// Why there is no strace here; none when there is one that can inject.
pub(crate) fn missing() -> Option<String> {
    use std::sync::OnceLock;
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let look = || {
        let output = Command::new("strace")
            .args(["-qq", "-o", "/dev/null", "-e", "inject=chdir:retval=0", "true"])
            .output();
        match output {
            Ok(output) if output.status.success() => may_not_attach(),
            Ok(output) => Some(format!("strace cannot inject: {}", String::from_utf8_lossy(&output.stderr))),
            Err(error) => Some(format!("there is no strace: {error}")),
        }
    };
    MISSING.get_or_init(look).clone()
}

/// Some systems let a process trace its own children only.
fn may_not_attach() -> Option<String> {
    let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().ok()?;
    let attached = Tracer::attach(child.id(), &[], Path::new("/dev/null")).map(drop);
    // It may have ended with its tracer.
    let _ = child.kill();
    let _ = child.wait();
    attached.err().map(|harm| harm.seen)
}

/// A command with faults in its system calls and those of its children. The process that is started is the
/// command itself, and strace watches from aside. What was injected is in `log`.
pub(crate) fn under(command: &Command, faults: &[String], log: &Path) -> Command {
    let mut whole = Command::new("strace");
    whole.args(["-D", "-f", "-qq", "-o"]).arg(log);
    push(&mut whole, faults);
    whole.arg("--").arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    crate::binary::take_surroundings(&mut whole, command);
    whole
}

/// Gives strace expressions, and paths, as `path=...`, that faults are restricted to.
fn push(command: &mut Command, faults: &[String]) {
    for fault in faults {
        match fault.strip_prefix("path=") {
            Some(path) => command.args(["-P", path]),
            None => command.args(["-e", fault]),
        };
    }
}

/// How long a tracer watches. strace 6.1 forgets a process now and then that is forked while it attaches: with
/// the tracer it stops standing still, and so does what waits for it. Nothing that is injected takes this long.
const WATCHES_MAX: Duration = Duration::from_secs(50);

/// A tracer of a running process. Dropping it lets the process go on alone.
pub(crate) struct Tracer {
    child: Child,
    log: PathBuf,
    /// Closed when it is no longer needed.
    _needed: Sender<()>,
}

impl Tracer {
    /// Attaches to all threads of a process.
    pub(crate) fn attach(process: u32, faults: &[String], log: &Path) -> Result<Tracer, Harm> {
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &process.to_string(), "-o"]).arg(log);
        push(&mut command, faults);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| harness!("strace: {error}"))?;
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        // It says so once it has all threads, and ends otherwise.
        while !line.contains(" attached") {
            line.clear();
            if stderr.read_line(&mut line).unwrap_or(0) == 0 {
                let _ = child.wait();
                return Err(harness!("strace does not attach to {process}"));
            }
        }
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        let (needed, over) = channel::<()>();
        let process = child.id();
        std::thread::spawn(move || {
            if over.recv_timeout(WATCHES_MAX) == Err(RecvTimeoutError::Timeout) {
                crate::search::signal(process, "KILL");
            }
        });
        Ok(Tracer { child, log: log.to_owned(), _needed: needed })
    }

    /// Detaches, and says how many calls were tampered with.
    pub(crate) fn detach(self) -> usize {
        let log = self.log.clone();
        drop(self);
        injected(&log)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        crate::search::signal(self.child.id(), "INT");
        let _ = self.child.wait();
    }
}

/// How many calls were tampered with, by a log.
pub(crate) fn injected(log: &Path) -> usize {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().filter(|line| line.contains("(INJECTED)") || line.contains("(DELAYED)")).count()
}
