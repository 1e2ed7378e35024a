//! What its user asks of a job: on disk before it is answered.

use std::path::PathBuf;

use pba_search::Run;
use pba_search::protocol::files;
use pba_wire::jobs::JobState;

use crate::error::Error;
use crate::jobs::entry::{self, Entry};
use crate::jobs::record::Record;

impl<K: Run> Record<K> {
    /// Cancels a waiting or running job. It stays cancelled whatever happens from now on, unless it is done before
    /// its trainer has ended.
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
                    let (entry, before) = {
                        let live = self.live();
                        (live.timed(), live.stored())
                    };
                    self.save_or_undo(&Entry { state: JobState::Cancelled, ..entry }, &before)?;
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

    /// Asks a waiting or running job to end with the part of its work that it does next. On disk, so that it survives
    /// server and trainer; the trainer sees it when it is there for good, and never what was refused.
    ///
    /// # Errors
    /// When it has ended, or the disk does not take it.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        // Meanwhile it does not end.
        self.storing(|| {
            self.check_own()?;
            let state = self.state();
            if state.is_final() {
                let detail = format!(
                    "{} {:?} is {state}; only one that is waiting or running can be asked to end",
                    K::JOB.name,
                    self.id
                );
                return Err(Error::conflict(detail));
            }
            let asked = self.directory.join(files::FINISH_ASKED);
            let reached = self.live().job.as_ref().map_or(0, K::epoch);
            let wish = self.directory.join(files::FINISH);
            // Asked twice, the first wish holds: after a crash the job may be behind where it was then.
            if !self.live().is_finishing || !wish.exists() {
                let written = pba_files::replace(&asked, reached.to_string().as_bytes());
                // Whichever of its names a power failure leaves, it is there.
                let written = written.and_then(|()| std::fs::rename(&asked, &wish));
                written.map_err(|error| {
                    let error = Error::disk("write", &asked, &error);
                    match pba_files::take_back(&asked) {
                        Ok(()) => error.unchanged(),
                        Err(again) => error.and(&format!("nor can it be undone: {again}")),
                    }
                })?;
                self.live().is_finishing = true;
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
            self.check_own()?;
            let state = self.state();
            match state {
                JobState::Failed | JobState::Cancelled => {
                    for name in [files::FINISH_ASKED, files::FINISH] {
                        let wish = self.directory.join(name);
                        pba_files::take_back(&wish)
                            .map_err(|error| Error::disk("remove", &wish, &error).unchanged())?;
                    }
                    self.live().is_finishing = false;
                    self.store(|entry| {
                        (entry.state, entry.error) = (JobState::Queued, None);
                        entry.schedule_removed = false;
                    })
                }
                _ => Err(Error::conflict(format!(
                    "{0} {1:?} is {state}; only a failed or cancelled {0} can be resumed",
                    K::JOB.name,
                    self.id
                ))),
            }
        })
    }

    /// Takes the folder of a job that has ended out of sight for good, and returns where it is until its files are
    /// removed.
    ///
    /// # Errors
    /// When it waits or runs, or the disk does not take it: then it stays.
    pub(crate) fn retire(&self) -> Result<PathBuf, Error> {
        self.storing(|| {
            self.check_own()?;
            let state = self.state();
            if !state.is_final() {
                let (name, id) = (K::JOB.name, &self.id);
                return Err(Error::conflict(format!(
                    "{name} {id:?} is {state}; cancel it before you delete it"
                )));
            }
            let retired = entry::retire_folder(&self.directory)?;
            self.live().is_removed = true;
            Ok(retired)
        })
    }

    /// Remembers whether its user has removed the schedule that it learned, so that it is not registered again. False if
    /// that was known.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn schedule_removed(&self, removed: bool) -> Result<bool, Error> {
        self.storing(|| match self.is_schedule_removed() == removed {
            true => Ok(false),
            false => self.store(|entry| entry.schedule_removed = removed).map(|()| true),
        })
    }

    /// Whether its user removed the schedule that it learned.
    pub(crate) fn is_schedule_removed(&self) -> bool {
        self.live().entry.schedule_removed
    }
}
