//! What waits for a worker, and which of it is next: of the next client a part of its next stream.
//!
//! The works of one stream are done in order, each part by part. A client that comes waits for at most one part
//! of each other client, however much those have queued.

use std::collections::{HashMap, VecDeque};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::stream::client::Client;
use crate::sync::{AtomicUsize, Backoff, Condvar, Mutex, MutexGuard, lock};

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

    /// Told once: when its first part begins, or when it is cancelled before.
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
    /// Those that have tasks, in the order of their turns.
    clients: VecDeque<Client>,
    /// The streams of each of these that have tasks, likewise; the tasks of each in order.
    streams: HashMap<Client, VecDeque<(u64, Tasks<T>)>>,
    /// Workers that sleep.
    idle: usize,
    is_closed: bool,
}

/// Those of one stream, in order.
type Tasks<T> = VecDeque<Queued<T>>;

/// A task, and which of its parts is the next.
struct Queued<T> {
    task: T,
    next: usize,
    parts: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        let (clients, streams) = Default::default();
        let waiting = Waiting { clients, streams, idle: 0, is_closed: false };
        Queue { waiting: Mutex::new(waiting), tasks: AtomicUsize::new(0), more: Condvar::new() }
    }
}

impl<T: Task> Queue<T> {
    /// Queues a task of so many parts, at least 1.
    pub(crate) fn add(&self, Owner { client, stream }: Owner, task: T, parts: usize) {
        let task = Queued { task, next: 0, parts };
        let mut waiting = self.waiting();
        let Waiting { clients, streams, idle, .. } = &mut *waiting;
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
            waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
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
    /// Takes a part of the client whose turn it is, and moves both client and stream to the end of their queues.
    fn take(&mut self, count: &AtomicUsize) -> Option<(T, usize)> {
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
