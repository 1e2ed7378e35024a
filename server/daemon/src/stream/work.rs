//! Work for the workers, and its answer.
//!
//! Work whose [`Answer`] is dropped is over: its parts that have not begun are skipped, and long ones ask
//! [`Cancellation`] meanwhile.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::metrics::Metrics;
use crate::stream::queue;
use crate::stream::workspace::Workspace;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, lock, oneshot};

/// Something to be done by workers, several of them at once if it has several parts.
pub(crate) trait Work: Send + Sync + 'static {
    type Output: Send + 'static;

    /// How many parts it has: at least 1.
    fn parts(&self) -> usize;

    /// Does one part, numbered from 0. May end the whole work before its time, as with an error.
    fn run(&self, part: usize, workspace: &mut Workspace) -> ControlFlow<Self::Output>;

    /// What has become of it. Called once, by the worker that has done the last part, when all are done.
    fn finish(&self, workspace: &mut Workspace) -> Self::Output;
}

/// Whether the client of an answer has left. Cheap to ask, and to clone.
#[derive(Clone, Default)]
pub(crate) struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) const PANICKED: &str = "the task panicked; see the server's log";

/// The task panicked; the worker survived.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{PANICKED}")]
pub(crate) struct Panicked;

/// The answer to a work, which is cancelled when this is dropped before.
pub(crate) struct Answer<T> {
    receiver: oneshot::Receiver<T>,
    cancellation: Cancellation,
}

impl<T> Answer<T> {
    /// Whether it is still to come.
    pub(crate) fn is_late(&self) -> bool {
        self.receiver.is_empty()
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T, Panicked>> {
        Pin::new(&mut self.receiver).poll(context).map_err(|_| Panicked)
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        self.cancellation.cancel();
    }
}

/// A closure as work of one part.
struct Single<F> {
    task: Mutex<Option<F>>,
    cancellation: Cancellation,
}

impl<T, F> Work for Single<F>
where
    T: Send + 'static,
    F: FnOnce(&mut Workspace, &Cancellation) -> T + Send + 'static,
{
    type Output = T;

    fn parts(&self) -> usize {
        1
    }

    fn run(&self, _: usize, workspace: &mut Workspace) -> ControlFlow<T> {
        let task = lock(&self.task).take().expect("a part is done once");
        ControlFlow::Break(task(workspace, &self.cancellation))
    }

    fn finish(&self, _: &mut Workspace) -> T {
        unreachable!("its one part ends it");
    }
}

/// Work on its way through the pool, whatever it is; clones are of the same.
#[derive(Clone)]
pub(crate) struct Task(std::sync::Arc<dyn Parts>);

impl Task {
    /// Work of several parts, and what will come of it.
    pub(crate) fn of<W: Work>(work: W, metrics: Metrics) -> (Task, Answer<W::Output>) {
        Task::answering(work, Cancellation::default(), metrics)
    }

    /// Work of one part, which is told whether it is cancelled.
    pub(crate) fn once<T: Send + 'static>(
        task: impl FnOnce(&mut Workspace, &Cancellation) -> T + Send + 'static,
        metrics: Metrics,
    ) -> (Task, Answer<T>) {
        let cancellation = Cancellation::default();
        let single = Single { task: Mutex::new(Some(task)), cancellation: cancellation.clone() };
        Task::answering(single, cancellation, metrics)
    }

    fn answering<W: Work>(
        work: W,
        cancellation: Cancellation,
        metrics: Metrics,
    ) -> (Task, Answer<W::Output>) {
        let (sender, receiver) = oneshot::channel();
        let left = AtomicUsize::new(work.parts());
        let answer = Answer { receiver, cancellation: cancellation.clone() };
        metrics.queue_depth.inc();
        let running = Running { work, left, answer: Mutex::new(Some(sender)), cancellation, metrics };
        (Task(std::sync::Arc::new(running)), answer)
    }

    /// How many parts it has.
    pub(crate) fn parts(&self) -> usize {
        self.0.parts()
    }

    /// Does one part, and answers if that was the last, or ends the work.
    pub(crate) fn run(&self, part: usize, workspace: &mut Workspace) {
        self.0.run(part, workspace);
    }
}

impl queue::Task for Task {
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    fn leave(&self) {
        self.0.leave();
    }
}

/// Work that is being done.
struct Running<W: Work> {
    work: W,
    /// Parts that are not done.
    left: AtomicUsize,
    /// None once it is answered.
    answer: Mutex<Option<oneshot::Sender<W::Output>>>,
    cancellation: Cancellation,
    metrics: Metrics,
}

/// The same, whatever comes of it.
trait Parts: Send + Sync {
    fn parts(&self) -> usize;
    fn run(&self, part: usize, workspace: &mut Workspace);
    fn is_cancelled(&self) -> bool;
    fn leave(&self);
}

impl<W: Work> Parts for Running<W> {
    fn parts(&self) -> usize {
        self.work.parts()
    }

    fn run(&self, part: usize, workspace: &mut Workspace) {
        let start = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| match self.work.run(part, workspace) {
            ControlFlow::Break(output) => Some(output),
            // The worker of the last part sees what all others have done. Nothing waits for a work that is cancelled.
            ControlFlow::Continue(()) => {
                let is_last = self.left.fetch_sub(1, Ordering::AcqRel) == 1;
                (is_last && !self.is_cancelled()).then(|| self.work.finish(workspace))
            }
        }));
        self.metrics.worker_busy_seconds.inc_by(start.elapsed().as_secs_f64());
        let output = match done {
            Ok(None) => return,
            Ok(Some(output)) => Some(output),
            Err(_) => {
                // Whatever state the panic left behind is not used again.
                *workspace = Workspace::default();
                None
            }
        };
        // What is left of a work that failed is not done.
        self.cancellation.cancel();
        if let (Some(answer), Some(output)) = (lock(&self.answer).take(), output) {
            // The reader may have left in the meantime; then the answer is not needed.
            let _ = answer.send(output);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancellation.is_cancelled()
    }

    fn leave(&self) {
        self.metrics.queue_depth.dec();
    }
}
