//! The bridge between the asynchronous side and the CPU: a fixed pool of threads.
//!
//! Tasks wait in one queue, first come first served. Each stream keeps only a few tasks in it
//! (`batches_ahead`), so any number of streams take turns, and a stream whose client does not read adds
//! no tasks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crossbeam::channel::{Sender, unbounded};
use pba_augment::Scratch;
use pba_datasets::RegionDecoder;
use tokio::sync::oneshot;

use crate::metrics::Metrics;

/// The resources that a worker lends to its tasks.
#[derive(Default)]
pub(crate) struct Workspace {
    /// Buffers of the augmentation.
    pub(crate) scratch: Scratch,
    /// Decoder of encoded images, with its buffers.
    pub(crate) decoder: RegionDecoder,
}

type Task = Box<dyn FnOnce(&mut Workspace) + Send>;

/// A fixed pool of worker threads, which end when it is dropped.
pub(crate) struct Pool {
    // Bounded by its users: at most `streams_max` streams with `batches_ahead` tasks each, and one
    // task for each other request.
    tasks: Sender<Task>,
    metrics: Metrics,
}

/// The answer to a task, or an error when it [`PANICKED`]; the worker survives.
pub(crate) type Answer<T> = oneshot::Receiver<T>;

pub(crate) const PANICKED: &str = "the task panicked; see the server's log";

impl Pool {
    /// Starts `threads` workers.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(threads: usize, metrics: Metrics) -> std::io::Result<Pool> {
        let (tasks, queue) = unbounded::<Task>();
        for number in 0..threads {
            let queue = queue.clone();
            std::thread::Builder::new().name(format!("augment-{number}")).spawn(move || {
                let mut workspace = Workspace::default();
                for task in queue {
                    task(&mut workspace);
                }
            })?;
        }
        Ok(Pool { tasks, metrics })
    }

    /// Queues a task. It is skipped when the answer is dropped before its turn comes.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Workspace) -> T + Send + 'static,
    ) -> Answer<T> {
        let (answer, receiver) = oneshot::channel();
        let metrics = self.metrics.clone();
        metrics.queue_depth.inc();
        let task: Task = Box::new(move |workspace| {
            metrics.queue_depth.dec();
            if answer.is_closed() {
                return;
            }
            let start = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(|| task(workspace)));
            metrics.worker_busy_seconds.inc_by(start.elapsed().as_secs_f64());
            match result {
                // The reader may have left in the meantime; then the answer is not needed.
                Ok(result) => drop(answer.send(result)),
                // Whatever state the panic left behind is not used again.
                Err(_) => *workspace = Workspace::default(),
            }
        });
        self.tasks.send(task).expect("workers outlive the pool");
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::start(threads, Metrics::new().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_the_pool_does_not_shrink() {
        let pool = pool(1);
        for _ in 0..3 {
            assert!(pool.run(|_| -> () { panic!("on purpose") }).await.is_err());
        }
        assert_eq!(pool.run(|_| 7).await.unwrap(), 7);
        assert_eq!(pool.metrics.queue_depth.get(), 0);
    }

    #[tokio::test]
    async fn a_job_nobody_waits_for_is_skipped() {
        let pool = pool(1);
        let (hold, held) = crossbeam::channel::bounded::<()>(0);
        let first = pool.run(move |_| held.recv().is_ok());
        let (ran, did_run) = crossbeam::channel::bounded::<()>(1);
        drop(pool.run(move |_| ran.send(())));
        hold.send(()).unwrap();
        assert!(first.await.unwrap());
        pool.run(|_| ()).await.unwrap();
        assert!(did_run.recv().is_err(), "the sender was dropped unused");
    }
}
