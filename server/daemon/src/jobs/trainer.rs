//! The child process that trains: finding, asking and starting it.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::Context;
use pba_search::protocol::{DEVICES, Device, Devices, Images, Line, Report, Task, arguments, exit, files};
use pba_search::{DeviceChoice, Run};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::error::{Cause, Error};
use crate::jobs::entry::Source;

const NAME: &str = "pba-trainer";
/// Time that a trainer gets to say what devices there are; it loads libtorch for that.
const DEVICES_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that a trainer gets to say whether it could run a spec; it opens the dataset for that.
const CHECK_TIMEOUT: Duration = Duration::from_secs(300);
/// Most bytes of an answer that are read of each pipe.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Where the dynamic linker looks first.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// The location of `pba-trainer`.
#[derive(Clone, Debug)]
pub(crate) struct Trainer {
    program: PathBuf,
    /// The folder with the libtorch that it runs with, if not its own.
    libtorch: Option<PathBuf>,
    /// Seconds from one save of the models to the next, if not as it chooses.
    save_seconds: Option<u32>,
}

impl Trainer {
    /// The configured program, or the one next to this program.
    pub(crate) fn find(
        configured: Option<PathBuf>,
        libtorch: Option<PathBuf>,
        save_seconds: Option<u32>,
    ) -> Trainer {
        let beside = || std::env::current_exe().ok().map(|program| program.with_file_name(NAME));
        let program = configured.or_else(beside).unwrap_or_else(|| NAME.into());
        Trainer { program, libtorch, save_seconds }
    }

    /// The program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Whether it exists, as far as can be checked without running it.
    pub(crate) fn is_there(&self) -> bool {
        Trainer::fault(&self.program).is_none()
    }

    /// Why a configured program cannot be run, as far as can be checked without running it.
    pub(crate) fn fault(program: &Path) -> Option<String> {
        let what = match found(program).map(|found| found.metadata()) {
            None => "is not in PATH".to_owned(),
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
    /// When a field is wrong, or no trainer can run.
    pub(crate) async fn check<R: Run>(
        &self,
        spec: &R::Spec,
        source: &Source,
        cache: &Path,
    ) -> Result<(), Error> {
        let text = serde_json::to_string(spec).map_err(Error::internal)?;
        let missing = |reason: &dyn std::fmt::Display| self.missing(R::JOB.plural, reason);
        let mut child = self
            .command::<R>(Task::Check, source, cache)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| missing(&error))?;
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A trainer that ends before it reads reports why on the other pipes.
        let _ = timeout(CHECK_TIMEOUT, stdin.write_all(text.as_bytes())).await;
        drop(stdin);
        let output = output(child, CHECK_TIMEOUT).await.map_err(|error| missing(&error))?;
        if output.status.success() {
            return Ok(());
        }
        match serde_json::from_slice(&output.stdout) {
            Ok(Line::<R::Event>::Refused { error })
                if output.status.code() == Some(exit::WRONG_SPEC.into()) =>
            {
                Err(Error::field(&error.field, &error.message))
            }
            // What is asked was right: no field is named.
            Ok(Line::Report(Report::Failed { error })) => {
                let cause = match output.status.code().and_then(|code| u8::try_from(code).ok()) {
                    Some(exit::DISK_FULL) => Cause::DiskFull,
                    Some(exit::BROKEN_DATASET) => Cause::BrokenDataset,
                    _ => Cause::Internal,
                };
                tracing::error!(error, "a job cannot be checked");
                Err(Error::new(cause, error))
            }
            _ => match String::from_utf8_lossy(&output.stderr).trim() {
                "" => Err(missing(&output.status)),
                reason => Err(missing(&reason)),
            },
        }
    }

    /// Starts a trainer on a spec in the folder of a job, where `auto` as its device means that one.
    ///
    /// # Errors
    /// When the spec cannot be written, or the trainer does not start.
    pub(crate) fn start<R: Run>(
        &self,
        spec: &R::Spec,
        dir: &Path,
        source: &Source,
        cache: &Path,
        auto: Option<DeviceChoice>,
    ) -> anyhow::Result<Child> {
        let path = dir.join(files::SPEC);
        pba_files::replace(&path, &serde_json::to_vec_pretty(spec)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        // Without it the trainer would run with its own, which may know no GPU.
        if let Some(folder) = self.libtorch.as_ref().filter(|folder| !folder.exists()) {
            anyhow::bail!("libtorch: {} is gone", folder.display());
        }
        let (parent, save_seconds) = (std::process::id(), self.save_seconds);
        let task = Task::Run { dir, parent, auto, save_seconds };
        self.command::<R>(task, source, cache)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))
    }

    /// How many GPUs it can train on; none if it does not say.
    pub(crate) async fn gpus(&self) -> Option<u32> {
        let mut command = self.process();
        command.arg(DEVICES).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let told = match command.stdout(Stdio::piped()).spawn() {
            Ok(child) => output(child, DEVICES_TIMEOUT).await.map(|output| output.stdout),
            Err(error) => Err(error),
        };
        let told = told.map_err(anyhow::Error::from);
        let devices = told.and_then(|text| Ok(serde_json::from_slice::<Devices>(&text)?.devices));
        let devices = devices.inspect_err(|error| {
            let trainer = self.program.display();
            tracing::warn!(%trainer, error = %format!("{error:#}"), "the trainer does not say what GPUs there are");
        });
        let is_gpu = |device: &&Device| device.device != DeviceChoice::Cpu.to_string();
        Some(devices.ok()?.iter().filter(is_gpu).count() as u32)
    }

    /// The program with its libtorch.
    fn process(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(folder) = &self.libtorch {
            // Goes before the program's own run path.
            let others = std::env::var_os(LIBRARY_PATH).unwrap_or_default();
            let folders = [folder.clone()].into_iter().chain(std::env::split_paths(&others));
            let list = std::env::join_paths(folders).expect("a folder that was checked has no colon");
            command.env(LIBRARY_PATH, list);
        }
        command
    }

    fn command<R: Run>(&self, task: Task<'_>, source: &Source, cache: &Path) -> Command {
        let mut command = self.process();
        // The first lines of a panic name the error and its location; those are shown.
        command.env("RUST_BACKTRACE", "0");
        let Source { path, splits, .. } = source;
        command.args(arguments(R::JOB, task, Images { dataset: path, splits, cache }));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Advice for a trainer that cannot run.
    fn missing(&self, plural: &str, reason: &dyn std::fmt::Display) -> Error {
        let program = self.program.display();
        let advice = match &self.libtorch {
            Some(folder) if self.is_there() => format!(
                "It runs with the libtorch in {}, as the server was told: restart the server with another --libtorch \
                 FOLDER, or without",
                folder.display()
            ),
            _ => "Build it with `make build` (without TRAINER=0; it fetches libtorch); no restart is needed. Or \
                  restart the server and set its path with --trainer PATH or PBA_TRAINER"
                .to_owned(),
        };
        Error::no_trainer(format!(
            "{plural} need {program}, which cannot run here: {reason}. Streams are not affected. {advice}"
        ))
    }
}

/// What a trainer answers, and how it ends.
///
/// # Errors
/// When it does not end in time. Then it is killed.
async fn output(mut child: Child, time: Duration) -> std::io::Result<Output> {
    async fn beginning(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // The rest has no reader.
            pipe.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
        }
        Ok(bytes)
    }
    let (stdout, stderr) = (beginning(child.stdout.take()), beginning(child.stderr.take()));
    let ended = async { tokio::try_join!(child.wait(), stdout, stderr) };
    let Ok(ended) = timeout(time, ended).await else {
        child.kill().await?;
        let reason = format!("it did not answer within {} s", time.as_secs());
        return Err(std::io::Error::new(ErrorKind::TimedOut, reason));
    };
    let (status, stdout, stderr) = ended?;
    Ok(Output { status, stdout, stderr })
}

/// The path of a program: one given without a folder is looked up in `PATH`.
fn found(program: &Path) -> Option<PathBuf> {
    if program.parent() != Some(Path::new("")) {
        return Some(program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|place| place.is_file())
}
