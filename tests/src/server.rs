//! A running `pba serve`.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::binary;
use crate::epoch::Epoch;
use crate::http::{self, Answer, Download};
use crate::metrics::Metrics;
use crate::{PATIENCE, wait_for};

/// Time that what a process has said last may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A child process whose output is read as it comes. Dropping it ends the process.
pub struct Process {
    child: Child,
    lines: Mutex<Receiver<String>>,
    stderr: Arc<Mutex<String>>,
    /// Reads standard error to its end.
    reading: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `pba` in a directory.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(directory: &Path, arguments: &[&str]) -> Process {
        Process::run(binary::command(directory, arguments))
    }

    /// Starts a command.
    ///
    /// # Panics
    /// When it does not start.
    pub fn run(mut command: Command) -> Process {
        command.stderr(Stdio::piped());
        Process::run_logging(command)
    }

    /// The same with the standard error that the command has.
    ///
    /// # Panics
    /// When it does not start.
    pub fn run_logging(mut command: Command) -> Process {
        command.stdout(Stdio::piped());
        let mut child = command.spawn().expect("pba starts");
        let (send, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let reading = child.stderr.take().map(|mut pipe| {
            let text = Arc::clone(&stderr);
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut bytes) {
                    text.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
                }
            })
        });
        Process { child, lines: Mutex::new(lines), stderr, reading }
    }

    /// The next line on standard output; none when there are no more.
    ///
    /// # Panics
    /// When neither comes within [`PATIENCE`].
    #[track_caller]
    pub fn line(&self) -> Option<String> {
        match self.lines.lock().unwrap().recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line within {PATIENCE:?}: {}", self.stderr()),
        }
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Sends a signal by name, as `TERM`.
    ///
    /// # Panics
    /// When the process is gone.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let status = std::process::Command::new("sh").args(["-c", &kill]).status().expect("sh runs");
        assert!(status.success(), "{kill}");
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it does not come within [`PATIENCE`].
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait_for("the end of pba", || self.child.try_wait().expect("a child can be waited for"));
        // Its last words; but what it has started may hold the pipe for longer.
        let deadline = Instant::now() + LAST_WORDS;
        while self.reading.as_ref().is_some_and(|reading| !reading.is_finished()) && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        status
    }

    /// Waits until it has ended, even if its tracer keeps it from being waited for.
    ///
    /// # Panics
    /// When that does not come within [`PATIENCE`].
    #[track_caller]
    pub fn wait_for_exit(&self) {
        let status = format!("/proc/{}/status", self.child.id());
        wait_for("the end of pba", || match std::fs::read_to_string(&status) {
            Ok(text) => text.contains("\nState:\tZ").then_some(()),
            Err(_) => Some(()),
        });
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- standard error of pba {}:\n{}---", self.child.id(), self.stderr());
        }
    }
}

/// A running server.
pub struct Server {
    /// The process.
    pub process: Process,
    address: SocketAddr,
    data: Arc<TempDir>,
}

impl Server {
    /// Starts a server with flags, and a data directory in which the built-in dataset is drawn
    /// already.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start(flags: &[&str]) -> Server {
        Server::start_on(data_folder(), flags)
    }

    /// Starts a server with flags on the data directory of another, which may have ended, and waits until
    /// it is ready.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start_on(data: Arc<TempDir>, flags: &[&str]) -> Server {
        Server::of(Server::spawn(data.path(), flags), data)
    }

    /// Starts a server by a command of its own on a data directory, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn run(command: Command, data: Arc<TempDir>) -> Server {
        Server::of(Process::run(command), data)
    }

    /// The server that a process is, once it is ready.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn of(process: Process, data: Arc<TempDir>) -> Server {
        let line = process.line().unwrap_or_else(|| panic!("the server ended: {}", process.stderr()));
        let address = line.strip_prefix("listening on http://").and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("not the promised first line: {line:?}"));
        let server = Server { process, address, data };
        wait_for("the datasets to be imported", || (server.get("/readyz").status == 200).then_some(()));
        server
    }

    /// Starts a server, and does not wait for it.
    pub fn spawn(data: &Path, flags: &[&str]) -> Process {
        Process::run(Server::command(data, flags))
    }

    /// The command that starts a server.
    pub fn command(data: &Path, flags: &[&str]) -> Command {
        let data_dir = data.to_str().expect("temporary paths are text");
        let fixed = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir];
        binary::command(data, &[&fixed, flags].concat())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its data directory, which lives as long as it is held.
    pub fn data(&self) -> Arc<TempDir> {
        Arc::clone(&self.data)
    }

    /// Runs a client command of `pba` against this server.
    pub fn pba(&self, arguments: &[&str]) -> binary::Pba {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut command = binary::command(directory.path(), arguments);
        command.env("PBA_SERVER", self.url()).output().expect("pba starts").into()
    }

    /// Sends a request and reads the answer, whole or cut.
    #[track_caller]
    pub fn send(&self, method: &str, target: &str, body: &[u8]) -> Answer {
        Download::open(self.address, method, target, &[], body).expect("the server answers").finish()
    }

    /// Gets a page.
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        self.send("GET", target, b"")
    }

    /// Begins to get a page, and leaves its body unread.
    #[track_caller]
    pub fn download(&self, target: &str) -> Download {
        Download::open(self.address, "GET", target, &[], b"").expect("the server answers")
    }

    /// Reads an epoch to its end; the target is relative to `/v1/datasets/`.
    ///
    /// # Panics
    /// When it is refused, or does not come whole.
    #[track_caller]
    pub fn epoch(&self, target: &str) -> Epoch {
        self.epoch_with(target, &[])
    }

    /// As [`Server::epoch`], with headers.
    ///
    /// # Panics
    /// As [`Server::epoch`].
    #[track_caller]
    pub fn epoch_with(&self, target: &str, headers: &[(&str, &str)]) -> Epoch {
        let target = format!("/v1/datasets/{target}");
        let download = Download::open(self.address, "GET", &target, headers, b"");
        let answer = download.expect("the server answers").finish();
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/vnd.apache.arrow.stream"));
        assert!(answer.complete, "{target}: cut after {} bytes", answer.body.len());
        Epoch::decode(answer.body)
    }

    /// Every metric as it stands.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.text());
        Metrics::parse(&answer.text())
    }

    /// One series, as `pba_requests_total{route="/livez",status="200"}`; 0 when there is none.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        self.metrics().get(series)
    }

    /// Checks that it serves, and holds nothing for clients that are gone.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn assert_healthy(&self) {
        assert_eq!(self.get("/livez").status, 200);
        assert_eq!(self.get("/readyz").status, 200);
        wait_for("the last stream to end", || (self.metric("pba_streams_active") == 0.0).then_some(()));
        wait_for("the last job to be done", || (self.metric("pba_queue_depth") == 0.0).then_some(()));
        assert_eq!(self.epoch("shapes/epochs/0/batches?split=test&shard=0/50").indices().len(), 40);
        let log = self.process.stderr();
        assert!(!log.contains("panicked"), "the server panicked:\n{log}");
    }

    /// Sends raw bytes in pieces, and reads what comes back until the server closes. The client
    /// keeps its side open meanwhile.
    #[track_caller]
    pub fn raw_open(&self, pieces: &[&[u8]]) -> Vec<u8> {
        http::raw_open(self.address, pieces)
    }

    /// Sends raw bytes and nothing more ever, and reads what comes back until the server closes.
    #[track_caller]
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        http::raw(self.address, bytes)
    }
}

/// A new data directory with the built-in dataset in it.
pub fn data_folder() -> Arc<TempDir> {
    let drawn = drawn_shapes();
    let folder = empty_data_folder();
    link_all(&drawn, &folder.path().join("datasets"));
    folder
}

/// A new data directory with nothing in it.
pub fn empty_data_folder() -> Arc<TempDir> {
    // Beside the drawn dataset, so that its files can be linked.
    let folder = tempfile::Builder::new().prefix("data-").tempdir_in(binary::kept_folder());
    Arc::new(folder.expect("a directory can be made in target"))
}

/// The built-in dataset as this very binary draws it, which takes seconds: it is drawn once and
/// linked into each server's data directory. Packed files are never written to again.
fn drawn_shapes() -> PathBuf {
    static DRAWN: OnceLock<PathBuf> = OnceLock::new();
    let draw = || {
        let binary = binary::path().metadata().expect("the binary is there");
        let modified = binary.modified().expect("the file system keeps times");
        let modified = modified.duration_since(std::time::UNIX_EPOCH).expect("it is after 1970");
        let drawn = binary::kept_folder().join(format!("shapes-{}-{}", binary.len(), modified.as_nanos()));
        if drawn.exists() {
            return drawn;
        }
        remove_drawn_by_older_binaries();
        let data = empty_data_folder();
        let server = Server::start_on(Arc::clone(&data), &[]);
        drop(server);
        // Another test process may have been faster; its pictures are the same.
        if let Err(error) = std::fs::rename(data.path().join("datasets"), &drawn) {
            assert!(drawn.exists(), "{error}");
        }
        drawn
    };
    DRAWN.get_or_init(draw).clone()
}

/// So that `target` does not grow with every build. Servers that still use them hold links.
fn remove_drawn_by_older_binaries() {
    for entry in std::fs::read_dir(binary::kept_folder()).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("shapes-") {
            // Another test process may remove it at the same time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn link_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory can be made in target");
    for entry in std::fs::read_dir(from).expect("it was made just now") {
        let (from, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if from.is_dir() {
            link_all(&from, &to);
        } else {
            std::fs::hard_link(&from, &to)
                .or_else(|_| std::fs::copy(&from, &to).map(|_| ()))
                .expect("a file can be linked or copied in target");
        }
    }
}
