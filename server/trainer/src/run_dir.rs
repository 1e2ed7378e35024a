//! The folder of a run: its journal, its checkpoints, its schedule.
//!
//! ```text
//! events.jsonl                    the journal (pba_search::journal)
//! checkpoint-EPOCH.safetensors    all members after an epoch; the last two that were written
//! schedule.json                   what was learned, once a search is done
//! schedules/NAME.json             what an evaluation or a comparison trains with
//! report.md                       what came of a comparison, once it is done
//! finish                          there when a search was asked to end with its generation
//! lock                            held while a trainer works here
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use pba_search::journal::{self, Replay, replay_to};
use pba_search::protocol::{Report, files};
use pba_search::{Run, Spec};

use crate::{checkpoint, report, signals};

/// Between two tries to lock a folder.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// A folder that only this process works in.
#[derive(Debug)]
pub(crate) struct RunDir {
    pub(crate) path: PathBuf,
    /// From one save of the members to the next, if somebody says.
    pub(crate) save_interval: Option<Duration>,
    _lock: File,
}

impl RunDir {
    /// Creates the folder if necessary, and locks it. The lock ends with the process. Another trainer
    /// may hold it for up to `patience`.
    ///
    /// # Errors
    /// [`signals::Interrupted`] when told to stop meanwhile; others when the folder cannot be
    /// written to, or stays locked.
    pub(crate) fn open(
        path: &Path,
        patience: Duration,
        save_interval: Option<Duration>,
    ) -> anyhow::Result<RunDir> {
        fs::create_dir_all(path)
            .with_context(|| format!("cannot create the run folder {}", path.display()))?;
        let lock = File::create(path.join(files::LOCK))
            .with_context(|| format!("cannot write to the run folder {}", path.display()))?;
        let start = Instant::now();
        loop {
            signals::check()?;
            match lock.try_lock() {
                Ok(()) => return Ok(RunDir { path: path.to_owned(), save_interval, _lock: lock }),
                Err(TryLockError::WouldBlock) if start.elapsed() < patience => sleep(LOCK_POLL),
                Err(TryLockError::WouldBlock) => bail!("another trainer works in {}", path.display()),
                Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the run folder"),
            }
        }
    }

    /// Reads the journal, and truncates it after the last event that the run can resume from: the end of a
    /// generation whose members, or those of an epoch after it, are on disk.
    fn journal<R: Run>(&self) -> anyhow::Result<(Option<Replay<R>>, Journal)> {
        let path = self.path.join(files::JOURNAL);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // The torn end of a journal may be any bytes.
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let text = std::str::from_utf8(&bytes[..whole])
            .with_context(|| format!("{} is not text", path.display()))?;
        let replay_to = |epoch| replay_to::<R>(text, epoch).with_context(|| path.display().to_string());
        let mut replay = replay_to(u32::MAX)?;
        let needs_models = replay.as_ref().is_some_and(|there| !there.run.begins_anew());
        if needs_models {
            replay = replay_to(0)?;
        }
        for found in checkpoint::found(&self.path)?.into_iter().rev().filter(|_| needs_models) {
            let there = replay_to(found.generation)?;
            // Else the journal does not reach up to it, as after a power failure.
            if there.as_ref().is_some_and(|there| there.run.epoch() == found.generation) {
                replay = there;
                break;
            }
        }
        file.set_len(replay.as_ref().map_or(0, |replay| replay.bytes) as u64)?;
        Ok((replay, Journal { file: Some(file) }))
    }
}

/// Resumes the run in a folder, or begins the one of `started`; without a folder, nothing is saved.
///
/// # Errors
/// When the folder holds another run, or its journal cannot be read or written.
pub(crate) fn resume<R: Run>(run_dir: Option<&RunDir>, started: &R::Event) -> anyhow::Result<(R, Journal)> {
    let (asked, dataset_digest) = R::begin(started).expect("a run is begun by its first event");
    let (replayed, mut journal) = match run_dir {
        Some(run_dir) => run_dir.journal::<R>()?,
        None => (None, Journal { file: None }),
    };
    let Some(Replay { run, dataset_digest: there, events, .. }) = replayed else {
        journal.record::<R>(started)?;
        journal.sync()?;
        return Ok((asked, journal));
    };
    // A run folder belongs to one spec. Only where it runs may change.
    if *run.spec() != asked.spec().placed_as(run.spec()) {
        let spec = serde_json::to_string(run.spec()).expect("a spec is written as JSON");
        bail!("the run folder holds another {}: {spec}", R::JOB.name);
    }
    ensure!(
        there == dataset_digest,
        "the run folder holds {} on dataset {there}, but this dataset is {dataset_digest}",
        R::JOB.one
    );
    report::tell(&Report::Resumed { epoch: run.epoch(), events });
    Ok((run, journal))
}

/// The journal, open for more.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Option<File>,
}

impl Journal {
    /// Appends an event and reports it on standard output. It is on disk after [`Journal::sync`], and when
    /// members are saved that need it.
    pub(crate) fn record<R: Run>(&mut self, event: &R::Event) -> anyhow::Result<()> {
        let line = journal::line(event);
        if let Some(file) = &mut self.file {
            file.write_all(line.as_bytes()).with_context(cannot_write)?;
        }
        report::line(line.trim_end());
        Ok(())
    }

    /// Puts what was recorded on disk.
    pub(crate) fn sync(&mut self) -> anyhow::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_data).with_context(cannot_write)
    }
}

fn cannot_write() -> String {
    format!("cannot write {}; the run can resume from its last checkpoint", files::JOURNAL)
}
