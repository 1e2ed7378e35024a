//! What waits for a worker, and which of it is next: of the next client a part of its next stream.
//!
//! The tasks of one stream are done in order, each part by part. Before a client that comes, each other client has
//! one part begun and no more, however much it has queued.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use crate::stream::client::Client;
use crate::stream::round_robin::RoundRobin;
use crate::sync::{AtomicUsize, Backoff, Condvar, Mutex, MutexGuard, lock, wait};

/// Whose work something is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) client: Client,
    /// A stream or another request of the client; no two have the same number.
    pub(crate) stream: u64,
}

/// Something to be done in parts. Clones are of the same.
pub(crate) trait Task: Clone {
    /// Whether its parts that have not begun need not be done.
    fn is_cancelled(&self) -> bool;

    /// It no longer waits: its first part begins, or it is skipped, because it was cancelled before that. Called
    /// once.
    fn leave(&self);
}

/// What waits for a worker.
pub(crate) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    /// Tasks in `waiting`.
    tasks: AtomicUsize,
    /// Something was added, or the queue was closed.
    more: Condvar,
}

struct Waiting<T> {
    /// Of each client the streams, of each of these the tasks in order.
    clients: RoundRobin<Client, RoundRobin<u64, VecDeque<Queued<T>>>>,
    /// Workers that sleep.
    idle: usize,
    is_closed: bool,
}

/// A task, and which of its parts is the next.
struct Queued<T> {
    task: T,
    next: usize,
    parts: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        let waiting = Waiting { clients: RoundRobin::default(), idle: 0, is_closed: false };
        Queue { waiting: Mutex::new(waiting), tasks: AtomicUsize::new(0), more: Condvar::new() }
    }
}

impl<T: Task> Queue<T> {
    /// Queues a task of so many parts, at least 1.
    pub(crate) fn add(&self, Owner { client, stream }: Owner, task: T, parts: usize) {
        let mut waiting = self.waiting();
        waiting.clients.of(client).of(stream).push_back(Queued { task, next: 0, parts });
        let idle = waiting.idle;
        self.tasks.fetch_add(1, Ordering::Release);
        drop(waiting);
        match idle {
            0 => {}
            _ if parts == 1 => self.more.notify_one(),
            _ => self.more.notify_all(),
        }
    }

    /// The next part that is to be done, sooner or later; none when the queue is closed.
    pub(crate) fn next(&self) -> Option<(T, usize)> {
        // The next task often comes within microseconds, and waking a thread takes as long.
        let backoff = Backoff::new();
        while self.tasks.load(Ordering::Acquire) == 0 && !backoff.is_completed() {
            backoff.snooze();
        }
        let mut waiting = self.waiting();
        loop {
            if waiting.is_closed {
                return None;
            }
            if let Some(part) = waiting.take(&self.tasks) {
                return Some(part);
            }
            waiting.idle += 1;
            waiting = wait(&self.more, waiting);
            waiting.idle -= 1;
        }
    }

    /// Ends all that wait for a part, now or later.
    pub(crate) fn close(&self) {
        self.waiting().is_closed = true;
        self.more.notify_all();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
        lock(&self.waiting)
    }
}

impl<T: Task> Waiting<T> {
    /// Takes a part of the next stream of the next client.
    fn take(&mut self, count: &AtomicUsize) -> Option<(T, usize)> {
        self.clients.next(|streams| streams.next(|tasks| take_of(tasks, count)))
    }
}

/// The next part of tasks, past those that are cancelled.
fn take_of<T: Task>(tasks: &mut VecDeque<Queued<T>>, count: &AtomicUsize) -> Option<(T, usize)> {
    let mut taken = None;
    while taken.is_none()
        && let Some(first) = tasks.front_mut()
    {
        let is_first = first.next == 0;
        if !first.task.is_cancelled() {
            taken = Some((first.task.clone(), first.next));
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
    taken
}
