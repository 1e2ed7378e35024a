//! The schedules of a job: their names may be given again to other content.

use pba_schedules::Schedule;
use pba_search::Run;
use pba_wire::jobs::JobState;

use crate::catalog::schedules::Registry;
use crate::error::{Cause, Error};
use crate::jobs::record::{Live, Record};

impl<K: Run> Record<K> {
    /// The schedule that it learned, as its journal has it, whatever the registry holds under its name.
    ///
    /// # Errors
    /// When it is not done.
    pub(crate) fn learned(&self) -> Result<Schedule, Error> {
        let live = self.live();
        live.learned().cloned().ok_or_else(|| {
            let (name, state) = (K::JOB.name, live.entry.state);
            Error::conflict(format!(
                "{name} {:?} is {state}; its schedule is available when it is done",
                self.id
            ))
        })
    }
}

impl<K: Run> Live<K> {
    /// The schedule that it learned, once that is registered.
    fn learned(&self) -> Option<&Schedule> {
        let job = self.job.as_ref().filter(|_| self.entry.state == JobState::Done);
        job.and_then(K::schedule)
    }

    /// What the registry no longer holds of the schedules that it learned, or was requested with.
    pub(super) fn notes(&self, registry: &Registry) -> Vec<String> {
        let learned = self.learned().map(|learned| (learned.name(), learned.digest().to_string(), "learned"));
        let asked = self.digests.iter().map(|(name, digest)| (&**name, digest.clone(), "was requested with"));
        let note = |(name, digest, how): (&str, String, _)| {
            let change = change(registry, name, &digest)?;
            Some(format!("{change}; this {} {how} the one with the digest {digest}", K::JOB.name))
        };
        learned.into_iter().chain(asked).filter_map(note).collect()
    }
}

/// How the registry differs from what had a name and a digest; none if it does not.
pub(in crate::jobs) fn change(registry: &Registry, name: &str, digest: &str) -> Option<String> {
    match registry.get(name) {
        Ok(found) if found.digest().to_string() == digest => None,
        Ok(found) => {
            Some(format!("schedule {name:?} was replaced since: it now has the digest {}", found.digest()))
        }
        Err(error) if error.cause == Cause::NotFound => Some(format!("schedule {name:?} was removed since")),
        // A name that now begins the digest of another one.
        Err(error) => Some(error.detail),
    }
}
