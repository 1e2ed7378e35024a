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

    /// Checks that a schedule is the one of its name that this job learned, or was requested with.
    ///
    /// # Errors
    /// When it is another one.
    pub(crate) fn check_same(&self, schedule: &Schedule) -> Result<(), Error> {
        let (live, digest) = (self.live(), schedule.digest().to_string());
        let other = live.schedules().find(|(name, known, _)| *name == schedule.name() && *known != digest);
        other.map_or(Ok(()), |(name, known, how)| {
            let job = K::JOB.name;
            Err(Error::conflict(format!(
                "schedule {name:?} was replaced since: it now has the digest {digest}; this {job} {how} the one with \
                 the digest {known}"
            )))
        })
    }
}

impl<K: Run> Live<K> {
    /// The schedule that it learned, once that is registered.
    fn learned(&self) -> Option<&Schedule> {
        let job = self.job.as_ref().filter(|_| self.entry.state == JobState::Done);
        job.and_then(K::schedule)
    }

    /// The schedules that it learned or was requested with: their names, their digests, and which it is.
    fn schedules(&self) -> impl Iterator<Item = (&str, String, &'static str)> {
        let learned = self.learned().map(|learned| (learned.name(), learned.digest().to_string(), "learned"));
        let asked = self.digests.iter().map(|(name, digest)| (&**name, digest.clone(), "was requested with"));
        learned.into_iter().chain(asked)
    }

    /// What became of its schedules in the registry: the names of those that are others now, and for each a note.
    pub(super) fn notes(&self, registry: &Registry) -> Vec<(&str, String)> {
        let note = |(name, digest, how)| {
            let change = match registry.get(name) {
                Ok(found) if found.digest().to_string() == digest => return None,
                Ok(found) => format!("was replaced since: it now has the digest {}", found.digest()),
                Err(error) if error.cause == Cause::NotFound => "was removed since".to_owned(),
                // It now begins the digest of another one.
                Err(error) => format!("has no clear name since: {}", error.detail),
            };
            let job = K::JOB.name;
            Some((
                name,
                format!("schedule {name:?} {change}; this {job} {how} the one with the digest {digest}"),
            ))
        };
        self.schedules().filter_map(note).collect()
    }
}
