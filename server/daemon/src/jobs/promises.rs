//! The comparisons that are to follow searches: promised when a search is accepted, queued when it is done.

use std::sync::Arc;

use pba_search::{Comparison, ComparisonSpec, Run, Search, Spec};
use pba_wire::jobs::JobState;

use crate::catalog::schedules::Registry;
use crate::error::{Cause, Error};
use crate::jobs::Jobs;
use crate::jobs::entry::Source;
use crate::jobs::record::Record;

/// How the complaint of a search begins whose comparison could not start.
const NO_COMPARISON: &str = "its comparison cannot start";

impl Jobs {
    /// The comparisons that are to follow searches, and are not there yet.
    fn promised(&self) -> impl Iterator<Item = (Arc<Record<Search>>, ComparisonSpec)> + '_ {
        let searches = self.of::<Search>().all().into_iter();
        let ended = [JobState::Failed, JobState::Cancelled];
        let searches = searches.filter(move |search| !ended.contains(&search.state()));
        let promised =
            searches.filter_map(|search| Search::comparison(&search.spec()).map(|spec| (search, spec)));
        promised.filter(|(search, spec)| !self.is_followed(search, spec))
    }

    /// Whether the comparison that was promised to a search is there. Another one may have its name.
    fn is_followed(&self, search: &Record<Search>, promised: &ComparisonSpec) -> bool {
        let comparisons = self.of::<Comparison>().all();
        let named = comparisons.iter().find(|comparison| comparison.id() == promised.name());
        named.is_some_and(|comparison| match comparison.follows() {
            Some(followed) => followed == search.id(),
            // Older versions did not say.
            None => comparison.spec() == *promised,
        })
    }

    /// The search that a comparison follows, unless that was removed.
    pub(super) fn followed_by(&self, id: &str) -> Option<Arc<Record<Search>>> {
        let is_it = |search: &Arc<Record<Search>>| {
            let promised = Search::comparison(&search.spec()).filter(|promised| promised.name() == id);
            promised.is_some_and(|promised| self.is_followed(search, &promised))
        };
        self.of::<Search>().all().into_iter().find(is_it)
    }

    /// Checks that a comparison takes neither name nor test split from one that is to follow a search. One
    /// that could not start when it should have blocks no other.
    pub(super) fn check_promised(&self, asked: &ComparisonSpec, source: &Source) -> Result<(), Error> {
        let is_kept = |search: &Record<Search>| search.state() != JobState::Done || search.error().is_none();
        for (search, promised) in self.promised().filter(|(search, _)| is_kept(search)) {
            if promised.name() == asked.name() {
                let (name, search) = (asked.name(), search.id());
                let detail =
                    format!("the name {name:?} is kept for the comparison that follows search {search:?}");
                return Err(Error::conflict(detail));
            }
            if let Some(reason) = asked.conflict(&promised, search.source().shares_test_split(source)) {
                return Err(Error::spec(&reason));
            }
        }
        Ok(())
    }

    /// Checks that one more comparison may be kept, with those that are promised.
    ///
    /// # Errors
    /// When as many are kept or promised as are allowed.
    pub(super) fn check_comparison_room(&self) -> Result<(), Error> {
        let (kept, promised) = (self.of::<Comparison>().all().len(), self.promised().count());
        let jobs_max = self.workplace.jobs_max;
        if kept + promised < jobs_max {
            return Ok(());
        }
        let detail = format!(
            "{kept} comparisons are kept and {promised} are to follow searches; allowed are {jobs_max} together \
             (jobs_max); remove some that are no longer needed"
        );
        Err(Error::new(Cause::TooMany, detail))
    }

    /// Checks that the comparison that a job is, or that is to follow it, takes nothing from others, and that no other
    /// has its name.
    pub(super) fn check_resumed<K: Run>(&self, record: &Record<K>) -> Result<(), Error> {
        let (spec, source) = (record.spec(), record.source());
        let ended = [JobState::Failed, JobState::Cancelled];
        let Some(comparison) = K::comparison(&spec).filter(|_| ended.contains(&record.state())) else {
            return Ok(());
        };
        let name = comparison.name();
        if K::JOB.learns {
            if self.followed_by(name).is_some_and(|search| search.id() == record.id()) {
                return Ok(());
            }
            if self.of::<Comparison>().has(name) {
                return Err(Error::conflict(format!(
                    "comparison {name:?} has the name of the one that is to follow {} {:?}; remove it before you resume \
                     the {0}",
                    K::JOB.name,
                    record.id()
                )));
            }
            // Whether it may still open the test split is asked when it is queued: the search itself goes on.
            return self.check_comparison_room();
        }
        self.check_promised(&comparison, &source)
    }

    /// Queues the comparisons that follow searches which are done. True if one could not be queued.
    pub(super) fn follow_up(&self, registry: &Registry) -> bool {
        let mut is_owed = false;
        for (search, comparison) in self.promised().filter(|(search, _)| search.state() == JobState::Done) {
            let queued = self.of::<Comparison>().start_later(registry, comparison, &search);
            match queued {
                Err(error) => {
                    is_owed = true;
                    search.complain(Some(format!("{NO_COMPARISON}: {}", error.detail)));
                }
                // Another complaint stands.
                Ok(()) if search.error().is_some_and(|told| told.starts_with(NO_COMPARISON)) => {
                    search.complain(None);
                }
                Ok(()) => {}
            }
        }
        is_owed
    }
}
