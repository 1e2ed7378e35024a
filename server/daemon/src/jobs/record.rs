//! One job: its spec, its state and its journal.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use futures_util::FutureExt;
use pba_schedules::{Schedule, formats};
use pba_search::journal::{self, Kept};
use pba_search::protocol::files;
use pba_search::{Progress, Run, Spec, SpecError, TrainingPlace};
use pba_wire::jobs::{Job, JobAnswer, JobState};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::error::Error;
use crate::jobs::counts;
use crate::metrics::Metrics;

/// A job's state and where it trains.
pub(crate) type Standing = (JobState, Option<TrainingPlace>);

/// The content of `search.json`, and likewise for other kinds.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry<S> {
    spec: S,
    /// The dataset's path for the trainer.
    source: String,
    /// Digest of the dataset's test split, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    test_digest: Option<String>,
    /// Milliseconds since 1970: orders the queue.
    created: u128,
    state: JobState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Time spent training, over all runs that ended cleanly.
    seconds: f64,
    /// Where its trainer ran last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<TrainingPlace>,
    /// Whether its user removed the schedule that it learned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    schedule_removed: bool,
}

/// Where a job's images are.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The dataset's path for the trainer.
    pub(crate) path: String,
    /// Digest of its test split, if it has one.
    pub(crate) test_digest: Option<String>,
}

impl Source {
    /// Whether both have one test split, though it may lie in two places.
    pub(crate) fn shares_test_split(&self, other: &Source) -> bool {
        self.path == other.path || (self.test_digest.is_some() && self.test_digest == other.test_digest)
    }
}

/// The part that changes while a job runs.
struct Live<K: Run> {
    entry: Entry<K::Spec>,
    /// Whether it is cancelled, on disk, and its trainer has not ended yet.
    is_cancelled: bool,
    /// What it waits for, if somebody knows.
    waiting: Option<String>,
    /// Complete lines of the journal, without line feeds.
    journal: Vec<String>,
    job: Option<K>,
    progress: Option<Progress>,
    /// Epochs that no crash can undo.
    saved_epoch: u32,
    /// Images trained before the current trainer started, in epochs that need not be repeated.
    images_before: u64,
    running_since: Option<Instant>,
}

/// One job.
///
/// What its user is promised is on disk before it is shown or answered. `storing` is held meanwhile, `live` is
/// not: whoever only looks never waits for a disk.
pub(crate) struct Record<K: Run> {
    id: String,
    directory: PathBuf,
    live: Mutex<Live<K>>,
    /// Held by who changes the entry, or what goes with it on disk.
    storing: Mutex<()>,
    /// Counts changes, for watchers.
    changes: watch::Sender<u64>,
    /// Notified when the job should end.
    pub(crate) cancelled: Notify,
}

/// Prefix of folders that are being created; no job's name starts with it.
pub(crate) const BEGUN: &str = ".begun-";

impl<K: Run> Record<K> {
    /// A new job, which has no folder yet.
    pub(crate) fn begun(parent: &Path, spec: K::Spec, source: Source) -> Record<K> {
        let directory = parent.join(spec.name());
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let Source { path: source, test_digest } = source;
        let (state, error, place) = (JobState::Queued, None, None);
        let (seconds, schedule_removed) = (0.0, false);
        let entry =
            Entry { spec, source, test_digest, created, state, error, seconds, place, schedule_removed };
        Record::new(directory, entry, Vec::new(), None)
    }

    /// Creates the folder of a new job, with the schedules that its trainer needs.
    ///
    /// # Errors
    /// When the disk does not take it. Then there is no folder.
    pub(crate) fn create(&self, schedules: &[Arc<Schedule>]) -> Result<(), Error> {
        let parent = self.directory.parent().expect("it lies in the folder of its kind");
        let entry = self.live().entry.clone();
        // Created under another name, so that a killed server or a full disk leaves no folder
        // that takes the name but is not a job.
        let cannot_create = |error| Error::disk("create a folder in", parent, &error);
        let made = tempfile::Builder::new()
            .prefix(BEGUN)
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .map_err(cannot_create)?;
        let digests: BTreeMap<_, _> =
            schedules.iter().map(|schedule| (schedule.name(), schedule.digest().to_string())).collect();
        if !digests.is_empty() {
            let path = made.path().join(files::SCHEDULE_DIGESTS);
            let text = serde_json::to_vec_pretty(&digests).map_err(Error::internal)?;
            pba_files::replace(&path, &text).map_err(|error| Error::disk("write", &path, &error))?;
        }
        for schedule in schedules {
            let [path, _] = files::schedules(made.path(), schedule.name());
            let folder = path.parent().expect("it lies in a folder");
            let written = pba_files::create_folder(folder)
                .and_then(|()| pba_files::replace(&path, formats::json::write(schedule).as_bytes()));
            written.map_err(|error| Error::disk("write", &path, &error))?;
        }
        save::<K>(made.path(), &entry)?;
        pba_files::publish_folder(made.path(), &self.directory).map_err(cannot_create)?;
        // It was moved: there is nothing to remove.
        let _ = made.keep();
        Ok(())
    }

    /// Reads the folder of a job. One that was running is queued again if this server hosts it; otherwise
    /// it is still running.
    pub(crate) fn open(directory: &Path, is_writer: bool) -> anyhow::Result<Record<K>> {
        let path = entry_path::<K>(directory);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        anyhow::ensure!(is_whole(&text), "{}: its checksum is wrong or missing", path.display());
        let mut entry: Entry<K::Spec> =
            serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
        // A copy of a folder must not pass for the job.
        let name = entry.spec.name().to_owned();
        anyhow::ensure!(
            directory.ends_with(&name),
            "it holds {} {name:?}, which belongs in a folder of its name",
            K::JOB.name
        );
        if entry.state == JobState::Running && is_writer {
            entry.state = JobState::Queued;
        }
        let (journal, job, fault) = match OnDisk::<K>::read(directory, usize::MAX) {
            Ok(OnDisk { lines, job, damage }) => {
                let is_there = job.as_ref().is_some_and(K::is_complete);
                let fault = match damage {
                    // The trainer goes on from what is whole.
                    Some(damage) if !entry.state.is_final() => {
                        tracing::warn!("{damage}; {} goes on from what is whole before it", K::JOB.one);
                        None
                    }
                    Some(damage) if !is_there => Some(damage),
                    None if entry.state == JobState::Done && !is_there => {
                        let journal = directory.join(files::JOURNAL);
                        Some(format!("the journal {} does not hold what it ended with", journal.display()))
                    }
                    _ => None,
                };
                let remedy =
                    |fault| format!("{fault}; resumed, it goes on from what is whole, to the same result");
                (lines, job, fault.map(remedy))
            }
            // No trainer goes on with it.
            Err(error) => (Vec::new(), None, Some(format!("{error:#}"))),
        };
        // Of a job that is done the rest stays, as what it learned.
        if let Some(fault) = fault {
            tracing::error!("{} {name:?}: {fault}", K::JOB.name);
            (entry.state, entry.error) = (JobState::Failed, Some(fault));
        }
        // The file is written when the state changes.
        let since = || path.metadata().ok()?.modified().ok()?.elapsed().ok();
        let is_running = entry.state == JobState::Running;
        let record = Record::new(directory.to_owned(), entry, journal, job);
        if is_running {
            record.live().running_since = since().and_then(|elapsed| Instant::now().checked_sub(elapsed));
        }
        Ok(record)
    }

    fn new(directory: PathBuf, entry: Entry<K::Spec>, journal: Vec<String>, job: Option<K>) -> Record<K> {
        let id = entry.spec.name().to_owned();
        let live = Live {
            entry,
            is_cancelled: false,
            waiting: None,
            journal,
            job,
            progress: None,
            saved_epoch: 0,
            images_before: 0,
            running_since: None,
        };
        let changes = watch::Sender::new(0);
        Record {
            id,
            directory,
            live: Mutex::new(live),
            storing: Mutex::new(()),
            changes,
            cancelled: Notify::new(),
        }
    }

    /// Its id: its name.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The folder that its trainer works in.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its spec.
    pub(crate) fn spec(&self) -> K::Spec {
        self.live().entry.spec.clone()
    }

    /// Where its images are.
    pub(crate) fn source(&self) -> Source {
        self.live().entry.source()
    }

    /// When it was requested, in milliseconds since 1970.
    pub(crate) fn created(&self) -> u128 {
        self.live().entry.created
    }

    /// Its state.
    pub(crate) fn state(&self) -> JobState {
        self.live().entry.state
    }

    /// Why it failed, or why what follows it cannot start.
    pub(crate) fn error(&self) -> Option<String> {
        self.live().entry.error.clone()
    }

    /// The job according to its journal; none before it has started.
    pub(crate) fn job(&self) -> Option<K> {
        self.live().job.clone()
    }

    /// Epochs that are finished and on disk, as far as its trainer has reported.
    pub(crate) fn saved_epoch(&self) -> u32 {
        self.live().saved_epoch
    }

    /// Why it keeps another job that is asked for from being started.
    pub(crate) fn excludes(&self, asked: &K::Spec, source: &Source) -> Option<SpecError> {
        let live = self.live();
        let Entry { spec, state, .. } = &live.entry;
        let same_data = live.entry.source().shares_test_split(source);
        K::excludes(live.job.as_ref(), spec, state.is_final(), asked, same_data)
    }

    /// Its description in the API.
    pub(crate) fn answer(&self) -> Job<K::Spec> {
        let live = self.live();
        let Entry { mut spec, state, error, place, .. } = live.entry.clone();
        // With the sizes that it got when it began.
        if let Some(job) = &live.job {
            spec = job.spec().clone();
        }
        let finishing = !state.is_final() && self.is_asked_to_finish();
        let training = spec.training();
        JobAnswer {
            id: self.id.clone(),
            state,
            epoch: live.job.as_ref().map_or(0, K::epoch),
            epochs: spec.epochs(),
            results: K::results(live.job.as_ref(), &spec, state == JobState::Done),
            seconds: (live.seconds() * 10.0).round() / 10.0,
            error,
            dataset: training.dataset.clone(),
            model: training.model.to_string(),
            place,
            progress: self.told(&live),
            waiting: live.waiting.clone().filter(|_| !state.is_final()),
            finishing,
            spec,
        }
    }

    /// Watches for changes.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The lines of the journal after the first `seen`, each with its number from 1, the job's state and its
    /// place.
    pub(crate) fn lines_after(&self, seen: usize) -> (Vec<(usize, String)>, Standing) {
        let live = self.live();
        let lines = live.journal.iter().enumerate().skip(seen);
        let lines = lines.map(|(at, line)| (at + 1, line.clone())).collect();
        (lines, (live.entry.state, live.entry.place.clone()))
    }

    /// Its progress, as last reported by the trainer.
    pub(crate) fn progress(&self) -> Option<Progress> {
        self.told(&self.live())
    }

    /// The progress that its trainer reported; it reckons with all epochs, so what is asked to end has no known
    /// time left.
    fn told(&self, live: &Live<K>) -> Option<Progress> {
        let known = |progress: Progress| match progress.seconds_left.filter(|_| !self.is_asked_to_finish()) {
            None => Progress { seconds_left: None, ..progress },
            Some(_) => progress,
        };
        live.progress.clone().map(known)
    }

    fn is_asked_to_finish(&self) -> bool {
        self.directory.join(files::FINISH).exists()
    }

    /// Does what may wait for the disk, one at a time; requests that share its thread do not wait.
    fn storing<T>(&self, store: impl FnOnce() -> T) -> T {
        tokio::task::block_in_place(|| {
            let _one_at_a_time = self.storing.lock().unwrap_or_else(PoisonError::into_inner);
            store()
        })
    }

    /// Changes the entry, on disk first.
    ///
    /// # Errors
    /// When the disk does not take it. Then nothing has changed.
    fn store(&self, change: impl FnOnce(&mut Entry<K::Spec>)) -> Result<(), Error> {
        let mut entry = self.live().entry.clone();
        change(&mut entry);
        save::<K>(&self.directory, &entry)?;
        self.live().entry = entry;
        self.changed();
        Ok(())
    }

    /// Takes a waiting job out of the queue to run it; false when it no longer waits.
    pub(crate) fn begin(&self) -> bool {
        self.storing(|| {
            let waits = self.state() == JobState::Queued;
            if waits {
                // A cancellation that came too late for the previous run does not apply to this one.
                let _ = self.cancelled.notified().now_or_never();
                // That of the last run, until this one tells its own.
                self.live().entry.place = None;
                self.enter_stored(JobState::Running, None);
            }
            waits
        })
    }

    /// Cancels a waiting or running job. It stays cancelled whatever happens from now on.
    ///
    /// # Errors
    /// When it has already ended, or the disk does not take it: then it goes on.
    pub(crate) fn cancel(&self) -> Result<(), Error> {
        self.storing(|| {
            let state = self.state();
            match state {
                JobState::Queued => {
                    self.live().waiting = None;
                    self.store(|entry| entry.state = JobState::Cancelled)
                }
                JobState::Running => {
                    // The supervisor ends the trainer and then sets the state.
                    let entry = self.live().timed();
                    save::<K>(&self.directory, &Entry { state: JobState::Cancelled, ..entry })?;
                    self.live().is_cancelled = true;
                    self.cancelled.notify_one();
                    Ok(())
                }
                _ => Err(Error::conflict(format!(
                    "{} {:?} is already {state}; there is nothing to cancel",
                    K::JOB.name,
                    self.id
                ))),
            }
        })
    }

    /// Asks a waiting or running job to end with the part of its work that it does next. On disk, where its
    /// trainer looks, so that it survives both.
    ///
    /// # Errors
    /// When it has ended, or the disk does not take it.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        // Meanwhile it does not end.
        self.storing(|| {
            let state = self.state();
            if state.is_final() {
                let detail = format!(
                    "{} {:?} is {state}; only one that is waiting or running can be asked to end",
                    K::JOB.name,
                    self.id
                );
                return Err(Error::conflict(detail));
            }
            let path = self.directory.join(files::FINISH);
            let reached = self.live().job.as_ref().map_or(0, K::epoch);
            // Asked twice, the first wish holds: after a crash the job may be behind where it was then.
            if !self.is_asked_to_finish() {
                pba_files::replace(&path, reached.to_string().as_bytes())
                    .map_err(|error| Error::disk("write", &path, &error))?;
            }
            Ok(())
        })?;
        tracing::info!(id = self.id, "{} ends when it next can", K::JOB.name);
        self.changed();
        Ok(())
    }

    /// Queues a failed or cancelled job again, to go on to its end: an earlier wish that it finish is dropped.
    ///
    /// # Errors
    /// When it is in another state, or the disk does not take it.
    pub(crate) fn resume(&self) -> Result<(), Error> {
        self.storing(|| {
            let state = self.state();
            match state {
                JobState::Failed | JobState::Cancelled => {
                    let wish = self.directory.join(files::FINISH);
                    match pba_files::remove(&wish) {
                        Err(error) if error.kind() != ErrorKind::NotFound => {
                            return Err(Error::disk("remove", &wish, &error));
                        }
                        _ => {}
                    }
                    self.store(|entry| (entry.state, entry.error) = (JobState::Queued, None))
                }
                _ => Err(Error::conflict(format!(
                    "{0} {1:?} is {state}; only a failed or cancelled {0} can be resumed",
                    K::JOB.name,
                    self.id
                ))),
            }
        })
    }

    /// Remembers that its user removes the schedule that it learned, so that it is not registered again.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn schedule_removed(&self) -> Result<(), Error> {
        self.storing(|| match self.is_schedule_removed() {
            true => Ok(()),
            false => self.store(|entry| entry.schedule_removed = true),
        })
    }

    /// Whether its user removed the schedule that it learned.
    pub(crate) fn is_schedule_removed(&self) -> bool {
        self.live().entry.schedule_removed
    }

    /// Sets the state, on disk too if the disk takes it: after a restart, what its trainer left is found again.
    pub(crate) fn enter(&self, state: JobState, error: Option<String>) {
        self.storing(|| self.enter_stored(state, error));
    }

    fn enter_stored(&self, state: JobState, error: Option<String>) {
        let (mut entry, is_cancelled) = {
            let live = self.live();
            (live.timed(), live.is_cancelled)
        };
        // Cancelled while the server was told to stop, it does not wait for the next one; cancelled while it could
        // not be started, or its trainer failed, it was cancelled all the same.
        let stays_cancelled = is_cancelled && matches!(state, JobState::Queued | JobState::Failed);
        (entry.state, entry.error) =
            if stays_cancelled { (JobState::Cancelled, None) } else { (state, error) };
        self.save_or_warn(&entry);
        let mut live = self.live();
        live.entry = entry;
        live.running_since = (state == JobState::Running).then(Instant::now);
        (live.is_cancelled, live.waiting) = (false, None);
        if state != JobState::Running {
            live.progress = None;
        }
        drop(live);
        self.changed();
    }

    /// Says what is wrong with what follows it, or that nothing is any more.
    pub(crate) fn complain(&self, error: Option<String>) {
        if self.error() == error {
            return;
        }
        if let Some(error) = &error {
            tracing::error!(id = self.id, error, "what follows a job cannot start");
        }
        self.storing(|| {
            self.live().entry.error = error;
            let entry = self.live().stored();
            self.save_or_warn(&entry);
        });
        self.changed();
    }

    /// Says what it waits for, or that it no longer does.
    pub(crate) fn waits_for(&self, reason: Option<String>) {
        let mut live = self.live();
        if live.waiting != reason {
            if let Some(reason) = &reason {
                tracing::info!(id = self.id, reason, "{} waits", K::JOB.name);
            }
            live.waiting = reason;
            drop(live);
            self.changed();
        }
    }

    /// Stores an entry. A full disk must not end a job whose state is in memory; the next time it may work.
    fn save_or_warn(&self, entry: &Entry<K::Spec>) {
        if let Err(error) = save::<K>(&self.directory, entry) {
            tracing::error!(id = self.id, error = error.detail, "cannot save the state of {}", K::JOB.one);
        }
    }

    /// Processes an event of the journal.
    ///
    /// # Errors
    /// When the event is not possible at this point.
    pub(crate) fn happened(&self, event: &K::Event, metrics: &Metrics) -> anyhow::Result<()> {
        let mut live = self.live();
        live.waiting = None;
        if let Some((job, _)) = K::begin(event) {
            live.job = Some(job);
            live.journal.clear();
            (live.images_before, live.saved_epoch) = (0, 0);
        } else if let Some(job) = &mut live.job {
            job.apply(event).map_err(anyhow::Error::msg)?;
            counts::event(metrics, event, job);
        } else {
            anyhow::bail!("the trainer sent an event before the {} started", K::JOB.name);
        }
        live.journal.push(journal::line(event).trim_end().to_owned());
        drop(live);
        self.changed();
        Ok(())
    }

    /// The models after `epoch` epochs are on disk.
    pub(crate) fn saved(&self, epoch: u32) {
        self.storing(|| {
            let mut live = self.live();
            live.saved_epoch = epoch;
            // The time until here is not lost when the server is killed.
            live.entry = live.timed();
            live.running_since = live.running_since.map(|_| Instant::now());
            let entry = live.stored();
            drop(live);
            self.save_or_warn(&entry);
        });
    }

    /// Sets the state to that of the first `lines` lines of the journal on disk, after `epoch` epochs, from
    /// which a trainer resumes. That may be fewer events than were reported, or more: a killed trainer may have written
    /// events that it did not report.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(crate) fn reread(&self, epoch: u32, lines: usize) -> anyhow::Result<()> {
        let read = || OnDisk::<K>::read(&self.directory, lines);
        let OnDisk { lines, job, .. } = tokio::task::block_in_place(read)?;
        let mut live = self.live();
        let images = |job: &K| {
            let spec = job.spec();
            spec.images() / u64::from(spec.epochs()) * u64::from(job.epoch())
        };
        live.images_before = job.as_ref().map_or(0, images);
        (live.journal, live.job, live.saved_epoch) = (lines, job, epoch);
        drop(live);
        self.changed();
        Ok(())
    }

    /// Its trainer tells where it trains.
    pub(crate) fn placed(&self, place: TrainingPlace) {
        self.storing(|| {
            let mut live = self.live();
            live.waiting = None;
            live.entry.place = Some(place);
            let entry = live.stored();
            drop(live);
            self.save_or_warn(&entry);
        });
        self.changed();
    }

    /// Its trainer goes on with models that it read from the disk, which have trained on `images` images: they
    /// were counted by the trainer that saved them.
    pub(crate) fn restored(&self, images: u64) {
        self.live().images_before = images;
    }

    /// Records the progress.
    pub(crate) fn progressed(&self, progress: Progress, metrics: &Metrics) {
        let mut live = self.live();
        let before = live.progress.as_ref();
        // What is reported before the models are read counts none of their images.
        let counted = before.map_or(0, |before| before.images).max(live.images_before);
        let images = progress.images.saturating_sub(counted);
        counts::progress::<K>(metrics, before, &progress, images);
        live.progress = Some(progress);
        drop(live);
        self.changed();
    }

    /// Its trainer has ended, in whatever way.
    pub(crate) fn ended(&self, metrics: &Metrics) {
        if let Some(last) = &mut self.live().progress {
            counts::end(metrics, last);
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn live(&self) -> MutexGuard<'_, Live<K>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Entry<S> {
    fn source(&self) -> Source {
        Source { path: self.source.clone(), test_digest: self.test_digest.clone() }
    }
}

impl<K: Run> Live<K> {
    fn seconds(&self) -> f64 {
        self.entry.seconds + self.running_since.map_or(Duration::ZERO, |since| since.elapsed()).as_secs_f64()
    }

    /// The entry with the time spent until now.
    fn timed(&self) -> Entry<K::Spec> {
        Entry { seconds: self.seconds(), ..self.entry.clone() }
    }

    /// The entry for the disk: once it is cancelled, no later one may run it again.
    fn stored(&self) -> Entry<K::Spec> {
        let mut entry = self.entry.clone();
        if self.is_cancelled {
            entry.state = JobState::Cancelled;
        }
        entry
    }
}

/// Stores an entry, durably.
fn save<K: Run>(directory: &Path, entry: &Entry<K::Spec>) -> Result<(), Error> {
    let path = entry_path::<K>(directory);
    let text = serde_json::to_string_pretty(entry).map_err(Error::internal)?;
    let text = with_checksum(&text);
    pba_files::replace(&path, text.as_bytes()).map_err(|error| Error::disk("write", &path, &error))
}

/// Begins the last field of an entry on disk: a checksum of all bytes before it.
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
fn entry_path<K: Run>(directory: &Path) -> PathBuf {
    directory.join(format!("{}.json", K::JOB.name))
}

/// What a journal on disk tells.
struct OnDisk<K> {
    /// Its events, up to the last one that the job can resume from.
    lines: Vec<String>,
    /// The job there; none before it has begun.
    job: Option<K>,
    /// What follows that is not as it was written, if anything does.
    damage: Option<String>,
}

impl<K: Run> OnDisk<K> {
    /// Reads at most `lines_max` lines of a journal.
    ///
    /// # Errors
    /// When it cannot be read, or no trainer can have written it.
    fn read(directory: &Path, lines_max: usize) -> anyhow::Result<OnDisk<K>> {
        let path = directory.join(files::JOURNAL);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let Kept { text, damage, .. } = journal::read(&bytes);
        let text: String = text.split_inclusive('\n').take(lines_max).collect();
        let is_damaged = || format!("the journal {} is damaged", path.display());
        let replayed = journal::replay::<K>(&text).with_context(is_damaged)?;
        let events = replayed.as_ref().map_or(0, |replay| replay.events);
        let lines = text.lines().take(events).map(str::to_owned).collect();
        let damage = damage.map(|damage| format!("{}: {damage}", is_damaged()));
        Ok(OnDisk { lines, job: replayed.map(|replay| replay.run), damage })
    }
}

#[cfg(test)]
mod tests {
    use pba_search::{Event, Search, SearchSpec};

    use super::*;

    fn begun(folder: &Path) -> Record<Search> {
        let spec =
            SearchSpec::from_json(r#"{"name": "mine", "epochs": 12, "perturbation_interval": 3}"#).unwrap();
        let record = Record::begun(folder, spec, Source { path: "shapes".to_owned(), test_digest: None });
        record.create(&[]).unwrap();
        assert!(record.begin());
        record
    }

    fn progress(images: u64) -> Progress {
        Progress {
            epoch: 0,
            epochs: 12,
            fraction: 0.0,
            images,
            images_per_second: 1.0,
            seconds: 1.0,
            seconds_left: None,
            gpu_memory_used_bytes: None,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn images_are_counted_once_though_a_generation_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let record = begun(folder.path());
        let metrics = Metrics::new().unwrap();
        let started = Event::Started { spec: Box::new(record.spec()), dataset_digest: "d".to_owned() };
        let line = journal::line(&started);
        std::fs::write(record.directory().join(files::JOURNAL), journal::kept(&line, 1)).unwrap();
        record.happened(&started, &metrics).unwrap();
        record.progressed(progress(700), &metrics);
        record.ended(&metrics);
        assert_eq!(metrics.search_images_trained.get(), 700);
        // In another server, the next trainer goes on with members in the middle of the first generation.
        let record = Record::<Search>::open(record.directory(), true).unwrap();
        assert!(record.begin());
        record.reread(0, 1).unwrap();
        // Told while the members are still being read.
        record.progressed(progress(0), &metrics);
        record.restored(650);
        record.progressed(progress(650), &metrics);
        record.progressed(progress(800), &metrics);
        assert_eq!(metrics.search_images_trained.get(), 700 + 150);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_entry_that_is_damaged_anywhere_is_no_job() {
        let folder = tempfile::tempdir().unwrap();
        let record = begun(folder.path());
        let path = entry_path::<Search>(record.directory());
        let text = std::fs::read(&path).unwrap();
        let open = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Record::<Search>::open(record.directory(), true)
        };
        assert_eq!(open(&text).unwrap().spec(), record.spec());
        for at in 0..text.len() {
            let mut damaged = text.clone();
            damaged[at] ^= 1 << (at % 7);
            assert!(open(&damaged).is_err(), "byte {at}: {}", String::from_utf8_lossy(&damaged));
        }
        // Older versions wrote none.
        let old = serde_json::to_vec_pretty(&record.live().entry).unwrap();
        assert_eq!(open(&old).unwrap().spec(), record.spec());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_stored_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let record = begun(folder.path());
        let obstacle = record.directory().join("search.json.partial");
        std::fs::create_dir(&obstacle).unwrap();
        assert!(record.cancel().is_err());
        record.enter(JobState::Failed, Some("anything".to_owned()));
        assert!(record.resume().is_err());
        assert_eq!(record.state(), JobState::Failed);
        std::fs::remove_dir(&obstacle).unwrap();
        record.resume().unwrap();
        assert!(record.begin());
        record.cancel().unwrap();
        assert_eq!(record.state(), JobState::Running, "until its trainer has ended");
        // Whatever is stored meanwhile, after a restart it is cancelled.
        record.saved(3);
        assert_eq!(Record::<Search>::open(record.directory(), true).unwrap().state(), JobState::Cancelled);
        record.enter(JobState::Queued, None);
        assert_eq!(record.state(), JobState::Cancelled, "though the server was told to stop");
    }
}
