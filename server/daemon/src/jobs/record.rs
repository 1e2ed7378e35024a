//! One job: its spec, its state and its journal.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use futures_util::FutureExt;
use pba_schedules::{Schedule, formats};
use pba_search::protocol::files;
use pba_search::{Progress, Run, Spec, SpecError, TrainingPlace, journal};
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
pub(crate) struct Record<K: Run> {
    id: String,
    directory: PathBuf,
    live: Mutex<Live<K>>,
    /// Counts changes, for watchers.
    changes: watch::Sender<u64>,
    /// Notified when the job should end.
    pub(crate) cancelled: Notify,
}

/// Prefix of folders that are being created; no job's name starts with it.
pub(crate) const BEGUN: &str = ".begun-";

impl<K: Run> Record<K> {
    /// Creates the folder of a new job, with the schedules that its trainer needs.
    pub(crate) fn create(
        parent: &Path,
        spec: K::Spec,
        Source { path: source, test_digest }: Source,
        schedules: &[Arc<Schedule>],
    ) -> anyhow::Result<Record<K>> {
        let directory = parent.join(spec.name());
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let (state, error, place) = (JobState::Queued, None, None);
        let entry = Entry { spec, source, test_digest, created, state, error, seconds: 0.0, place };
        let record = Record::new(directory, entry, Vec::new(), None);
        // Created under another name, so that a killed server or a full disk leaves no folder
        // that takes the name but is not a job.
        let made = tempfile::Builder::new()
            .prefix(BEGUN)
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .with_context(|| format!("cannot create a folder in {}", parent.display()))?;
        for schedule in schedules {
            let [path, _] = files::schedules(made.path(), schedule.name());
            let folder = path.parent().expect("it lies in a folder");
            pba_files::create_folder(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
            pba_files::replace(&path, formats::json::write(schedule).as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        record.live().save(made.path())?;
        pba_files::publish_folder(made.path(), &record.directory)
            .with_context(|| format!("cannot create {}", record.directory.display()))?;
        // It was moved: there is nothing to remove.
        let _ = made.keep();
        Ok(record)
    }

    /// Reads the folder of a job. One that was running is queued again if this server hosts it; otherwise
    /// it is still running.
    pub(crate) fn open(directory: &Path, is_writer: bool) -> anyhow::Result<Record<K>> {
        let path = entry_path::<K>(directory);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut entry: Entry<K::Spec> =
            serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
        // A copy of a folder must not pass for the job.
        let name = entry.spec.name();
        anyhow::ensure!(
            directory.ends_with(name),
            "it holds {} {name:?}, which belongs in a folder of its name",
            K::JOB.name
        );
        if entry.state == JobState::Running && is_writer {
            entry.state = JobState::Queued;
        }
        let (journal, job) = read_journal(directory, usize::MAX).unwrap_or_else(|error| {
            // A job that is done needs no journal; any other cannot resume without it.
            if entry.state != JobState::Done {
                (entry.state, entry.error) = (JobState::Failed, Some(format!("{error:#}")));
            }
            (Vec::new(), None)
        });
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
            journal,
            job,
            progress: None,
            saved_epoch: 0,
            images_before: 0,
            running_since: None,
        };
        let changes = watch::Sender::new(0);
        Record { id, directory, live: Mutex::new(live), changes, cancelled: Notify::new() }
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

    /// Takes a waiting job out of the queue to run it; false when it no longer waits.
    pub(crate) fn begin(&self) -> bool {
        let mut live = self.live();
        let waits = live.entry.state == JobState::Queued;
        if waits {
            // A cancellation that came too late for the previous run does not apply to this one.
            let _ = self.cancelled.notified().now_or_never();
            // That of the last run, until this one tells its own.
            live.entry.place = None;
            self.enter_locked(&mut live, JobState::Running, None);
        }
        waits
    }

    /// Cancels a waiting or running job.
    pub(crate) fn cancel(&self) -> Result<(), Error> {
        let mut live = self.live();
        let state = live.entry.state;
        match state {
            JobState::Queued => self.enter_locked(&mut live, JobState::Cancelled, None),
            // The supervisor ends the trainer and then sets the state.
            JobState::Running => self.cancelled.notify_one(),
            _ => {
                return Err(Error::conflict(format!(
                    "{} {:?} is already {state}; there is nothing to cancel",
                    K::JOB.name,
                    self.id
                )));
            }
        }
        Ok(())
    }

    /// Asks a waiting or running job to end with the part of its work that it does next. On disk, where its
    /// trainer looks, so that it survives both.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        // Locked, so that the job does not end meanwhile.
        let live = self.live();
        let state = live.entry.state;
        if state.is_final() {
            let detail = format!(
                "{} {:?} is {state}; only one that is waiting or running can be asked to end",
                K::JOB.name,
                self.id
            );
            return Err(Error::conflict(detail));
        }
        let path = self.directory.join(files::FINISH);
        let reached = live.job.as_ref().map_or(0, K::epoch);
        // Asked twice, the first wish holds: after a crash the job may be behind where it was then.
        if !self.is_asked_to_finish() {
            pba_files::replace(&path, reached.to_string().as_bytes())
                .map_err(|error| Error::internal(format!("cannot write {}: {error}", path.display())))?;
        }
        drop(live);
        tracing::info!(id = self.id, "{} ends when it next can", K::JOB.name);
        self.changed();
        Ok(())
    }

    /// Queues a failed or cancelled job again, to go on to its end: an earlier wish that it finish is dropped.
    pub(crate) fn resume(&self) -> Result<(), Error> {
        let mut live = self.live();
        let state = live.entry.state;
        match state {
            JobState::Failed | JobState::Cancelled => {
                let wish = self.directory.join(files::FINISH);
                match pba_files::remove(&wish) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(Error::internal(format!("cannot remove {}: {error}", wish.display())));
                    }
                    _ => {}
                }
                self.enter_locked(&mut live, JobState::Queued, None);
                Ok(())
            }
            _ => Err(Error::conflict(format!(
                "{0} {1:?} is {state}; only a failed or cancelled {0} can be resumed",
                K::JOB.name,
                self.id
            ))),
        }
    }

    /// Sets the state, on disk too.
    pub(crate) fn enter(&self, state: JobState, error: Option<String>) {
        self.enter_locked(&mut self.live(), state, error);
    }

    fn enter_locked(&self, live: &mut Live<K>, state: JobState, error: Option<String>) {
        live.entry.seconds = live.seconds();
        live.running_since = (state == JobState::Running).then(Instant::now);
        (live.entry.state, live.entry.error) = (state, error);
        if state != JobState::Running {
            live.progress = None;
        }
        live.save_or_warn(&self.directory);
        self.changed();
    }

    /// Says what is wrong with what follows it, or that nothing is any more.
    pub(crate) fn complain(&self, error: Option<String>) {
        let mut live = self.live();
        if live.entry.error != error {
            if let Some(error) = &error {
                tracing::error!(id = self.id, error, "what follows a job cannot start");
            }
            live.entry.error = error;
            live.save_or_warn(&self.directory);
            drop(live);
            self.changed();
        }
    }

    /// Processes an event of the journal.
    ///
    /// # Errors
    /// When the event is not possible at this point.
    pub(crate) fn happened(&self, event: &K::Event, metrics: &Metrics) -> anyhow::Result<()> {
        let mut live = self.live();
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
        let mut live = self.live();
        live.saved_epoch = epoch;
        // The time until here is not lost when the server is killed.
        live.entry.seconds = live.seconds();
        live.running_since = live.running_since.map(|_| Instant::now());
        live.save_or_warn(&self.directory);
    }

    /// Sets the state to that of the first `lines` lines of the journal on disk, after `epoch` epochs, from
    /// which a trainer resumes. That may be fewer events than were reported, or more: a killed trainer may have written
    /// events that it did not report.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(crate) fn reread(&self, epoch: u32, lines: usize) -> anyhow::Result<()> {
        let (journal, job) = read_journal::<K>(&self.directory, lines)?;
        let mut live = self.live();
        let images = |job: &K| {
            let spec = job.spec();
            spec.images() / u64::from(spec.epochs()) * u64::from(job.epoch())
        };
        live.images_before = job.as_ref().map_or(0, images);
        (live.journal, live.job, live.saved_epoch) = (journal, job, epoch);
        drop(live);
        self.changed();
        Ok(())
    }

    /// Its trainer tells where it trains.
    pub(crate) fn placed(&self, place: TrainingPlace) {
        let mut live = self.live();
        live.entry.place = Some(place);
        live.save_or_warn(&self.directory);
        drop(live);
        self.changed();
    }

    /// Records the progress.
    pub(crate) fn progressed(&self, progress: Progress, metrics: &Metrics) {
        let mut live = self.live();
        let before = live.progress.as_ref();
        let images =
            progress.images.saturating_sub(before.map_or(live.images_before, |before| before.images));
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
        self.live.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
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

    /// A full disk must not end a job whose state is in memory; the next save may work.
    fn save_or_warn(&self, directory: &Path) {
        if let Err(error) = self.save(directory) {
            tracing::error!(error = %format!("{error:#}"), "cannot save the state of {}", K::JOB.one);
        }
    }

    fn save(&self, directory: &Path) -> anyhow::Result<()> {
        let path = entry_path::<K>(directory);
        pba_files::replace(&path, &serde_json::to_vec_pretty(&self.entry)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The file with a job's spec and state.
fn entry_path<K: Run>(directory: &Path) -> PathBuf {
    directory.join(format!("{}.json", K::JOB.name))
}

/// The lines of a journal up to the last one in the first `lines_max` that a job can resume from, and
/// the job's state there.
fn read_journal<K: Run>(directory: &Path, lines_max: usize) -> anyhow::Result<(Vec<String>, Option<K>)> {
    let path = directory.join(files::JOURNAL);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    // The torn end of a journal may be any bytes.
    let text = String::from_utf8_lossy(&bytes);
    let text: String = text.split_inclusive('\n').take(lines_max).collect();
    let replayed =
        journal::replay::<K>(&text).with_context(|| format!("the journal {} is damaged", path.display()))?;
    let lines = replayed.as_ref().map_or(0, |replay| replay.events);
    let journal = text.lines().take(lines).map(str::to_owned).collect();
    Ok((journal, replayed.map(|replay| replay.run)))
}
