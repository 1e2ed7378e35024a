//! What the folder of a job holds: its spec and state, in a file of the server, and the journal of its trainer. What
//! was asked is kept in a second file of the server, which is never written again.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use pba_files::FileState;
use pba_schedules::{Schedule, formats};
use pba_search::journal::{self, Kept};
use pba_search::protocol::files;
use pba_search::{Run, Spec, TrainingPlace};
use pba_types::SplitName;
use pba_wire::jobs::JobState;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::format::{JOB, OtherFormat};

/// Prefix of folders that are being created; no job's name starts with it.
const BEGUN: &str = ".begun-";
/// Prefix of folders that are being removed; no job's name starts with it.
const REMOVED: &str = ".removed-";
/// The entry of a job as it was requested.
const REQUEST: &str = "request.json";
/// Most bytes of an entry: a request with its spec has fewer, and a spec written out is not much longer.
const ENTRY_BYTES_MAX: u64 = 64 << 20;

/// Whether a folder is being created or removed.
pub(super) fn is_passing(name: &str) -> bool {
    name.starts_with(BEGUN) || name.starts_with(REMOVED)
}

/// The content of `search.json`, and likewise for other kinds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry<S> {
    /// That of all of the folder; of entries before there was one, the first.
    #[serde(default = "format")]
    pub(super) format: String,
    pub(super) spec: S,
    /// The dataset's path for the trainer.
    pub(super) source: String,
    /// The splits that there were when it was requested, each with its digest if it was served.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) splits: BTreeMap<SplitName, Option<String>>,
    /// Digest of the test split, as earlier versions wrote it, and no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) test_digest: Option<String>,
    /// Milliseconds since 1970: orders the queue.
    pub(super) created: u128,
    pub(super) state: JobState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// The search that it follows, if it is a comparison that was promised to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) follows: Option<String>,
    /// Time spent training, over all runs that ended cleanly.
    pub(super) seconds: f64,
    /// Where its trainer ran last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<TrainingPlace>,
    /// Whether its user removed the schedule that it learned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) schedule_removed: bool,
}

/// The format of a new job's folder.
fn format() -> String {
    JOB.to_string()
}

/// What an entry of any version says of its format.
#[derive(Deserialize)]
struct Head {
    #[serde(default = "format")]
    format: String,
}

/// Where a job's images are.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The dataset's path for the trainer.
    pub(crate) path: String,
    /// Its splits when the job was requested, each with its digest if it was served; none if an earlier version wrote
    /// the entry.
    pub(crate) splits: BTreeMap<SplitName, Option<String>>,
    /// Digest of its test split, if that is known.
    pub(crate) test_digest: Option<String>,
}

impl Source {
    /// That of a new job.
    pub(super) fn new(path: String, splits: BTreeMap<SplitName, Option<String>>) -> Source {
        let test_digest = splits.get(&SplitName::Test).cloned().flatten();
        Source { path, splits, test_digest }
    }

    /// Whether both have one test split, though it may lie in two places.
    pub(crate) fn shares_test_split(&self, other: &Source) -> bool {
        self.path == other.path || (self.test_digest.is_some() && self.test_digest == other.test_digest)
    }
}

impl<S: Spec + Serialize> Entry<S> {
    /// That of a new job, which waits. It was requested so many milliseconds after 1970, or follows another one.
    pub(super) fn new(spec: S, source: Source, created: u128, follows: Option<&str>) -> Entry<S> {
        let Source { path: source, splits, test_digest } = source;
        let (state, error, place) = (JobState::Queued, None, None);
        let (seconds, schedule_removed, follows) = (0.0, false, follows.map(str::to_owned));
        Entry {
            format: format(),
            spec,
            source,
            splits,
            test_digest,
            created,
            state,
            error,
            seconds,
            place,
            schedule_removed,
            follows,
        }
    }

    /// Where the job's images are.
    pub(super) fn source(&self) -> Source {
        let (splits, test_digest) = (self.splits.clone(), self.test_digest.clone());
        Source { path: self.source.clone(), splits, test_digest }
    }
}

/// Reads the entry in the folder of a job. If it is damaged, this is that of its request, and what the damage is.
///
/// # Errors
/// When neither can be read, they are those of another job, or one is of a format that this server does not read.
pub(super) fn read<K: Run>(directory: &Path) -> anyhow::Result<(Entry<K::Spec>, Option<String>)> {
    match read_file::<K>(directory, &path_in::<K>(directory)) {
        Ok(entry) => Ok((entry, None)),
        // It is whole, and another version's.
        Err(error) if error.is::<OtherFormat>() => {
            Err(error.context(path_in::<K>(directory).display().to_string()))
        }
        Err(error) => match read_file::<K>(directory, &directory.join(REQUEST)) {
            Ok(asked) => Ok((asked, Some(format!("{error:#}")))),
            Err(other) if other.is::<OtherFormat>() => Err(other.context(REQUEST)),
            Err(_) => Err(error),
        },
    }
}

fn read_file<K: Run>(directory: &Path, path: &Path) -> anyhow::Result<Entry<K::Spec>> {
    let text = pba_files::read_text(path, ENTRY_BYTES_MAX);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(is_whole(&text), "{}: its checksum is wrong or missing", path.display());
    let head: Head = serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
    JOB.check(&head.format, None)?;
    let entry: Entry<K::Spec> = serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
    // A copy of a folder must not pass for the job.
    let name = entry.spec.name();
    anyhow::ensure!(
        directory.ends_with(name),
        "it holds {} {name:?}, which belongs in a folder of its name",
        K::JOB.name
    );
    Ok(entry)
}

/// Keeps what was asked beside an entry that an older version wrote.
///
/// # Errors
/// When the disk does not take it.
pub(super) fn keep_request<K: Run>(directory: &Path, entry: &Entry<K::Spec>) -> Result<(), Error> {
    match directory.join(REQUEST).exists() {
        true => Ok(()),
        false => save_in(&directory.join(REQUEST), entry),
    }
}

/// Stores an entry, durably.
///
/// # Errors
/// When the disk does not take it. Then what was there is.
pub(super) fn save<K: Run>(directory: &Path, entry: &Entry<K::Spec>) -> Result<(), Error> {
    save_in(&path_in::<K>(directory), entry)
}

/// Whether the file holds another entry than one that could not be stored.
pub(super) fn holds_another<K: Run>(directory: &Path, entry: &Entry<K::Spec>) -> bool {
    let text = |entry: &Entry<K::Spec>| serde_json::to_string(entry).ok();
    read_file::<K>(directory, &path_in::<K>(directory)).is_ok_and(|found| text(&found) != text(entry))
}

fn save_in<S: Serialize>(path: &Path, entry: &Entry<S>) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(entry).map_err(Error::internal)?;
    let text = with_checksum(&text);
    pba_files::replace(path, text.as_bytes()).map_err(|error| Error::disk("write", path, &error))
}

/// Digests of schedules, by name.
pub(super) type Digests = BTreeMap<String, String>;

/// The digests of the schedules that a job is requested with.
pub(super) fn digests_of(schedules: &[Arc<Schedule>]) -> Digests {
    let digest = |schedule: &Arc<Schedule>| (schedule.name().to_owned(), schedule.digest().to_string());
    schedules.iter().map(digest).collect()
}

/// The digests of the schedules that a job was requested with, as far as its folder tells: those of older versions say
/// nothing, and of damage its trainer tells.
pub(super) fn digests_in(directory: &Path) -> Digests {
    let text = pba_files::read_text(&directory.join(files::SCHEDULE_DIGESTS), ENTRY_BYTES_MAX);
    text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Creates the folder of a new job, with the schedules that its trainer needs.
///
/// # Errors
/// When the disk does not take it. Then there is no folder.
pub(super) fn create_folder<K: Run>(
    directory: &Path,
    entry: &Entry<K::Spec>,
    schedules: &[Arc<Schedule>],
) -> Result<(), Error> {
    let parent = directory.parent().expect("it lies in the folder of its kind");
    // Created under another name, so that a killed server or a full disk leaves no folder
    // that takes the name but is not a job.
    let cannot_create = |error| Error::disk("create a folder in", parent, &error).unchanged();
    let made = tempfile::Builder::new()
        .prefix(BEGUN)
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir_in(parent)
        .map_err(cannot_create)?;
    let digests = digests_of(schedules);
    if !digests.is_empty() {
        let path = made.path().join(files::SCHEDULE_DIGESTS);
        let text = serde_json::to_vec_pretty(&digests).map_err(Error::internal)?;
        pba_files::replace(&path, &text).map_err(|error| Error::disk("write", &path, &error).unchanged())?;
    }
    for schedule in schedules {
        let [path, _] = files::schedules(made.path(), schedule.name());
        let folder = path.parent().expect("it lies in a folder");
        let written = pba_files::create_folder(folder)
            .and_then(|()| pba_files::replace(&path, formats::json::write(schedule).as_bytes()));
        written.map_err(|error| Error::disk("write", &path, &error).unchanged())?;
    }
    save::<K>(made.path(), entry).map_err(Error::unchanged)?;
    keep_request::<K>(made.path(), entry).map_err(Error::unchanged)?;
    pba_files::publish_folder(made.path(), directory).map_err(cannot_create)?;
    // It was moved: there is nothing to remove.
    let _ = made.keep();
    Ok(())
}

/// Takes the folder of a job out of sight for good, and returns where it is until its files are removed.
///
/// # Errors
/// When the disk does not take it. Then it is where it was.
pub(super) fn retire_folder(directory: &Path) -> Result<PathBuf, Error> {
    let parent = directory.parent().expect("it lies in the folder of its kind");
    let name = directory.file_name().expect("it has its job's name").to_string_lossy();
    let retired = parent.join(format!("{REMOVED}{name}"));
    let moved = match std::fs::remove_dir_all(&retired) {
        // An earlier job of this name, whose files could not be removed.
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => pba_files::publish_folder(directory, &retired),
    };
    moved.map_err(|error| Error::disk("remove", directory, &error).unchanged())?;
    Ok(retired)
}

/// Begins the last field of an entry on disk: a checksum of all bytes before it. It stays as it is in all versions of
/// the format, so that damage to the format is told from another version.
const CHECKSUM: &str = ",\n  \"xxh3\": \"";
const CHECKSUM_END: &str = "\"\n}";

/// A JSON object with its checksum as its last field.
fn with_checksum(text: &str) -> String {
    let fields = text.strip_suffix("\n}").expect("an entry is a JSON object");
    format!("{fields}{CHECKSUM}{}{CHECKSUM_END}", journal::checksum(fields.as_bytes()))
}

/// Whether an entry is as it was written. Those of older versions have no checksum, and end with no text.
fn is_whole(text: &str) -> bool {
    let Some(fields) = text.strip_suffix(CHECKSUM_END) else { return true };
    let checksum = fields.rsplit_once(CHECKSUM);
    checksum.is_some_and(|(fields, checksum)| checksum == journal::checksum(fields.as_bytes()))
}

/// The file with a job's spec and state.
pub(super) fn path_in<K: Run>(directory: &Path) -> PathBuf {
    directory.join(format!("{}.json", K::JOB.name))
}

/// What tells one state of a job's folder from another: the states of the files that are read there, and which files
/// they are.
#[derive(PartialEq, Eq)]
pub(super) struct FolderState([Option<(FileState, u64)>; 4]);

impl FolderState {
    pub(super) fn of<K: Run>(directory: &Path) -> FolderState {
        let files = [REQUEST, files::JOURNAL, files::FINISH].map(|name| directory.join(name));
        let [request, journal, finish] = files;
        FolderState([path_in::<K>(directory), request, journal, finish].map(|path| {
            let found = path.metadata().ok()?;
            Some((FileState::of(&found), found.ino()))
        }))
    }
}

/// What a journal on disk tells.
pub(super) struct OnDisk<K> {
    /// How many events it has, up to the last one that the job can resume from.
    pub(super) lines: usize,
    /// The job there; none before it has begun.
    pub(super) job: Option<K>,
    /// What follows that is not as it was written, if anything does.
    pub(super) damage: Option<String>,
}

impl<K: Run> OnDisk<K> {
    /// Reads at most `lines_max` lines of a journal.
    ///
    /// # Errors
    /// When it cannot be read, or no trainer can have written it.
    pub(super) fn read(directory: &Path, lines_max: usize) -> anyhow::Result<OnDisk<K>> {
        let path = directory.join(files::JOURNAL);
        let bytes = match pba_files::read(&path, files::JOURNAL_BYTES_MAX) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let Kept { text, damage, .. } = journal::read(&bytes);
        let text: String = text.split_inclusive('\n').take(lines_max).collect();
        let is_damaged = || format!("the journal {} is damaged", path.display());
        let replayed = journal::replay::<K>(&text).with_context(is_damaged)?;
        let lines = replayed.as_ref().map_or(0, |replay| replay.events);
        let damage = damage.map(|damage| format!("{}: {damage}", is_damaged()));
        Ok(OnDisk { lines, job: replayed.map(|replay| replay.run), damage })
    }
}

#[cfg(test)]
mod tests {
    use pba_search::{Search, SearchSpec};

    use super::*;

    #[test]
    fn an_entry_that_is_damaged_anywhere_is_seen_and_the_request_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let spec = SearchSpec::from_json(r#"{"name": "mine", "epochs": 12}"#).unwrap();
        let source = Source::new("shapes".to_owned(), Default::default());
        let entry = Entry::new(spec.clone(), source, 0, None);
        let directory = folder.path().join("mine");
        create_folder::<Search>(&directory, &entry, &[]).unwrap();
        let path = path_in::<Search>(&directory);
        let text = std::fs::read(&path).unwrap();
        let spec_in = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read::<Search>(&directory).map(|(entry, damage)| (entry.spec, damage))
        };
        assert_eq!(spec_in(&text).unwrap(), (spec.clone(), None));
        for at in 0..text.len() {
            let mut damaged = text.clone();
            damaged[at] ^= 1 << (at % 7);
            let (found, damage) = spec_in(&damaged).unwrap();
            assert_eq!(found, spec, "byte {at}");
            assert!(damage.is_some(), "byte {at}: {}", String::from_utf8_lossy(&damaged));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(read::<Search>(&directory).unwrap().1.unwrap().contains("search.json"));
        // Of older versions there is no request, and no checksum.
        std::fs::remove_file(directory.join(REQUEST)).unwrap();
        assert!(read::<Search>(&directory).is_err());
        assert_eq!(spec_in(&serde_json::to_vec_pretty(&entry).unwrap()).unwrap(), (spec, None));
    }
}
