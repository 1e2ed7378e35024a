//! The folder of a run: its journal, its checkpoints, its schedule.
//!
//! ```text
//! events.jsonl                    the journal (pba_search::journal)
//! checkpoint-EPOCH.safetensors    all members after an epoch; the last two that were written
//! schedule.json                   what was learned, once a search is done
//! schedules/NAME.json             what an evaluation or a comparison trains with
//! schedule-digests.json           the digests of these, by name
//! report.md                       what came of a comparison, once it is done
//! finish                          there when a search was asked to end with its generation
//! lock                            held while a trainer works here
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use pba_datasets::Dataset;
use pba_files::Lock;
use pba_search::journal::{self, Kept, Replay, replay_to};
use pba_search::protocol::{Report, files};
use pba_search::{Run, Spec};
use serde_json::Value;

use crate::{checkpoint, data, report, signals};

/// Between two tries to lock a folder.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// After which it is said what a trainer waits for.
const LOCK_SILENCE: Duration = Duration::from_secs(1);

/// A folder that only this process works in.
#[derive(Debug)]
pub(crate) struct RunDir {
    pub(crate) path: PathBuf,
    /// From one save of the members to the next, if that was set.
    pub(crate) save_interval: Option<Duration>,
    /// What tells the run from others: the checksum of the first line of its journal. Nothing before
    /// [`resume`].
    run: OnceLock<String>,
    _lock: Lock,
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
        pba_files::create_folder(path)
            .with_context(|| format!("cannot create the job's folder {}", path.display()))?;
        let (start, mut is_silent) = (Instant::now(), true);
        loop {
            signals::check()?;
            let lock = Lock::take(path, files::LOCK);
            match lock.with_context(|| format!("cannot lock the job's folder {}", path.display()))? {
                Some(lock) => {
                    let run = OnceLock::new();
                    return Ok(RunDir { path: path.to_owned(), save_interval, run, _lock: lock });
                }
                None if start.elapsed() < patience => {
                    if is_silent && start.elapsed() >= LOCK_SILENCE {
                        let seconds = patience.as_secs();
                        let reason = format!(
                            "another trainer still works in the folder of the run; this one waits up to {seconds} s for it"
                        );
                        report::tell(&Report::Waits { reason });
                        is_silent = false;
                    }
                    sleep(LOCK_POLL);
                }
                None => bail!("another trainer works in {}", path.display()),
            }
        }
    }

    /// What tells the run from others, once it has begun.
    pub(crate) fn run(&self) -> &str {
        self.run.get().map_or("", String::as_str)
    }

    /// Reads the journal, and truncates it after the last event that the run can resume from: the end of a
    /// generation whose members, or those of an epoch after it, are on disk.
    fn journal<R: Run>(&self) -> anyhow::Result<(Option<Replay<R>>, Journal)> {
        let path = self.path.join(files::JOURNAL);
        let file = pba_files::open_as(OpenOptions::new().create(true).append(true), &path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        // What is written to it is of no use under a name that a power failure takes.
        pba_files::sync_folder_of(&path).with_context(|| format!("cannot sync {}", self.path.display()))?;
        let bytes = pba_files::read(&path, files::JOURNAL_BYTES_MAX)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let Kept { text, ends, damage } = journal::read(&bytes);
        if let Some(damage) = damage {
            eprintln!("warning: {}: {damage}; the run goes on from what is whole before it", path.display());
            // What is cut off below may help to find the reason.
            let aside = path.with_extension("damaged");
            fs::write(&aside, &bytes).with_context(|| format!("cannot write {}", aside.display()))?;
        }
        let replay_to = |epoch| replay_to::<R>(&text, epoch).with_context(|| path.display().to_string());
        let mut replay = replay_to(u32::MAX)?;
        let needs_models =
            replay.as_ref().is_some_and(|there| !there.run.is_complete() && !there.run.begins_anew());
        if needs_models {
            replay = replay_to(0)?;
        }
        for found in checkpoint::found(&self.path)?.into_iter().rev().filter(|_| needs_models) {
            let there = replay_to(found.generation)?;
            // Else the journal does not reach up to it, as after a power failure.
            let is_reached = there.as_ref().is_some_and(|there| there.run.epoch() == found.generation);
            if is_reached && found.load()?.is_some() {
                replay = there;
                break;
            }
        }
        let lines = replay.as_ref().map_or(0, |replay| replay.events);
        let whole = lines.checked_sub(1).map_or(0, |last| ends[last]);
        if whole < bytes.len() {
            file.set_len(whole as u64).with_context(cannot_write)?;
        }
        if let Some(first) = text.lines().next().filter(|_| lines > 0) {
            self.begin(first);
        }
        Ok((replay, Journal { file: Some(file), lines }))
    }

    /// Remembers the first event of the run, as a line.
    fn begin(&self, first: &str) {
        self.run.get_or_init(|| journal::checksum(first.as_bytes()));
    }
}

/// Resumes the run in a folder, or begins the one of `started`; without a folder, nothing is saved.
///
/// # Errors
/// When the folder holds another run, or its journal cannot be read or written.
pub(crate) fn resume<R: Run>(
    run_dir: Option<&RunDir>,
    started: &R::Event,
    dataset: &Dataset,
) -> anyhow::Result<(R, Journal)> {
    let (asked, dataset_digest) = R::begin(started).expect("a run is begun by its first event");
    let (replayed, mut journal) = match run_dir {
        Some(run_dir) => run_dir.journal::<R>()?,
        None => (None, Journal { file: None, lines: 0 }),
    };
    let Some(Replay { run, dataset_digest: there, events, .. }) = replayed else {
        journal.record::<R>(started)?;
        journal.sync()?;
        if let Some(run_dir) = run_dir {
            run_dir.begin(journal::line(started).trim_end());
        }
        return Ok((asked, journal));
    };
    // A job's folder belongs to one spec. Only where it runs may change.
    if !is_same(run.spec(), &asked.spec().placed_as(run.spec()), dataset)? {
        let spec = serde_json::to_string(run.spec()).expect("a spec is written as JSON");
        bail!("the job's folder holds another {}: {spec}", R::JOB.name);
    }
    // Earlier versions took all splits into it that could be read.
    ensure!(
        there == dataset_digest || there == dataset.digest().to_string(),
        "the job's folder holds {} on dataset {there}, but this dataset is {dataset_digest}: its images have changed \
         since; restore them and resume the {}, or remove it",
        R::JOB.one,
        R::JOB.name
    );
    report::tell(&Report::Resumed { epoch: run.epoch(), events });
    Ok((run, journal))
}

/// Whether two specs mean the same: a base augmentation that is named may be the dataset's own.
fn is_same<S: Spec>(one: &S, other: &S, dataset: &Dataset) -> anyhow::Result<bool> {
    let without_base = |spec: &S| -> anyhow::Result<Value> {
        let mut fields = serde_json::to_value(spec)?;
        fields["base"].take();
        Ok(fields)
    };
    let base = |spec: &S| data::base(spec.training().base.as_deref(), dataset);
    Ok(one == other || (base(one)? == base(other)? && without_base(one)? == without_base(other)?))
}

/// The journal, open for more.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Option<File>,
    /// Lines in it.
    lines: usize,
}

impl Journal {
    /// Appends an event and reports it on standard output. It is on disk after [`Journal::sync`], and when
    /// members are saved that need it.
    pub(crate) fn record<R: Run>(&mut self, event: &R::Event) -> anyhow::Result<()> {
        let line = journal::line(event);
        if let Some(file) = &mut self.file {
            file.write_all(journal::kept(&line, self.lines + 1).as_bytes()).with_context(cannot_write)?;
        }
        self.lines += 1;
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
