//! Work that may wait for the disk, or takes longer than a few milliseconds, on threads of its own.
//!
//! The asynchronous threads move the batches of every stream and answer every probe, so they may never wait. Work
//! that only reads has threads of its own again, so that it never waits for a change.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tracing::Span;

use crate::error::{Cause, Error};

/// Most requests at a time whose work only reads; the others wait for their turn.
const READS_MAX: usize = 16;
/// Most clients at a time for which lines of a journal are read; the others wait for their turn.
const WATCHERS_MAX: usize = 4;
/// Most requests at a time whose work waits for no disk; the others wait for their turn.
const COMPUTATIONS_MAX: usize = 4;
/// Most changes at a time; the others wait for their turn, as they would for the disk.
const CHANGES_MAX: usize = 8;
/// Most jobs that are checked at a time before they are queued; the others are refused. Two checks run at a
/// time, and take a second or a few each.
const STARTS_MAX: usize = 8;

/// The turns of such work; cheap to clone.
#[derive(Clone)]
pub(crate) struct Apart {
    reads: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
    computations: Arc<Semaphore>,
    changes: Arc<Semaphore>,
    starts: Arc<Semaphore>,
}

impl Default for Apart {
    fn default() -> Apart {
        let turns = |max| Arc::new(Semaphore::new(max));
        Apart {
            reads: turns(READS_MAX),
            watchers: turns(WATCHERS_MAX),
            computations: turns(COMPUTATIONS_MAX),
            changes: turns(CHANGES_MAX),
            starts: turns(STARTS_MAX),
        }
    }
}

impl Apart {
    /// Does work that only reads.
    ///
    /// # Errors
    /// Those of the work; when it panics.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        in_turn(&self.reads, work).await
    }

    /// Reads old lines of a journal. It has turns of its own: who watches a job on a slow disk delays no one who
    /// reads something else.
    ///
    /// # Errors
    /// Those of the work; when it panics.
    pub(crate) async fn watch<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        in_turn(&self.watchers, work).await
    }

    /// Does work that may be long, and waits for no disk. It has turns of its own: it waits for no one who does.
    ///
    /// # Errors
    /// Those of the work; when it panics.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        in_turn(&self.computations, work).await
    }

    /// Does work that changes something. It is finished even if the client has left.
    ///
    /// # Errors
    /// Those of the work; when it panics.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        in_turn(&self.changes, work).await
    }

    /// Starts a job, parts of which wait for the disk, and others for a trainer.
    ///
    /// # Errors
    /// When as many are being started as are allowed; those of the work; when it panics.
    pub(crate) async fn start<T: Send + 'static, F: Future<Output = Result<T, Error>>>(
        &self,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> Result<T, Error> {
        let turn = Arc::clone(&self.starts).try_acquire_owned().map_err(|_| {
            Error::busy(format!("{STARTS_MAX} jobs are being checked before they are queued: the limit"))
        })?;
        let runtime = Handle::current();
        // Dropped with this future when the client leaves, which also ends a trainer that was asked.
        let (_waits, left) = oneshot::channel::<()>();
        on_a_thread(move || {
            let _turn = turn;
            runtime.block_on(async {
                tokio::select! {
                    done = work() => done,
                    _ = left => Err(Error::new(Cause::Timeout, "the client has left")),
                }
            })
        })
        .await
    }
}

/// Does work when its turn comes. It keeps its turn until it has ended, even if the client has left.
async fn in_turn<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let turn = Arc::clone(turns).acquire_owned().await.map_err(Error::internal)?;
    on_a_thread(move || {
        let _turn = turn;
        work()
    })
    .await
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    // What it logs is told of the request that it is for.
    let span = Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    // A panic was logged and counted where it happened.
    done.unwrap_or_else(|error| Err(Error::new(Cause::Internal, format!("the work did not end: {error}"))))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_start_that_nobody_waits_for_gives_its_turn_back() {
        let apart = Apart::default();
        let start = |apart: Apart| async move { apart.start(pending::<Result<(), Error>>).await };
        let waiting: Vec<_> = (0..STARTS_MAX).map(|_| tokio::spawn(start(apart.clone()))).collect();
        while apart.starts.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = start(apart.clone()).await.unwrap_err();
        assert_eq!(refused.cause, Cause::Busy);
        waiting.iter().for_each(|waiting| waiting.abort());
        while apart.starts.available_permits() < STARTS_MAX {
            tokio::task::yield_now().await;
        }
        apart.start(|| async { Ok(()) }).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn who_reads_does_not_wait_for_who_changes() {
        let apart = Apart::default();
        let (answer, disk) = std::sync::mpsc::channel::<()>();
        let disk = Arc::new(std::sync::Mutex::new(disk));
        let changes = (0..2 * CHANGES_MAX).map(|_| {
            let (apart, disk) = (apart.clone(), Arc::clone(&disk));
            tokio::spawn(async move {
                // Until the disk answers.
                apart.change(move || disk.lock().unwrap().recv().map_err(Error::internal)).await
            })
        });
        let changes: Vec<_> = changes.collect();
        while apart.changes.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(apart.read(|| Ok(7)).await.unwrap(), 7);
        assert!(changes.iter().all(|change| !change.is_finished()));
        for _ in &changes {
            answer.send(()).unwrap();
        }
        for change in changes {
            change.await.unwrap().unwrap();
        }
        assert!(apart.read(|| -> Result<(), Error> { panic!("on purpose") }).await.is_err());
    }
}
