//! One job: its spec, its state and its journal.

mod asked;
mod lines;
mod schedules;
mod store;
mod told;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use pba_schedules::Schedule;
use pba_search::protocol::files;
use pba_search::{Progress, Run, Spec, SpecError, TrainingPlace};
use pba_wire::jobs::{Job, JobAnswer, JobState, Missing};
use tokio::sync::{Notify, watch};

use crate::catalog::schedules::Registry;
use crate::data_lock::DataLock;
use crate::error::Error;
use crate::jobs::entry::{self, Digests, Entry, OnDisk, Source};
use crate::jobs::record::lines::Tail;
use crate::sync::lock;

pub(crate) use crate::jobs::record::lines::{Lines, Mark};

/// A job's state and where it trains.
pub(crate) type Standing = (JobState, Option<TrainingPlace>);

/// The part that changes while a job runs.
struct Live<K: Run> {
    entry: Entry<K::Spec>,
    /// The schedules that it was requested with.
    digests: Digests,
    /// Whether it is cancelled, on disk, and its trainer has not ended yet.
    is_cancelled: bool,
    /// Whether it was removed: its folder may be that of another job of its name.
    is_removed: bool,
    /// Whether it is asked to end with the part of its work that it does next.
    is_finishing: bool,
    /// What it waits for, if that is known.
    waiting: Option<String>,
    journal: Tail,
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
/// not: reading never waits for a disk.
pub(crate) struct Record<K: Run> {
    id: String,
    directory: PathBuf,
    /// The right to write there.
    lock: Arc<DataLock>,
    live: Mutex<Live<K>>,
    /// Held by who changes the entry, or what goes with it on disk.
    storing: Mutex<()>,
    /// Counts changes, for watchers.
    changes: watch::Sender<u64>,
    /// Notified when the job should end.
    pub(crate) cancelled: Notify,
}

impl<K: Run> Record<K> {
    /// A new job, which has no folder yet.
    pub(super) fn begun(parent: &Path, entry: Entry<K::Spec>, lock: &Arc<DataLock>) -> Record<K> {
        let directory = parent.join(entry.spec.name());
        Record::new(directory, entry, lock, 0, None)
    }

    /// Creates the folder of a new job, with the schedules that its trainer needs.
    ///
    /// # Errors
    /// When the disk does not take it. Then there is no folder.
    pub(crate) fn create(&self, schedules: &[Arc<Schedule>]) -> Result<(), Error> {
        self.lock.check_in_place()?;
        let entry = self.live().entry.clone();
        entry::create_folder::<K>(&self.directory, &entry, schedules)?;
        self.live().digests = entry::digests_of(schedules);
        Ok(())
    }

    /// Reads the folder of a job. One that was running is queued again if this server hosts it; otherwise
    /// it is still running.
    pub(crate) fn open(directory: &Path, lock: &Arc<DataLock>) -> anyhow::Result<Record<K>> {
        let (mut entry, lost) = entry::read::<K>(directory)?;
        if lost.is_some() {
            entry.state = JobState::Failed;
        } else if lock.is_writer() {
            if let Err(error) = entry::keep_request::<K>(directory, &entry) {
                tracing::warn!(
                    id = entry.spec.name(),
                    error = error.detail,
                    "cannot keep what a job was asked"
                );
            }
            if entry.state == JobState::Running {
                entry.state = JobState::Queued;
            }
            // The server was killed between the two.
            let asked = directory.join(files::FINISH_ASKED);
            match std::fs::rename(&asked, directory.join(files::FINISH)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(path = %asked.display(), %error, "cannot pass on that a job is to end");
                }
                _ => {}
            }
        }
        let remedy = |fault| format!("{fault}; resumed, it goes on from what is whole, to the same result");
        let (lines, job, fault) = match OnDisk::<K>::read(directory, usize::MAX) {
            Ok(OnDisk { job: Some(job), .. }) if job.spec().name() != entry.spec.name() => {
                let journal = directory.join(files::JOURNAL);
                let found = job.spec().name();
                (0, None, Some(format!("the journal {} is that of {found:?}", journal.display())))
            }
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
                (lines, job, fault.map(remedy))
            }
            // No trainer goes on with it.
            Err(error) => (0, None, Some(format!("{error:#}"))),
        };
        let lost = lost.map(|damage| {
            let known = "its state is not known, and what it was asked is from its request.json";
            if fault.is_some() { format!("{damage}; {known}") } else { remedy(format!("{damage}; {known}")) }
        });
        // Of a job that is done the rest stays, as what it learned.
        if let Some(fault) = [lost, fault].into_iter().flatten().reduce(|one, next| format!("{one}; {next}"))
        {
            tracing::error!("{} {:?}: {fault}", K::JOB.name, entry.spec.name());
            entry.error = Some(fault);
            // What its user asked for stands.
            if entry.state != JobState::Cancelled {
                entry.state = JobState::Failed;
            }
        }
        // The file is written when the state changes.
        let path = entry::path_in::<K>(directory);
        let since = || path.metadata().ok()?.modified().ok()?.elapsed().ok();
        let is_running = entry.state == JobState::Running;
        let record = Record::new(directory.to_owned(), entry, lock, lines, job);
        record.live().digests = entry::digests_in(directory);
        if is_running {
            record.live().running_since = since().and_then(|elapsed| Instant::now().checked_sub(elapsed));
        }
        Ok(record)
    }

    fn new(
        directory: PathBuf,
        entry: Entry<K::Spec>,
        lock: &Arc<DataLock>,
        lines: usize,
        job: Option<K>,
    ) -> Record<K> {
        let id = entry.spec.name().to_owned();
        let live = Live {
            entry,
            digests: Digests::new(),
            is_cancelled: false,
            is_removed: false,
            is_finishing: directory.join(files::FINISH).exists(),
            waiting: None,
            journal: Tail::on_disk(lines),
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
            lock: Arc::clone(lock),
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

    /// The search that it follows, if it is a comparison that was promised to one.
    pub(crate) fn follows(&self) -> Option<String> {
        self.live().entry.follows.clone()
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

    /// Its description in the API, with what became of its schedules in the registry.
    pub(crate) fn answer(&self, registry: &Registry) -> Job<K::Spec> {
        let live = self.live();
        let Entry { mut spec, state, error, place, follows, created, .. } = live.entry.clone();
        // With the sizes that it got when it began.
        if let Some(job) = &live.job {
            spec = job.spec().clone();
        }
        let finishing = !state.is_final() && live.is_finishing;
        let warnings = warnings(&mut spec, registry);
        let training = spec.training();
        let (changed, notes): (Vec<&str>, Vec<String>) = live.notes(registry).into_iter().unzip();
        let mut results = K::results(live.job.as_ref(), &spec, state == JobState::Done);
        K::withhold(&mut results, &changed);
        JobAnswer {
            id: self.id.clone(),
            state,
            created: i64::try_from(created).ok().and_then(rfc3339),
            epoch: live.job.as_ref().map_or(0, K::epoch),
            epochs: spec.epochs(),
            results,
            seconds: (live.seconds() * 10.0).round() / 10.0,
            error,
            dataset: training.dataset.clone(),
            model: training.model.to_string(),
            place,
            progress: self.told(&live),
            waiting: live.waiting.clone().filter(|_| !state.is_final()),
            finishing,
            follows,
            notes,
            warnings,
            spec,
        }
    }

    /// Watches for changes.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// At most `max` lines of the journal after the first `seen`, the job's state and its place.
    pub(crate) fn lines_after(&self, seen: usize, max: usize) -> (Lines, Standing) {
        let live = self.live();
        (live.journal.after(seen, max), (live.entry.state, live.entry.place.clone()))
    }

    /// The same of lines that are on disk, for which it waits; none where there is no journal.
    ///
    /// # Errors
    /// When it cannot be read, or the job was removed: what lies there now may be another's.
    pub(crate) fn lines_on_disk(
        &self,
        mark: &mut Mark,
        seen: usize,
        end: usize,
        max: usize,
    ) -> Result<Vec<String>, Error> {
        let lines = lines::read(&self.directory, mark, seen, end, max);
        self.check_kept()?;
        match lines {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            lines => lines.map_err(Error::internal),
        }
    }

    /// The journal, from the disk, for which it waits: the lines that are as they were written, and which are not.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn journal(&self) -> Result<(Vec<String>, Option<Missing>), Error> {
        let last = self.live().journal.count();
        let lines = self.lines_on_disk(&mut Mark::default(), 0, last, usize::MAX)?;
        let first = lines.len() + 1;
        Ok((lines, (first <= last).then_some(Missing { first, last })))
    }

    /// Its progress, as last reported by the trainer.
    pub(crate) fn progress(&self) -> Option<Progress> {
        self.told(&self.live())
    }

    /// The progress that its trainer reported; it reckons with all epochs, so what is asked to end has no known
    /// time left.
    fn told(&self, live: &Live<K>) -> Option<Progress> {
        let known = |progress: Progress| match progress.seconds_left.filter(|_| !live.is_finishing) {
            None => Progress { seconds_left: None, ..progress },
            Some(_) => progress,
        };
        live.progress.clone().map(known)
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
        if live.entry.state.is_final() {
            live.journal.forget();
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

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn live(&self) -> MutexGuard<'_, Live<K>> {
        lock(&self.live)
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
}

/// A time, given in milliseconds since 1970, in UTC.
fn rfc3339(milliseconds: i64) -> Option<String> {
    jiff::Timestamp::from_millisecond(milliseconds).ok().map(|time| format!("{time:.3}"))
}

/// What a job is asked that cannot do what it is for, as far as its spec and its schedules say.
fn warnings<S: Spec>(spec: &mut S, registry: &Registry) -> Vec<String> {
    let (mut warnings, epochs) = (spec.warnings(), spec.training().epochs);
    let schedules = spec.schedules().into_iter().filter_map(|name| registry.get(name).ok());
    for schedule in schedules.filter(|schedule| schedule.segments().len() > epochs as usize) {
        warnings.push(format!(
            "schedule {:?} has {} policies that follow one another, of which {epochs} epochs can use {epochs} at most",
            schedule.name(),
            schedule.segments().len(),
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use pba_search::{Event, Search, SearchSpec, journal};

    use super::*;
    use crate::error::Cause;
    use crate::metrics::Metrics;

    fn begun(folder: &Path, lock: &Arc<DataLock>) -> Record<Search> {
        let spec =
            SearchSpec::from_json(r#"{"name": "mine", "epochs": 12, "perturbation_interval": 3}"#).unwrap();
        let source = Source::new("shapes".to_owned(), Default::default());
        let record = Record::begun(folder, Entry::new(spec, source, 0, None), lock);
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
        let lock = DataLock::of_test(folder.path());
        let record = begun(folder.path(), &lock);
        let metrics = Metrics::new().unwrap();
        let started = Event::Started { spec: Box::new(record.spec()), dataset_digest: "d".to_owned() };
        let line = journal::line(&started);
        std::fs::write(record.directory().join(files::JOURNAL), journal::kept(&line, 1)).unwrap();
        record.happened(&started, &metrics).unwrap();
        record.progressed(progress(700), &metrics);
        assert_eq!(metrics.search_images_trained.get(), 700);
        // In another server, the next trainer goes on with members in the middle of the first generation.
        let record = Record::<Search>::open(record.directory(), &lock).unwrap();
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
    async fn a_search_that_trains_on_no_image_does_not_get_on() {
        let folder = tempfile::tempdir().unwrap();
        let lock = DataLock::of_test(folder.path());
        let record = begun(folder.path(), &lock);
        let metrics = Metrics::new().unwrap();
        let is_told = || metrics.text().unwrap().contains("pba_search_progress_timestamp_seconds{");
        assert!(!is_told());
        record.started(&metrics);
        let timestamp = metrics.search_progress_timestamp.with_label_values(&[record.id()]);
        let moves = |images: u64| {
            timestamp.set(0);
            record.progressed(progress(images), &metrics);
            timestamp.get() > 0
        };
        assert!(timestamp.get() > 0, "its trainer was started");
        assert_eq!([0, 10, 10, 20].map(moves), [false, true, false, true]);
        record.ended(&metrics);
        assert!(!is_told());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_that_is_removed_touches_no_other_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let lock = DataLock::of_test(folder.path());
        let record = begun(folder.path(), &lock);
        assert_eq!(record.retire().unwrap_err().cause, Cause::Conflict, "it runs");
        record.enter(JobState::Failed, None);
        let retired = record.retire().unwrap();
        assert!(retired.exists() && !record.directory().exists());
        let other = begun(folder.path(), &lock);
        // A request that found the first one before it was removed.
        for answer in [record.resume(), record.retire().map(drop), record.schedule_removed(true).map(drop)] {
            assert_eq!(answer.unwrap_err().cause, Cause::NotFound);
        }
        record.complain(Some("anything".to_owned()));
        assert!(retired.exists());
        // Whoever watches it gets no line of the other's.
        let started = Event::Started { spec: Box::new(other.spec()), dataset_digest: "d".to_owned() };
        let line = journal::kept(&journal::line(&started), 1);
        std::fs::write(other.directory().join(files::JOURNAL), line).unwrap();
        let lines = |record: &Record<Search>| record.lines_on_disk(&mut Mark::default(), 0, 1, 9);
        assert_eq!(lines(&other).unwrap().len(), 1);
        assert_eq!(lines(&record).unwrap_err().cause, Cause::NotFound);
        let read = Record::<Search>::open(other.directory(), &DataLock::of_test(folder.path())).unwrap();
        assert_eq!((read.state(), read.error()), (JobState::Running, None));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cancel_stays_on_disk_until_its_trainer_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let lock = DataLock::of_test(folder.path());
        let record = begun(folder.path(), &lock);
        let on_disk = || Record::<Search>::open(record.directory(), &lock).unwrap().state();
        record.cancel().unwrap();
        assert_eq!((record.state(), on_disk()), (JobState::Running, JobState::Cancelled));
        record.schedule_removed(true).unwrap();
        assert_eq!((record.state(), on_disk()), (JobState::Running, JobState::Cancelled));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_stored_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let lock = DataLock::of_test(folder.path());
        let record = begun(folder.path(), &lock);
        let obstacle = record.directory().join("search.json.partial");
        std::fs::create_dir(&obstacle).unwrap();
        assert!(record.cancel().is_err());
        record.enter(JobState::Failed, Some("anything".to_owned()));
        let error = record.resume().unwrap_err();
        assert!(error.detail.ends_with("nothing was changed"), "{}", error.detail);
        assert_eq!(record.state(), JobState::Failed);
        std::fs::remove_dir(&obstacle).unwrap();
        record.resume().unwrap();
        assert!(record.begin());
        record.cancel().unwrap();
        assert_eq!(record.state(), JobState::Running, "until its trainer has ended");
        // Whatever is stored meanwhile, after a restart it is cancelled.
        record.saved(3);
        assert_eq!(Record::<Search>::open(record.directory(), &lock).unwrap().state(), JobState::Cancelled);
        record.enter(JobState::Queued, None);
        assert_eq!(record.state(), JobState::Cancelled, "though the server was told to stop");
    }
    #[tokio::test(flavor = "multi_thread")]
    async fn a_trainer_sees_no_wish_that_was_refused() {
        let folder = tempfile::tempdir().unwrap();
        let lock = DataLock::of_test(folder.path());
        let record = begun(folder.path(), &lock);
        let [wish, asked] = [files::FINISH, files::FINISH_ASKED].map(|name| record.directory().join(name));
        let obstacle = record.directory().join("finish.asked.partial/full");
        std::fs::create_dir_all(&obstacle).unwrap();
        let error = record.finish().unwrap_err();
        assert!(error.detail.ends_with("nothing was changed"), "{}", error.detail);
        assert!(!wish.exists() && !asked.exists());
        std::fs::remove_dir_all(obstacle.parent().unwrap()).unwrap();
        record.finish().unwrap();
        assert_eq!([&wish, &asked].map(|path| path.exists()), [true, false]);
        // The server was killed, or the power failed, before the trainer could see it.
        std::fs::rename(&wish, &asked).unwrap();
        let again = Record::<Search>::open(record.directory(), &lock).unwrap();
        assert_eq!([&wish, &asked].map(|path| path.exists()), [true, false]);
        again.cancel().unwrap();
        again.resume().unwrap();
        assert!(!wish.exists(), "who resumes it wants all of it");
    }
}
