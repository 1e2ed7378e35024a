//! The files of schedules in a data directory, and what is known of each.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;
use pba_files::FileState;
use pba_schedules::{Schedule, ScheduleError, formats::json, library};
use pba_wire::schedules::ScheduleSummary;

/// Longest file that is read; the bounds of what may be added are tighter.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Files that are no schedules of their names.
pub(super) type Others = BTreeMap<PathBuf, Other>;

/// Such a file.
#[derive(Clone)]
pub(super) struct Other {
    /// As it was when it was read.
    state: FileState,
    /// Why it is none.
    pub(super) reason: String,
}

/// By name.
pub(super) type Schedules = BTreeMap<String, Stored>;

/// A schedule, and its file if it was added.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) schedule: Arc<Schedule>,
    pub(super) summary: ScheduleSummary,
    pub(super) file: Option<FileState>,
}

impl Stored {
    pub(super) fn new(schedule: Schedule, file: Option<FileState>) -> Stored {
        let mut summary = summary(&schedule);
        let added = file.and_then(|file| Timestamp::from_nanosecond(file.modified_nanoseconds().into()).ok());
        summary.added = added.map(|added| format!("{added:.3}"));
        Stored { summary, schedule: Arc::new(schedule), file }
    }
}

/// The state of what is at a path.
pub(super) fn state_of(path: &Path) -> std::io::Result<FileState> {
    path.metadata().map(|found| FileState::of(&found))
}

/// The published schedules, and those in a directory, with a warning of each other file. A file that has not changed
/// since it was `known`, or one of the `others`, is not read again.
pub(super) fn load(directory: &Path, known: &Schedules, others: &mut Others) -> anyhow::Result<Schedules> {
    let published = library::all().into_iter();
    let mut schedules: Schedules =
        published.map(|schedule| (schedule.name().to_owned(), Stored::new(schedule, None))).collect();
    let cannot_list = || format!("cannot list {}", directory.display());
    let files = match std::fs::read_dir(directory) {
        // No writer has been here.
        Err(error)
            if error.kind() == ErrorKind::NotFound && known.values().all(|known| known.file.is_none()) =>
        {
            None
        }
        files => Some(files.with_context(cannot_list)?),
    };
    let before = std::mem::take(others);
    for file in files.into_iter().flatten() {
        let path = file.with_context(cannot_list)?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        // Before the content: if that changes meanwhile, it is read again the next time.
        let state = state_of(&path).ok();
        if let Some(other) = before.get(&path).filter(|other| state == Some(other.state)) {
            others.insert(path, other.clone());
            continue;
        }
        let stem = path.file_stem().unwrap_or_default();
        let reason = match read_stored(&path, known) {
            Ok(Stored { schedule, .. }) if stem != schedule.name() => {
                let name = schedule.name();
                tracing::warn!(path = %path.display(), name, "not in a file of its name; file ignored");
                format!("it holds schedule {name:?}, which belongs in a file of its name")
            }
            Ok(stored) if !schedules.contains_key(stored.schedule.name()) => {
                schedules.insert(stored.schedule.name().to_owned(), stored);
                continue;
            }
            Ok(Stored { schedule, .. }) => {
                tracing::warn!(path = %path.display(), name = schedule.name(), "name taken; file ignored");
                "its name is that of a published schedule".to_owned()
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(path = %path.display(), error, "not a schedule; file ignored");
                error
            }
        };
        others.extend(state.map(|state| (path, Other { state, reason })));
    }
    Ok(schedules)
}

/// The schedule in a file, read or known already.
fn read_stored(path: &Path, known: &Schedules) -> anyhow::Result<Stored> {
    // Before the content: if that changes meanwhile, it is read again the next time.
    let file = Some(state_of(path)?);
    let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    match known.get(name).filter(|known| known.file == file) {
        Some(known) => Ok(known.clone()),
        None => Ok(Stored::new(read_file(path)?, file)),
    }
}

pub(super) fn read_file(path: &Path) -> anyhow::Result<Schedule> {
    let text = pba_files::read_text(path, FILE_BYTES_MAX)?;
    json::read(&text).map_err(|error| match error {
        // It is told by what stands in the place of a known format.
        ScheduleError::Json { format, .. } if text.contains(&format!("\"{format}/")) => {
            anyhow::anyhow!("{error}; if a newer version of pba wrote it, use that version")
        }
        error => error.into(),
    })
}

/// Bytes of provenance that a summary holds; those of the published schedules fit in.
const PROVENANCE_BYTES_MAX: usize = 1024;
/// Characters of each of its texts, if they are more together.
const TEXT_MAX: usize = 128;

/// The summary of a schedule, as shown in lists. Long provenance is cut: a list holds many.
pub(crate) fn summary(schedule: &Schedule) -> ScheduleSummary {
    let mut provenance = schedule.provenance.clone();
    if serde_json::to_vec(&provenance).map_or(usize::MAX, |text| text.len()) > PROVENANCE_BYTES_MAX {
        provenance.other.clear();
        let texts =
            [&mut provenance.dataset, &mut provenance.model, &mut provenance.created, &mut provenance.source];
        for text in texts.into_iter().flatten() {
            if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
                text.truncate(end);
                text.push_str("...");
            }
        }
    }
    ScheduleSummary {
        name: schedule.name().to_owned(),
        digest: schedule.digest().to_string(),
        epochs: schedule.epochs(),
        segments: schedule.segments().len(),
        added: None,
        provenance,
    }
}
