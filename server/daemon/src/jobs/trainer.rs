//! The child process that trains: how it is found, asked and started.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use pba_search::SearchSpec;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::error::Error;

/// Exit code of a trainer that refuses its spec.
const WRONG_SPEC: i32 = 2;
/// Exit code of a trainer that was told to stop.
pub(crate) const INTERRUPTED: i32 = 3;
const NAME: &str = "pba-trainer";

/// Where `pba-trainer` is.
#[derive(Clone, Debug)]
pub(crate) struct Trainer {
    program: PathBuf,
}

impl Trainer {
    /// The configured program, or the one beside this one.
    pub(crate) fn find(configured: Option<PathBuf>) -> Trainer {
        let beside = || std::env::current_exe().ok().map(|program| program.with_file_name(NAME));
        Trainer { program: configured.or_else(beside).unwrap_or_else(|| NAME.into()) }
    }

    /// The program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Whether it is there, as far as can be seen without running it.
    pub(crate) fn is_there(&self) -> bool {
        Trainer::fault(&self.program).is_none()
    }

    /// Why a configured program cannot be run, as far as can be seen without running it.
    pub(crate) fn fault(program: &Path) -> Option<String> {
        let what = match found(program).map(|found| found.metadata()) {
            None => "is in no folder of PATH".to_owned(),
            Some(Err(error)) => format!("cannot be run: {error}"),
            Some(Ok(metadata)) if metadata.is_dir() => "is a directory".to_owned(),
            Some(Ok(metadata)) if metadata.permissions().mode() & 0o111 == 0 => {
                "is not executable".to_owned()
            }
            Some(Ok(_)) => return None,
        };
        Some(format!("trainer: {} {what}", program.display()))
    }

    /// Asks a trainer whether it could run a spec.
    ///
    /// # Errors
    /// `400` with the field that is wrong, `503` when no trainer runs.
    pub(crate) async fn check(&self, spec: &SearchSpec, source: &str, cache: &Path) -> Result<(), Error> {
        let text = serde_json::to_string(spec).map_err(Error::internal)?;
        let mut child = self
            .command(source, cache)
            .args(["--spec", "-", "--check"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.missing(error))?;
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A trainer that ends before it reads says why on the other pipes.
        let _ = stdin.write_all(text.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await.map_err(Error::internal)?;
        if output.status.success() {
            return Ok(());
        }
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if output.status.code() == Some(WRONG_SPEC)
            && let Some(field) = answer["error"]["field"].as_str()
        {
            let message = answer["error"]["message"].as_str().unwrap_or_default();
            return Err(Error::field(field, message));
        }
        match answer["error"].as_str() {
            Some(message) => Err(Error::body(message)),
            None => Err(self.missing(String::from_utf8_lossy(&output.stderr).trim())),
        }
    }

    /// Starts a trainer in the folder of a search.
    pub(crate) fn start(&self, directory: &Path, source: &str, cache: &Path) -> anyhow::Result<Child> {
        self.command(source, cache)
            .arg("--spec")
            .arg(directory.join("spec.json"))
            .arg("--dir")
            .arg(directory)
            .arg("--parent")
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))
    }

    fn command(&self, source: &str, cache: &Path) -> Command {
        let mut command = Command::new(&self.program);
        // A panic says what and where in its first lines; those are what is shown.
        command.env("RUST_BACKTRACE", "0");
        command.args(["search", "--dataset", source, "--cache"]).arg(cache);
        command
    }

    /// What to do about a trainer that does not run.
    fn missing(&self, reason: impl std::fmt::Display) -> Error {
        Error::no_trainer(format!(
            "searches need {}, which does not run here: {reason}. Streams are not affected. Build it with `make build` \
             (without TRAINER=0; it fetches libtorch): once it is there, it is used. Or restart the server and say \
             where it is with --trainer PATH or PBA_TRAINER",
            self.program.display()
        ))
    }
}

/// Where the system finds a program: one that is named without a folder is looked for in `PATH`.
fn found(program: &Path) -> Option<PathBuf> {
    if program.parent() != Some(Path::new("")) {
        return Some(program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|place| place.is_file())
}
