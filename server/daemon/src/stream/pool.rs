//! The bridge between the asynchronous side and the CPU: a fixed pool of threads.
//!
//! A [`Work`] is done in parts, each of which takes a worker for a bounded time. Workers take parts in
//! turn: one of the next client that has work, and of that client's streams one of the next; the works of
//! one stream are done in order. So a client gets no more than its share of the workers, however many
//! streams it opens and however large their batches are, and a request waits for at most one part of each other
//! client at most. Each stream keeps only a few works here (`batches_ahead`), and a stream whose client
//! does not read adds none.
//!
//! Work whose [`Answer`] is dropped is over: its parts that have not begun are skipped, and long ones ask
//! [`Cancellation`] meanwhile.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use crossbeam::utils::Backoff;
use pba_augment::Scratch;
use pba_datasets::RegionDecoder;
use tokio::sync::oneshot;

use crate::metrics::Metrics;
use crate::stream::client::Client;

/// The resources that a worker lends to its tasks.
#[derive(Default)]
pub(crate) struct Workspace {
    /// Buffers of the augmentation.
    pub(crate) scratch: Scratch,
    /// Decoder of encoded images, with its buffers.
    pub(crate) decoder: RegionDecoder,
}

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

/// Whose work something is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) client: Client,
    /// A stream or another request of the client; no two have the same number.
    pub(crate) stream: u64,
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

/// A fixed pool of worker threads, which end when it is dropped.
pub(crate) struct Pool {
    queue: Arc<Queue>,
    metrics: Metrics,
}

impl Pool {
    /// Starts `threads` workers.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(threads: usize, metrics: Metrics) -> std::io::Result<Pool> {
        // Ends those that were started, should one be refused.
        let pool = Pool { queue: Arc::default(), metrics };
        for number in 0..threads {
            let queue = Arc::clone(&pool.queue);
            std::thread::Builder::new().name(format!("augment-{number}")).spawn(move || {
                let mut workspace = Workspace::default();
                while let Some((task, part)) = queue.next() {
                    task.run(part, &mut workspace);
                }
            })?;
        }
        Ok(pool)
    }

    /// Queues work.
    pub(crate) fn start_work<W: Work>(&self, owner: Owner, work: W) -> Answer<W::Output> {
        let (sender, receiver) = oneshot::channel();
        let cancellation = Cancellation::default();
        self.start_answering(owner, work, sender, cancellation.clone());
        Answer { receiver, cancellation }
    }

    /// Queues a task of one part, which is told whether it is cancelled.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        owner: Owner,
        task: impl FnOnce(&mut Workspace, &Cancellation) -> T + Send + 'static,
    ) -> Answer<T> {
        let (sender, receiver) = oneshot::channel();
        let cancellation = Cancellation::default();
        let single = Single { task: Mutex::new(Some(task)), cancellation: cancellation.clone() };
        self.start_answering(owner, single, sender, cancellation.clone());
        Answer { receiver, cancellation }
    }

    fn start_answering<W: Work>(
        &self,
        owner: Owner,
        work: W,
        answer: oneshot::Sender<W::Output>,
        cancellation: Cancellation,
    ) {
        let parts = work.parts();
        assert!(parts > 0, "work has at least one part");
        let task = Running {
            work,
            left: AtomicUsize::new(parts),
            answer: Mutex::new(Some(answer)),
            cancellation,
            metrics: self.metrics.clone(),
        };
        self.metrics.queue_depth.inc();
        self.queue.add(owner, Queued { task: Arc::new(task), next: 0, parts });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.turns().is_closed = true;
        self.queue.more.notify_all();
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

/// Work on its way through the pool.
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
trait Task: Send + Sync {
    fn run(&self, part: usize, workspace: &mut Workspace);
    fn is_cancelled(&self) -> bool;
    /// No part of it waits any more.
    fn leave(&self);
}

impl<W: Work> Task for Running<W> {
    fn run(&self, part: usize, workspace: &mut Workspace) {
        let start = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| match self.work.run(part, workspace) {
            ControlFlow::Break(output) => Some(output),
            // Whoever does the last part sees what all others have done.
            ControlFlow::Continue(()) => {
                (self.left.fetch_sub(1, Ordering::AcqRel) == 1).then(|| self.work.finish(workspace))
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

/// A task, and which of its parts is the next.
struct Queued {
    task: Arc<dyn Task>,
    next: usize,
    parts: usize,
}

/// What waits for a worker.
#[derive(Default)]
struct Queue {
    turns: Mutex<Turns>,
    /// Tasks in `turns`.
    tasks: AtomicUsize,
    /// Something was added, or the queue was closed.
    more: Condvar,
}

#[derive(Default)]
struct Turns {
    /// Those that have tasks, in the order of their turns.
    clients: VecDeque<Client>,
    /// The streams of each of these that have tasks, likewise; the tasks of each in order.
    streams: HashMap<Client, VecDeque<(u64, VecDeque<Queued>)>>,
    /// Workers that sleep.
    idle: usize,
    is_closed: bool,
}

impl Queue {
    fn add(&self, Owner { client, stream }: Owner, task: Queued) {
        let parts = task.parts;
        let mut turns = self.turns();
        let Turns { clients, streams, idle, .. } = &mut *turns;
        let streams = streams.entry(client).or_insert_with(|| {
            clients.push_back(client);
            VecDeque::new()
        });
        match streams.iter_mut().find(|(number, _)| *number == stream) {
            Some((_, tasks)) => tasks.push_back(task),
            None => streams.push_back((stream, VecDeque::from([task]))),
        }
        let idle = *idle;
        self.tasks.fetch_add(1, Ordering::Release);
        drop(turns);
        match idle {
            0 => {}
            _ if parts == 1 => self.more.notify_one(),
            _ => self.more.notify_all(),
        }
    }

    /// The next part that is to be done, sooner or later; none when the pool is gone.
    fn next(&self) -> Option<(Arc<dyn Task>, usize)> {
        // The next task often comes within microseconds, and waking a thread takes as long.
        let backoff = Backoff::new();
        while self.tasks.load(Ordering::Acquire) == 0 && !backoff.is_completed() {
            backoff.snooze();
        }
        let mut turns = self.turns();
        loop {
            if turns.is_closed {
                return None;
            }
            if let Some(part) = turns.take(&self.tasks) {
                return Some(part);
            }
            turns.idle += 1;
            turns = self.more.wait(turns).unwrap_or_else(PoisonError::into_inner);
            turns.idle -= 1;
        }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        lock(&self.turns)
    }
}

impl Turns {
    /// Takes a part of the client whose turn it is, and moves both client and stream to the end of their queues.
    fn take(&mut self, count: &AtomicUsize) -> Option<(Arc<dyn Task>, usize)> {
        while let Some(client) = self.clients.pop_front() {
            let streams = self.streams.get_mut(&client).expect("it has streams");
            let mut taken = None;
            while taken.is_none()
                && let Some((stream, mut tasks)) = streams.pop_front()
            {
                while taken.is_none()
                    && let Some(first) = tasks.front_mut()
                {
                    let is_first = first.next == 0;
                    if !first.task.is_cancelled() {
                        taken = Some((Arc::clone(&first.task), first.next));
                        first.next += 1;
                    }
                    if is_first {
                        first.task.leave();
                    }
                    if taken.is_none() || first.next == first.parts {
                        tasks.pop_front();
                        count.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                if !tasks.is_empty() {
                    streams.push_back((stream, tasks));
                }
            }
            match streams.is_empty() {
                true => drop(self.streams.remove(&client)),
                false => self.clients.push_back(client),
            }
            if taken.is_some() {
                return taken;
            }
        }
        None
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::start(threads, Metrics::new().unwrap()).unwrap()
    }

    fn owner(client: u8, stream: u64) -> Owner {
        Owner { client: Client::at(Ipv4Addr::new(192, 0, 2, client).into()), stream }
    }

    /// Keeps a worker of a pool busy until told, and says when it has begun.
    fn hold(pool: &Pool) -> (Sender<()>, Answer<bool>) {
        let (release, held) = channel::<()>();
        let (begin, begun) = channel();
        let answer = pool.run(owner(0, 0), move |_, _| {
            begin.send(()).unwrap();
            held.recv().is_ok()
        });
        begun.recv().unwrap();
        (release, answer)
    }

    /// Writes down the order in which its parts are done.
    struct Noted {
        name: &'static str,
        parts: usize,
        notes: Sender<(&'static str, usize)>,
    }

    impl Work for Noted {
        type Output = usize;

        fn parts(&self) -> usize {
            self.parts
        }

        fn run(&self, part: usize, _: &mut Workspace) -> ControlFlow<usize> {
            self.notes.send((self.name, part)).unwrap();
            ControlFlow::Continue(())
        }

        fn finish(&self, _: &mut Workspace) -> usize {
            self.parts
        }
    }

    fn notes() -> (impl Fn(&'static str, usize) -> Noted, Receiver<(&'static str, usize)>) {
        let (send, notes) = channel();
        (move |name, parts| Noted { name, parts, notes: send.clone() }, notes)
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_the_pool_does_not_shrink() {
        let pool = pool(1);
        for _ in 0..3 {
            assert!(pool.run(owner(1, 1), |_, _| -> () { panic!("on purpose") }).await.is_err());
        }
        assert_eq!(pool.run(owner(1, 1), |_, _| 7).await.unwrap(), 7);
        assert_eq!(pool.metrics.queue_depth.get(), 0);
    }

    #[tokio::test]
    async fn a_job_nobody_waits_for_is_skipped() {
        let pool = pool(1);
        let (release, first) = hold(&pool);
        let (noted, notes) = notes();
        let (client, stream) = (owner(1, 1), owner(2, 2));
        drop(pool.start_work(client, noted("left", 3)));
        let stays = pool.start_work(client, noted("stays", 2));
        drop(pool.start_work(stream, noted("left, too", 1)));
        assert_eq!(pool.metrics.queue_depth.get(), 3);
        release.send(()).unwrap();
        assert!(first.await.unwrap());
        assert_eq!(stays.await.unwrap(), 2);
        pool.run(stream, |_, _| ()).await.unwrap();
        drop(pool);
        drop(noted);
        assert_eq!(notes.iter().collect::<Vec<_>>(), [("stays", 0), ("stays", 1)]);
    }

    #[tokio::test]
    async fn clients_take_turns_and_so_do_the_streams_of_each() {
        let pool = pool(1);
        let (release, first) = hold(&pool);
        let (noted, notes) = notes();
        let works = [
            (owner(1, 1), noted("greedy a", 3)),
            (owner(1, 1), noted("greedy a, then", 1)),
            (owner(1, 2), noted("greedy b", 2)),
            (owner(2, 3), noted("modest", 2)),
        ];
        let answers = works.map(|(owner, work)| pool.start_work(owner, work));
        release.send(()).unwrap();
        assert!(first.await.unwrap());
        for (answer, parts) in answers.into_iter().zip([3, 1, 2, 2]) {
            assert_eq!(answer.await.unwrap(), parts);
        }
        drop(noted);
        let expected = [
            ("greedy a", 0),
            ("modest", 0),
            ("greedy b", 0),
            ("modest", 1),
            ("greedy a", 1),
            ("greedy b", 1),
            ("greedy a", 2),
            ("greedy a, then", 0),
        ];
        assert_eq!(notes.iter().collect::<Vec<_>>(), expected);
        assert_eq!(pool.metrics.queue_depth.get(), 0);
    }

    #[tokio::test]
    async fn a_task_is_told_that_nobody_waits_for_it() {
        let pool = pool(1);
        let (begin, begun) = channel();
        let (end, ended) = channel();
        let answer = pool.run(owner(1, 1), move |_, cancellation| {
            begin.send(()).unwrap();
            while !cancellation.is_cancelled() {
                std::thread::yield_now();
            }
            end.send(()).unwrap();
        });
        begun.recv().unwrap();
        drop(answer);
        ended.recv().unwrap();
    }

    /// Fails in a part, or panics there.
    struct Failing {
        panics: bool,
        notes: Sender<usize>,
    }

    impl Work for Failing {
        type Output = Result<(), usize>;

        fn parts(&self) -> usize {
            10
        }

        fn run(&self, part: usize, _: &mut Workspace) -> ControlFlow<Result<(), usize>> {
            self.notes.send(part).unwrap();
            match part {
                3 if self.panics => panic!("on purpose"),
                3 => ControlFlow::Break(Err(part)),
                _ => ControlFlow::Continue(()),
            }
        }

        fn finish(&self, _: &mut Workspace) -> Result<(), usize> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_is_left_of_a_work_that_failed_is_not_done() {
        for panics in [false, true] {
            let pool = pool(1);
            let (notes, noted) = channel();
            let answer = pool.start_work(owner(1, 1), Failing { panics, notes }).await;
            assert_eq!(answer.ok(), (!panics).then_some(Err(3)));
            pool.run(owner(1, 1), |_, _| ()).await.unwrap();
            assert_eq!(noted.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        }
    }

    #[tokio::test]
    async fn every_part_is_done_once_by_whatever_number_of_workers() {
        for threads in [1, 2, 8] {
            let pool = pool(threads);
            let (noted, notes) = notes();
            let works =
                (0..50).map(|number| pool.start_work(owner(number % 3, number.into()), noted("", 20)));
            for answer in works.collect::<Vec<_>>() {
                assert_eq!(answer.await.unwrap(), 20);
            }
            drop(noted);
            let mut parts: Vec<usize> = notes.try_iter().map(|(_, part)| part).collect();
            parts.sort_unstable();
            let expected: Vec<usize> = (0..20).flat_map(|part| [part; 50]).collect();
            assert_eq!(parts, expected);
            assert_eq!(pool.metrics.queue_depth.get(), 0);
        }
    }
}
