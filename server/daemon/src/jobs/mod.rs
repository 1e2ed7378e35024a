//! Jobs: work that a trainer does for the server, one job at a time on each device.
//!
//! A job trains in a child process ([`trainer`]), one at a time on each device ([`places`], [`supervisor`]); the
//! others are queued. The state of each is a fold of its journal ([`record`]), so a restarted server finds every
//! job in its last state, and resumes those that were not done. The kinds of job are listed in
//! [`pba_search::kinds`]; their differences are in [`Run`].

mod counts;
mod cpu_time;
mod entry;
mod places;
mod promises;
pub(crate) mod record;
mod supervisor;
pub(crate) mod table;
pub(crate) mod trainer;
mod workplace;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use pba_search::{Comparison, Run, Search, Spec};
use pba_wire::jobs::JobState;
use tokio::sync::{Notify, Semaphore, watch};

use crate::catalog::datasets::Catalog;
use crate::catalog::schedules::Registry;
use crate::data_lock::DataLock;
use crate::error::Error;
use crate::jobs::record::Record;
use crate::jobs::supervisor::Waiting;
use crate::jobs::table::Table;
use crate::jobs::trainer::Trainer;
use crate::jobs::workplace::{Latest, Trouble, Workplace};
use crate::metrics::Metrics;

/// Most trainers that are asked at a time whether a job could run.
const CHECKS_MAX: usize = 2;

/// Every job, by kind.
pub(crate) struct Jobs {
    kinds: Vec<Arc<dyn Waiting>>,
    /// The same, by the type of their kind.
    tables: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    workplace: Arc<Workplace>,
}

impl Jobs {
    /// Opens the jobs in a data directory; those that were waiting or running are queued again. Decoded
    /// datasets are shared with the server through `cache`. A server that may not write to the data
    /// directory shows them as they are on disk, and changes nothing.
    ///
    /// # Errors
    /// When a directory cannot be created or listed.
    pub(crate) fn open(
        data: &Path,
        cache: &Path,
        trainer: Trainer,
        lock: &Arc<DataLock>,
        jobs_max: usize,
        metrics: Metrics,
    ) -> anyhow::Result<Jobs> {
        let (cache, queued) = (cache.to_owned(), Notify::new());
        let checks = Semaphore::new(CHECKS_MAX);
        let (latest, trouble, lock) = (Latest::default(), Trouble::default(), Arc::clone(lock));
        let workplace =
            Workplace { trainer, cache, lock, checks, queued, metrics, jobs_max, latest, trouble };
        let workplace = Arc::new(workplace);
        let mut jobs = Jobs { kinds: Vec::new(), tables: HashMap::new(), workplace };
        macro_rules! add {
            ($($kind:ident in $file:ident),*) => { $(jobs.add::<pba_search::$kind>(data)?;)* };
        }
        pba_search::kinds!(add);
        Ok(jobs)
    }

    fn add<K: Run>(&mut self, data: &Path) -> anyhow::Result<()> {
        let table = Arc::new(Table::<K>::open(data, &self.workplace)?);
        self.kinds.push(Arc::clone(&table) as Arc<dyn Waiting>);
        self.tables.insert(TypeId::of::<K>(), table);
        Ok(())
    }

    /// Hosts the jobs from now on: those that were waiting or running are queued again.
    ///
    /// # Errors
    /// When a directory cannot be created or listed; then they are left to another server.
    pub(crate) fn take_over(&self) -> anyhow::Result<()> {
        self.kinds.iter().try_for_each(|kind| kind.take_over())
    }

    /// The folders that cannot be read as jobs, and why.
    pub(crate) fn ignored(&self) -> Vec<String> {
        self.kinds.iter().flat_map(|kind| kind.ignored()).collect()
    }

    /// Why the trainer cannot be run, as far as a look at its file tells, for which this waits.
    pub(crate) fn trainer_fault(&self) -> Option<String> {
        Trainer::fault(self.workplace.trainer.program())
    }

    /// What went wrong with the trainer when it was run last, if that is no fault of a job's.
    pub(crate) fn trainer_trouble(&self) -> Option<String> {
        self.workplace.trouble.get()
    }

    /// The jobs of a kind.
    pub(crate) fn of<K: Run>(&self) -> &Table<K> {
        let table = self.tables.get(&TypeId::of::<K>()).and_then(|table| table.downcast_ref());
        table.expect("every kind is added when the jobs are opened")
    }

    /// Checks a request, with the trainer too, and queues the job.
    ///
    /// # Errors
    /// When a field is wrong, the dataset is unknown, the name is taken, too many wait, there is no trainer
    /// that can run, or the comparison that shall follow could not.
    pub(crate) async fn start<K: Run>(
        &self,
        catalog: &Catalog,
        registry: &Registry,
        body: &[u8],
    ) -> Result<Arc<Record<K>>, Error> {
        let mut checked = self.of::<K>().check(catalog, registry, body)?;
        let (comparisons, source) = (self.of::<Comparison>(), checked.source.clone());
        let promised = checked.spec.name().to_owned();
        let later = |error: Error| {
            let detail = match K::JOB.learns {
                true => format!("then_compare: {}", error.detail),
                false => error.detail,
            };
            Error { detail, ..error }
        };
        // A spec without a name may get another one until its job is there.
        let check_promised = |spec: &K::Spec| {
            let Some(comparison) = K::comparison(spec) else { return Ok(()) };
            self.check_promised(&comparison, &source)?;
            self.check_comparison_room()?;
            if K::JOB.learns { comparisons.check_free(registry, comparison.name()) } else { Ok(()) }
        };
        check_promised(&checked.spec).map_err(later)?;
        if let Some(comparison) = K::comparison(&checked.spec).filter(|_| K::JOB.learns) {
            let pinned = comparisons.check_later(registry, comparison, &promised, &source).await;
            checked.schedules = pinned.map_err(later)?;
        }
        self.of::<K>().start(registry, checked, |spec| check_promised(spec).map_err(later)).await
    }

    /// Queues a failed or cancelled job again, to resume from its last checkpoint.
    ///
    /// # Errors
    /// When there is none, it is done, running or queued, another one now excludes it, too many wait, or the comparison
    /// that shall follow could not.
    pub(crate) fn resume<K: Run>(&self, registry: &Registry, id: &str) -> Result<Arc<Record<K>>, Error> {
        // One job at a time, so that no two are queued that exclude each other.
        let _names = registry.names();
        let record = self.of::<K>().get(id)?;
        self.check_resumed(&record)?;
        self.of::<K>().resume(&record)?;
        Ok(record)
    }

    /// Registers the schedules of searches that are done again where they are missing: as after a disk that lost
    /// them, and not where their users removed them.
    fn register_again(&self, registry: &Registry) {
        let done = self.of::<Search>().list().into_iter().filter(|search| search.state() == JobState::Done);
        for search in done.filter(|search| !search.is_schedule_removed()) {
            let schedule = search.job().and_then(|job| job.schedule().cloned());
            if let Some(schedule) = schedule.filter(|_| registry.get(search.id()).is_err()) {
                tracing::warn!(
                    id = search.id(),
                    "the schedule of a search was missing; it is registered again"
                );
                if let Err(error) = registry.put(schedule) {
                    search.complain(Some(format!("its schedule is missing: {}", error.detail)));
                }
            }
        }
    }

    /// Remembers whether a schedule was removed by its user, if it is that of a search. False if nothing is new.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn schedule_removed(&self, name: &str, removed: bool) -> Result<bool, Error> {
        // A search that has not ended may have registered it already.
        self.of::<Search>().get(name).map_or(Ok(false), |search| search.schedule_removed(removed))
    }

    /// Removes a job that has ended, with its folder. The schedule that it learned stays.
    ///
    /// # Errors
    /// When there is none, it waits or runs, a search would start it again, or the disk does not take it: then it
    /// stays.
    pub(crate) fn remove<K: Run>(&self, id: &str) -> Result<Arc<Record<K>>, Error> {
        if TypeId::of::<K>() == TypeId::of::<Comparison>()
            && let Some(search) = self.followed_by(id)
        {
            let detail = format!("comparison {id:?} follows search {:?}; remove that before", search.id());
            return Err(Error::conflict(detail));
        }
        self.of::<K>().remove(id)
    }

    /// Runs one job after another on each device until `stop` turns true, whatever their kinds.
    pub(crate) async fn supervise(
        &self,
        catalog: &Catalog,
        registry: &Registry,
        stop: watch::Receiver<bool>,
    ) {
        tokio::task::block_in_place(|| self.register_again(registry));
        let follow_up = || tokio::task::block_in_place(|| self.follow_up(registry));
        supervisor::supervise(&self.kinds, &self.workplace, catalog, registry, follow_up, stop).await;
    }

    /// Whether a name is reserved for the schedule of a search that may still learn it.
    pub(crate) fn promise(&self, name: &str) -> bool {
        let searches = self.of::<Search>().all();
        searches.iter().any(|search| search.id() == name && search.state() != JobState::Done)
    }
}
