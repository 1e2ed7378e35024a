//! The folder of a run: its journal, its checkpoints, its schedule.
//!
//! ```text
//! events.jsonl                    the journal (pba_search::journal)
//! checkpoint-EPOCH.safetensors    all members after a generation; the last two
//! between.safetensors             all members in the middle of a long generation
//! schedule.json                   what was learned, once the search is done
//! lock                            held while a trainer works here
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use pba_search::Event;
use pba_search::journal::{Replay, replay};

use crate::{report, signals};

/// Between two tries to lock a folder.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// A folder that this process works in, and nobody else.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Makes the folder if need be, and locks it. The lock ends with the process. Another trainer
    /// may hold it for `patience` more.
    ///
    /// # Errors
    /// [`signals::Interrupted`] when told to stop meanwhile; others when the folder cannot be
    /// written in, or stays locked.
    pub(crate) fn open(path: &Path, patience: Duration) -> anyhow::Result<RunDir> {
        fs::create_dir_all(path).with_context(|| format!("cannot make the run folder {}", path.display()))?;
        let lock = File::create(path.join("lock"))
            .with_context(|| format!("cannot write in the run folder {}", path.display()))?;
        let start = Instant::now();
        loop {
            signals::check()?;
            match lock.try_lock() {
                Ok(()) => return Ok(RunDir { path: path.to_owned(), _lock: lock }),
                Err(TryLockError::WouldBlock) if start.elapsed() < patience => sleep(LOCK_POLL),
                Err(TryLockError::WouldBlock) => bail!("another trainer works in {}", path.display()),
                Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the run folder"),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the journal, and cuts off what came after its last checkpoint.
    pub(crate) fn journal(&self) -> anyhow::Result<(Option<Replay>, Journal)> {
        let path = self.path.join("events.jsonl");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            result => result.with_context(|| format!("cannot read {}", path.display()))?,
        };
        // The torn end of a journal may be any bytes.
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let text = std::str::from_utf8(&bytes[..whole])
            .with_context(|| format!("{} is not text", path.display()))?;
        let replay = replay(text).with_context(|| path.display().to_string())?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        file.set_len(replay.as_ref().map_or(0, |replay| replay.bytes) as u64)?;
        Ok((replay, Journal { file }))
    }
}

/// The journal, open for more.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
}

impl Journal {
    /// Appends an event and tells it on the standard output. A checkpoint or an end is on the
    /// disk when this returns.
    pub(crate) fn record(&mut self, event: &Event) -> anyhow::Result<()> {
        let line = event.to_line();
        let durable = matches!(event, Event::Started { .. } | Event::Checkpoint { .. } | Event::Done(_));
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| if durable { self.file.sync_data() } else { Ok(()) })
            .context("cannot write events.jsonl; the run can go on from its last checkpoint")?;
        report::line(line.trim_end());
        Ok(())
    }
}
