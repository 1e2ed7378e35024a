//! What its user asks of a job: on disk before it is answered.

use std::io::ErrorKind;
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
                    let entry = self.live().timed();
                    let before = entry.clone();
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

    /// Asks a waiting or running job to end with the part of its work that it does next. On disk, where its
    /// trainer looks, so that it survives both.
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
            let path = self.directory.join(files::FINISH);
            let reached = self.live().job.as_ref().map_or(0, K::epoch);
            // Asked twice, the first wish holds: after a crash the job may be behind where it was then.
            if !self.live().is_finishing {
                pba_files::replace(&path, reached.to_string().as_bytes()).map_err(|error| {
                    // It may be there without being durable; the next time it is asked for anew.
                    let _ = std::fs::remove_file(&path);
                    Error::disk("write", &path, &error).unchanged()
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
                    let wish = self.directory.join(files::FINISH);
                    match pba_files::remove(&wish) {
                        Err(error) if error.kind() != ErrorKind::NotFound => {
                            return Err(Error::disk("remove", &wish, &error).unchanged());
                        }
                        _ => self.live().is_finishing = false,
                    }
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
                    "{name} {id:?} is {state}; cancel it before you remove it"
                )));
            }
            let retired = entry::retire_folder(&self.directory)?;
            self.live().is_removed = true;
            Ok(retired)
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
}
