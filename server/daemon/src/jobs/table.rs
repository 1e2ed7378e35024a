//! The jobs of one kind, by name.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context;
use pba_augment::Base;
use pba_datasets::BUILT_IN;
use pba_schedules::Schedule;
use pba_search::{Run, Spec, read_fields};
use pba_types::SplitName;
use pba_wire::jobs::JobState;
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::catalog::datasets::Catalog;
use crate::catalog::schedules::Registry;
use crate::data_lock::DataLock;
use crate::error::{Cause, Error};
use crate::jobs::counts;
use crate::jobs::entry::{Entry, FolderState, Source, is_passing};
use crate::jobs::record::Record;
use crate::jobs::workplace::{Got, Workplace};
use crate::sync::lock;

/// Longest that a request waits for others to be checked; then it is refused.
const CHECK_PATIENCE: Duration = Duration::from_secs(20);
/// Most jobs of a kind that wait or run at a time; more are refused.
const WAITING_MAX: usize = 64;

/// Every job of a kind, by id: its name.
pub(crate) struct Table<K: Run> {
    directory: PathBuf,
    pub(crate) workplace: Arc<Workplace>,
    records: Mutex<Records<K>>,
    /// Held while all of them are read from the disk: the states of the files that were read, by the folder's name.
    reading: Mutex<BTreeMap<String, FolderState>>,
}

struct Records<K: Run> {
    there: BTreeMap<String, Arc<Record<K>>>,
    /// Those that are being written to disk, and not shown yet. They keep their names.
    begun: BTreeMap<String, Arc<Record<K>>>,
    /// Names of folders that cannot be read as jobs, and why.
    others: BTreeMap<String, String>,
}

impl<K: Run> Records<K> {
    fn all(&self) -> impl Iterator<Item = &Arc<Record<K>>> {
        self.there.values().chain(self.begun.values())
    }

    /// Whether a name belongs to a job, or to a folder that cannot be read as one.
    fn hold(&self, name: &str) -> bool {
        self.there.contains_key(name) || self.begun.contains_key(name) || self.others.contains_key(name)
    }
}

/// A request that is valid, as far as can be checked without the trainer.
pub(super) struct Checked<K: Run> {
    pub(super) spec: K::Spec,
    /// Where its images are.
    pub(super) source: Source,
    /// The schedules that the trainer needs, or that of the comparison that follows.
    pub(super) schedules: Vec<Arc<Schedule>>,
    /// Whether the client chose the name.
    named: bool,
}

impl<K: Run> Table<K> {
    /// Opens the jobs in a data directory.
    ///
    /// # Errors
    /// When their folder cannot be created or listed.
    pub(super) fn open(data: &Path, workplace: &Arc<Workplace>) -> anyhow::Result<Table<K>> {
        counts::begin_kind::<K>(&workplace.metrics);
        let directory = data.join(K::JOB.plural);
        let (there, begun, others) = Default::default();
        let records = Mutex::new(Records { there, begun, others });
        let reading = Mutex::default();
        let table = Table { directory, workplace: Arc::clone(workplace), records, reading };
        table.read()?;
        Ok(table)
    }

    /// Reads every job from the disk, as the server reads them that hosts them, or as another.
    ///
    /// # Errors
    /// When their folder cannot be created or listed.
    pub(super) fn read(&self) -> anyhow::Result<()> {
        self.read_all(&mut self.reading())
    }

    fn read_all(&self, states: &mut BTreeMap<String, FolderState>) -> anyhow::Result<()> {
        let lock = &self.workplace.lock;
        if lock.is_writer() {
            pba_files::create_folder(&self.directory)
                .with_context(|| format!("cannot create {}", self.directory.display()))?;
        }
        let (known, others) = {
            let records = self.records();
            (records.there.clone(), records.others.clone())
        };
        let found = read(&self.directory, lock, &known, &others, states)?;
        found.there.values().for_each(|record| self.workplace.latest.saw(record.created()));
        *self.records() = found;
        self.count_states();
        Ok(())
    }

    fn reading(&self) -> MutexGuard<'_, BTreeMap<String, FolderState>> {
        lock(&self.reading)
    }

    /// Every job, by id.
    pub(crate) fn list(&self) -> Vec<Arc<Record<K>>> {
        self.look_again();
        self.records().there.values().cloned().collect()
    }

    /// The job with an id.
    ///
    /// # Errors
    /// When there is none, with the nearest id.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Record<K>>, Error> {
        self.look_again();
        let there = &self.records().there;
        there
            .get(id)
            .cloned()
            .ok_or_else(|| Error::not_found(K::JOB.name, id, there.keys().map(String::as_str)))
    }

    /// If another server hosts the jobs: reads their state from disk.
    fn look_again(&self) {
        let lock = &self.workplace.lock;
        if lock.is_writer() {
            return;
        }
        let read = || {
            let mut states = self.reading();
            // Unless it hosts them by now.
            if lock.is_writer() { Ok(()) } else { self.read_all(&mut states) }
        };
        if let Err(error) = tokio::task::block_in_place(read) {
            tracing::error!(error = format!("{error:#}"), "the list of {} is outdated", K::JOB.plural);
        }
    }

    /// Queues a job that was checked here, once the trainer finds it right too. What was promised to others is checked
    /// `again` then, with its name, while nobody else can take one.
    ///
    /// # Errors
    /// When its name was taken meanwhile, too many wait, or there is no trainer that can run it; those of `again`.
    pub(super) async fn start(
        &self,
        registry: &Registry,
        checked: Checked<K>,
        again: impl Fn(&K::Spec) -> Result<(), Error>,
    ) -> Result<Arc<Record<K>>, Error> {
        let Checked { mut spec, source, schedules, named } = checked;
        self.check_room(&self.records())?;
        self.ask_trainer(&spec, &source).await?;
        let begun = {
            let _names = tokio::task::block_in_place(|| registry.names());
            if !named {
                let name = self.free_name(registry, &self.records(), &spec);
                spec.rename(name);
            }
            again(&spec)?;
            let mut records = self.records();
            self.check_room(&records)?;
            // Checked again under the lock: another request may have taken the name meanwhile.
            if self.is_taken(registry, &records, spec.name()) {
                return Err(name_taken::<K>(spec.name()));
            }
            check_excluded(&records, &spec, &source)?;
            self.begin(&mut records, spec, source, None)
        };
        let record = self.add(begun, &schedules)?;
        tracing::info!(id = record.id(), "{} queued", K::JOB.name);
        self.count_states();
        self.workplace.queued.notify_one();
        Ok(record)
    }

    /// Takes the name of a new job, which may follow another one.
    fn begin(
        &self,
        records: &mut Records<K>,
        spec: K::Spec,
        source: Source,
        follows: Option<&str>,
    ) -> Arc<Record<K>> {
        let entry = Entry::new(spec, source, self.workplace.latest.now(), follows);
        let record = Arc::new(Record::begun(&self.directory, entry, &self.workplace.lock));
        records.begun.insert(record.id().to_owned(), Arc::clone(&record));
        record
    }

    /// Adds a new job, on disk first. Requests for jobs do not wait for the disk.
    fn add(&self, begun: Arc<Record<K>>, schedules: &[Arc<Schedule>]) -> Result<Arc<Record<K>>, Error> {
        let created = tokio::task::block_in_place(|| begun.create(schedules));
        let mut records = self.records();
        records.begun.remove(begun.id());
        created?;
        records.there.insert(begun.id().to_owned(), Arc::clone(&begun));
        Ok(begun)
    }

    /// Asks the trainer whether it could run a job. Each question is a process, so few are asked at a time.
    ///
    /// # Errors
    /// When it could not, or too many are asked already.
    async fn ask_trainer(&self, spec: &K::Spec, source: &Source) -> Result<(), Error> {
        let Workplace { trainer, cache, checks, .. } = &*self.workplace;
        let _permit = timeout(CHECK_PATIENCE, checks.acquire()).await.map_err(|_| {
            let seconds = CHECK_PATIENCE.as_secs();
            Error::busy(format!(
                "other specs have been checked for {seconds} s, two at a time: the limit; try again"
            ))
        })?;
        let checked = trainer.check::<K>(spec, source, cache).await;
        match &checked {
            Err(error) if error.cause == Cause::NoTrainer => {
                self.workplace.trouble.set(error.detail.clone(), Got::Asked);
            }
            // It was refused by a trainer that runs; a disk that is full says nothing of one.
            Ok(()) | Err(_) => self.workplace.trouble.got(Got::Asked),
        }
        checked
    }

    /// Checks a job that another one will start, with the schedule `promised` that this will learn; gives its other
    /// schedules.
    ///
    /// # Errors
    /// When it could not be started now.
    pub(super) async fn check_later(
        &self,
        registry: &Registry,
        mut spec: K::Spec,
        promised: &str,
        source: &Source,
    ) -> Result<Vec<Arc<Schedule>>, Error> {
        check_excluded(&self.records(), &spec, source)?;
        let schedules = schedules_of::<K>(registry, &mut spec, Some(promised))?;
        self.ask_trainer(&spec, source).await?;
        Ok(schedules)
    }

    /// Queues a job that follows one that is done, with the schedules that this learned and was requested with.
    ///
    /// # Errors
    /// When its name was taken, a schedule is gone or was replaced, or its folder cannot be written.
    pub(super) fn start_later<F: Run>(
        &self,
        registry: &Registry,
        mut spec: K::Spec,
        followed: &Record<F>,
    ) -> Result<(), Error> {
        let names = registry.names();
        let mut records = self.records();
        if records.hold(spec.name()) {
            return Err(name_taken::<K>(spec.name()));
        }
        let source = followed.source();
        check_excluded(&records, &spec, &source)?;
        let schedules = schedules_of::<K>(registry, &mut spec, None)?;
        schedules.iter().try_for_each(|schedule| followed.check_same(schedule))?;
        let begun = self.begin(&mut records, spec, source, Some(followed.id()));
        drop((records, names));
        let record = self.add(begun, &schedules)?;
        tracing::info!(id = record.id(), "{} queued", K::JOB.name);
        self.count_states();
        Ok(())
    }

    fn check_room(&self, records: &Records<K>) -> Result<(), Error> {
        let (kept, jobs_max) = (records.all().count(), self.workplace.jobs_max);
        if kept >= jobs_max {
            let detail = format!(
                "{kept} {} are kept: the limit (jobs_max); remove some that are no longer needed",
                K::JOB.plural
            );
            return Err(Error::new(Cause::TooMany, detail));
        }
        check_waiting(records)
    }

    /// Reads a request, and fills in the server's defaults: a free name, and the dataset's own base
    /// augmentation.
    ///
    /// # Errors
    /// When a field is wrong, the dataset or a schedule is unknown, or the name is taken.
    pub(super) fn check(
        &self,
        catalog: &Catalog,
        registry: &Registry,
        body: &[u8],
    ) -> Result<Checked<K>, Error> {
        let text =
            std::str::from_utf8(body).map_err(|error| Error::body(format!("not UTF-8 text: {error}")))?;
        if text.trim().is_empty() {
            return Err(Error::body(
                "the body is empty; expected the spec as a JSON object, {} for the defaults",
            ));
        }
        let mut fields = read_fields(text)
            .map_err(|error| Error::body(format!("the spec is not a JSON object: {error}")))?;
        let named = fields.get("name").is_some_and(|name| !name.is_null());
        // Read once without the name, so that a free one can be made of the checked fields.
        let spec = parse::<K>(&fields)?;
        let training = spec.training();
        let dataset = catalog.get(&training.dataset)?;
        let served = dataset.served()?;
        // The trainer would import what is missing a second time, and the job would never be scored on it.
        served.check_imported().map_err(|error| error.of_field("dataset"))?;
        let (train, _) = served.split(SplitName::Train).map_err(|error| error.of_field("dataset"))?;
        let as_they_are = || format!("{} trains on images of one size", K::JOB.one);
        if train.shape().is_none() {
            return Err(Error::parameter(
                "dataset",
                &training.dataset,
                format!("its training images differ in size, and {}", as_they_are()),
                "a dataset whose training images share one size",
            ));
        }
        if !named {
            let name = self.free_name(registry, &self.records(), &spec);
            fields.insert("name".to_owned(), name.into());
        }
        let asked = training.base.as_deref();
        let base = Base::for_training(asked, served.base_of(SplitName::Train)?).map_err(|error| {
            let allowed = "identity, or pad_crop:N, flip, cutout:N";
            Error::parameter("base", asked.unwrap_or_default(), error.to_string(), allowed)
        })?;
        if asked.is_none() {
            fields.insert("base".to_owned(), base.to_string().into());
        }
        let mut spec = parse::<K>(&fields)?;
        let schedules = schedules_of::<K>(registry, &mut spec, None)?;
        // Checked again: two names may be those of one schedule.
        let spec = K::Spec::from_json(&serde_json::to_string(&spec).map_err(Error::internal)?)
            .map_err(|error| Error::spec(&error))?
            .for_splits(served.has(SplitName::Val));
        // A free name may be taken at any moment, and is then replaced by another one.
        if named {
            self.check_free(registry, spec.name())?;
        }
        let path = match dataset.source() {
            None => BUILT_IN.to_owned(),
            Some(path) => path.display().to_string(),
        };
        let digest = |name| served.split(name).ok().map(|(split, _)| split.digest().to_string());
        let splits =
            SplitName::ALL.into_iter().filter(|name| served.has(*name)).map(|name| (name, digest(name)));
        let source = Source::new(path, splits.collect());
        check_excluded(&self.records(), &spec, &source)?;
        Ok(Checked { spec, source, schedules, named })
    }

    /// Whether a new job cannot have a name.
    fn is_taken(&self, registry: &Registry, records: &Records<K>, name: &str) -> bool {
        records.hold(name) || (K::JOB.learns && (registry.get(name).is_ok() || registry.has_other(name)))
    }

    /// Checks that a new job can have a name.
    ///
    /// # Errors
    /// When it cannot.
    pub(super) fn check_free(&self, registry: &Registry, name: &str) -> Result<(), Error> {
        // Asked of the disk before the jobs are locked.
        let has_file = K::JOB.learns && registry.has_file(name);
        match has_file || self.is_taken(registry, &self.records(), name) {
            true => Err(name_taken::<K>(name)),
            false => Ok(()),
        }
    }

    /// Whether a name belongs to a job, or to a folder that cannot be read as one.
    pub(super) fn has(&self, name: &str) -> bool {
        self.records().hold(name)
    }

    /// The folders that cannot be read as jobs, and why, as far as it was seen when they were read.
    pub(super) fn ignored(&self) -> Vec<String> {
        let records = self.records();
        let path = |name: &str| self.directory.join(name);
        let ignored = records.others.iter();
        ignored.map(|(name, reason)| format!("{} is ignored: {reason}", path(name).display())).collect()
    }

    /// Every job that this server hosts, with those that are being written to disk.
    pub(super) fn all(&self) -> Vec<Arc<Record<K>>> {
        self.records().all().cloned().collect()
    }

    /// A free name derived from dataset and model.
    fn free_name(&self, registry: &Registry, records: &Records<K>, spec: &K::Spec) -> String {
        let training = spec.training();
        (1u32..)
            .map(|number| format!("{}-{}-{number}", training.dataset, training.model))
            .find(|name| !self.is_taken(registry, records, name))
            .expect("some number is free")
    }

    /// Cancels a waiting or running job.
    ///
    /// # Errors
    /// When there is none, or it has already ended.
    pub(crate) fn cancel(&self, id: &str) -> Result<Arc<Record<K>>, Error> {
        let record = self.get(id)?;
        record.cancel()?;
        tracing::info!(id, state = %record.state(), "{} is cancelled by request", K::JOB.name);
        self.count_states();
        Ok(record)
    }

    /// Queues a failed or cancelled job again, while no other request can take a name.
    ///
    /// # Errors
    /// When it is done, running or queued, another one now excludes it, or too many wait.
    pub(super) fn resume(&self, record: &Record<K>) -> Result<(), Error> {
        {
            let records = self.records();
            check_excluded(&records, &record.spec(), &record.source())?;
            check_waiting(&records)?;
        }
        record.resume()?;
        tracing::info!(id = record.id(), "{} queued again, to be resumed", K::JOB.name);
        self.count_states();
        self.workplace.queued.notify_one();
        Ok(())
    }

    /// Removes a job that has ended, on disk first, with all that its trainer left. What it learned stays.
    ///
    /// # Errors
    /// When there is none, it waits or runs, or the disk does not take it: then it stays.
    pub(crate) fn remove(&self, id: &str) -> Result<Arc<Record<K>>, Error> {
        let record = self.get(id)?;
        let retired = record.retire()?;
        self.records().there.remove(id);
        self.count_states();
        tracing::info!(id, "{} removed", K::JOB.name);
        // Whatever is left is removed at the next start.
        if let Err(error) = std::fs::remove_dir_all(&retired) {
            tracing::warn!(path = %retired.display(), %error, "files of a removed job are left");
        }
        Ok(record)
    }

    /// The jobs that wait for their turn. Those whose dataset is being imported are passed over: their
    /// trainer would import it a second time.
    pub(super) fn waiting(&self, catalog: &Catalog) -> Vec<Arc<Record<K>>> {
        let records = self.records();
        let waiting = records.there.values().filter(|record| record.state() == JobState::Queued);
        let can_run = |record: &&Arc<Record<K>>| {
            let dataset = record.spec().training().dataset.clone();
            let imports = catalog.is_importing(&dataset);
            if imports {
                record.waits_for(Some(format!("its dataset, {dataset:?}, is being imported")));
            }
            !imports
        };
        waiting.filter(can_run).cloned().collect()
    }

    /// Updates the gauges of states, for the jobs that this server hosts.
    pub(super) fn count_states(&self) {
        let records = self.records();
        let hosted = || records.there.values().filter(|_| self.workplace.lock.is_writer());
        for state in JobState::ALL {
            let count = hosted().filter(|record| record.state() == state).count();
            counts::jobs::<K>(&self.workplace.metrics, state, count);
        }
    }

    fn records(&self) -> MutexGuard<'_, Records<K>> {
        lock(&self.records)
    }
}

/// Reads every job in a directory. Of one that another server hosts, what has not changed since it was `known` is not
/// read again.
fn read<K: Run>(
    directory: &Path,
    lock: &Arc<DataLock>,
    known: &BTreeMap<String, Arc<Record<K>>>,
    known_others: &BTreeMap<String, String>,
    states: &mut BTreeMap<String, FolderState>,
) -> anyhow::Result<Records<K>> {
    let is_writer = lock.is_writer();
    let cannot = || format!("cannot list {}", directory.display());
    let (there, begun, others) = Default::default();
    let mut records = Records { there, begun, others };
    let before = std::mem::take(states);
    let folders = match std::fs::read_dir(directory) {
        // The server that writes here has had no job of this kind.
        Err(error) if error.kind() == ErrorKind::NotFound && !is_writer => return Ok(records),
        folders => folders.with_context(cannot)?,
    };
    for folder in folders {
        let path = folder.with_context(cannot)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if is_passing(&name) {
            // A server was killed while creating or removing it; or does so now.
            if is_writer {
                let _ = std::fs::remove_dir_all(&path);
            }
            continue;
        }
        // Before the content: if that changes meanwhile, it is read again the next time.
        let state = FolderState::of::<K>(&path);
        let is_known = !is_writer && before.get(&name) == Some(&state);
        states.insert(name.clone(), state);
        match known.get(&name).filter(|_| is_known) {
            Some(record) => drop(records.there.insert(name, Arc::clone(record))),
            None if is_known => {
                let reason = known_others.get(&name).cloned().unwrap_or_default();
                records.others.insert(name, reason);
            }
            None => match Record::open(&path, lock) {
                Ok(record) => drop(records.there.insert(name, Arc::new(record))),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(path = %path.display(), %error, "not {}; folder ignored", K::JOB.one);
                    records.others.insert(name, error);
                }
            },
        }
    }
    Ok(records)
}

fn parse<K: Run>(fields: &Map<String, Value>) -> Result<K::Spec, Error> {
    K::Spec::try_from(fields.clone()).map_err(|error| Error::spec(&error))
}

/// The schedules that a job trains with, but for the `promised` one, which is not there yet. A request may
/// name one by its digest; then its name is written into the spec.
fn schedules_of<K: Run>(
    registry: &Registry,
    spec: &mut K::Spec,
    promised: Option<&str>,
) -> Result<Vec<Arc<Schedule>>, Error> {
    let (field, others) = K::Spec::schedules_field();
    let mut schedules = Vec::<Arc<Schedule>>::new();
    for name in spec.schedules().into_iter().filter(|name| Some(name.as_str()) != promised) {
        let found = registry.get(name);
        let found = found.map_err(|error| error.of_field(field).or_one_of(others))?;
        found.name().clone_into(name);
        if !schedules.iter().any(|known| known.name() == found.name()) {
            schedules.push(found);
        }
    }
    Ok(schedules)
}

/// Checks that one more job may wait.
fn check_waiting<K: Run>(records: &Records<K>) -> Result<(), Error> {
    let waiting = records.all().filter(|record| !record.state().is_final()).count();
    let detail = || format!("{waiting} {} are waiting or running: the limit", K::JOB.plural);
    if waiting < WAITING_MAX { Ok(()) } else { Err(Error::busy(detail())) }
}

/// Checks that no other job keeps one from being started.
fn check_excluded<K: Run>(records: &Records<K>, spec: &K::Spec, source: &Source) -> Result<(), Error> {
    let mut others = records.all().filter(|record| record.id() != spec.name());
    let reason = others.find_map(|record| record.excludes(spec, source));
    reason.map_or(Ok(()), |reason| Err(Error::spec(&reason)))
}

fn name_taken<K: Run>(name: &str) -> Error {
    let detail = format!(
        "the name {name:?} is taken by {}{}; names are immutable, so choose another one or omit it",
        K::JOB.one,
        if K::JOB.learns {
            " or a schedule, or by a file or folder in the data directory that cannot be read as one"
        } else {
            ""
        }
    );
    Error { value: Some(name.to_owned()), ..Error::conflict(detail).of_field("name") }
}
