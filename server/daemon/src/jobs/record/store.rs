//! What a job has on disk: its entry, stored before it is shown.

use pba_search::Run;
use pba_wire::jobs::JobState;

use crate::error::{Cause, Error};
use crate::jobs::entry::{self, Entry};
use crate::jobs::record::{Live, Record};
use crate::sync::lock;

impl<K: Run> Record<K> {
    /// Does what may wait for the disk, one at a time; requests that share its thread do not wait.
    pub(super) fn storing<T>(&self, store: impl FnOnce() -> T) -> T {
        tokio::task::block_in_place(|| {
            let _one_at_a_time = lock(&self.storing);
            store()
        })
    }

    /// Changes the entry, on disk first.
    ///
    /// # Errors
    /// When the disk does not take it. Then nothing has changed.
    pub(super) fn store(&self, change: impl FnOnce(&mut Entry<K::Spec>)) -> Result<(), Error> {
        let (mut entry, before) = {
            let live = self.live();
            (live.entry.clone(), live.stored())
        };
        change(&mut entry);
        let stored = self.live().stored_as(entry.clone());
        self.save_or_undo(&stored, &before)?;
        self.live().entry = entry;
        self.changed();
        Ok(())
    }

    /// Checks that it was not removed. Asked while `storing` is held.
    ///
    /// # Errors
    /// When it was.
    pub(super) fn check_kept(&self) -> Result<(), Error> {
        match self.live().is_removed {
            true => {
                let detail = format!("{} {:?} was removed", K::JOB.name, self.id);
                let value = Some(self.id.clone());
                Err(Error { value, ..Error::new(Cause::NotFound, detail).of_field(K::JOB.name) })
            }
            false => Ok(()),
        }
    }

    /// Checks that its folder may be written to. Asked while `storing` is held.
    ///
    /// # Errors
    /// When it was removed, or the data directory is no longer this server's: what is there now is another's.
    pub(crate) fn check_own(&self) -> Result<(), Error> {
        self.check_kept()?;
        self.lock.check_in_place()
    }

    /// Stores an entry, or puts back the one before: what could not be made durable may still be on the disk, where
    /// the next start would find it.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(super) fn save_or_undo(&self, entry: &Entry<K::Spec>, before: &Entry<K::Spec>) -> Result<(), Error> {
        self.check_own()?;
        entry::save::<K>(&self.directory, entry).map_err(|error| {
            if entry::holds_another::<K>(&self.directory, entry) {
                return error.unchanged();
            }
            match entry::save::<K>(&self.directory, before) {
                Ok(()) => error.unchanged(),
                // The disk that failed fails again.
                Err(again) => error.and(&format!("nor can it be undone: {}", again.detail)),
            }
        })
    }

    /// Stores an entry. A full disk must not end a job whose state is in memory; the next time it may work.
    pub(super) fn save_or_warn(&self, entry: &Entry<K::Spec>) {
        let saved = self.check_own().and_then(|()| entry::save::<K>(&self.directory, entry));
        if let Err(error) = saved {
            tracing::error!(id = self.id, error = error.detail, "cannot save the state of {}", K::JOB.one);
        }
    }
}

impl<K: Run> Live<K> {
    /// The entry for the disk: once it is cancelled, no later one may run it again.
    pub(super) fn stored(&self) -> Entry<K::Spec> {
        self.stored_as(self.entry.clone())
    }

    /// The same of another entry.
    fn stored_as(&self, mut entry: Entry<K::Spec>) -> Entry<K::Spec> {
        if self.is_cancelled {
            entry.state = JobState::Cancelled;
        }
        entry
    }
}
