//! Work on its way through the pool.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use loom::future::block_on;
use loom::thread;

use crate::cells::Cells;
use crate::metrics::Metrics;
use crate::stream::pieces::Pieces;
use crate::stream::queue::{self, Owner, Queue};
use crate::stream::work::{Answer, Panicked, Task, Work};
use crate::stream::workspace::Workspace;
use crate::sync::{Mutex, lock};

use crate::models::common::owner;

/// A batch in the making, as `making.rs` makes one: each part writes a piece of its own, the last puts them
/// together.
struct Batch {
    pieces: Mutex<Option<Pieces<Cells>>>,
    parts: usize,
    fails: Fails,
    finished: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Fails {
    Never,
    /// Its first part ends it.
    First,
    /// Its first part panics.
    Panics,
}

impl Batch {
    fn new(parts: usize, fails: Fails) -> (Batch, Arc<AtomicUsize>) {
        let finished = Arc::default();
        let pieces = Mutex::new(Some(Pieces::cut(Cells::new(0, parts + 1), parts, 1, parts)));
        (Batch { pieces, parts, fails, finished: Arc::clone(&finished) }, finished)
    }
}

impl Work for Batch {
    type Output = Option<Cells>;

    fn parts(&self) -> usize {
        self.parts
    }

    fn run(&self, part: usize, _: &mut Workspace) -> ControlFlow<Option<Cells>> {
        match self.fails {
            Fails::First if part == 0 => return ControlFlow::Break(None),
            Fails::Panics if part == 0 => std::panic::resume_unwind(Box::new("on purpose")),
            _ => {}
        }
        let mut piece = lock(&self.pieces).as_mut().unwrap().take(part);
        piece.write();
        lock(&self.pieces).as_mut().unwrap().put(part, piece);
        ControlFlow::Continue(())
    }

    fn finish(&self, _: &mut Workspace) -> Option<Cells> {
        self.finished.fetch_add(1, SeqCst);
        let mut pieces = lock(&self.pieces).take().unwrap();
        pieces.rest().write();
        let body = pieces.join();
        body.read();
        Some(body)
    }
}

/// The threads of a pool, as `pool.rs` starts them.
struct Workers {
    queue: Arc<Queue<Task>>,
    metrics: Metrics,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Workers {
    fn start(count: usize) -> Workers {
        let queue = Arc::new(Queue::<Task>::default());
        let threads = (0..count).map(|_| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                while let Some((task, part)) = queue.next() {
                    task.run(part, &mut Workspace::default());
                }
            })
        });
        Workers { threads: threads.collect(), queue, metrics: Metrics::new() }
    }

    fn add(&self, owner: Owner, batch: Batch) -> Answer<Option<Cells>> {
        let (task, answer) = Task::of(batch, self.metrics.clone());
        let parts = task.parts();
        self.queue.add(owner, task, parts);
        answer
    }

    fn end(self) {
        self.queue.close();
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

pub(super) fn work() {
    let workers = Workers::start(2);
    let (batch, finished) = Batch::new(2, Fails::Never);
    let answer = workers.add(owner(1, 1), batch);
    let (other, _) = Batch::new(1, Fails::Never);
    let other = workers.add(owner(2, 2), other);
    for (answer, bytes) in [(answer, 3), (other, 2)] {
        let body = block_on(answer).unwrap().unwrap();
        body.read();
        assert_eq!(body.len(), bytes);
    }
    assert_eq!((finished.load(SeqCst), workers.metrics.queue_depth.get()), (1, 0));
    workers.end();
}

pub(super) fn work_left() {
    let workers = Workers::start(2);
    let (batch, finished) = Batch::new(2, Fails::Never);
    drop(workers.add(owner(1, 1), batch));
    // Of the same stream, so that it comes after.
    let (next, _) = Batch::new(1, Fails::Never);
    let next = workers.add(owner(1, 1), next);
    assert!(block_on(next).unwrap().is_some());
    assert!(finished.load(SeqCst) <= 1);
    assert_eq!(workers.metrics.queue_depth.get(), 0);
    workers.end();
}

pub(super) fn work_panics() {
    let (answer, next) = after(Fails::Panics);
    assert!(answer.is_err() && next);
}

pub(super) fn work_fails() {
    let (answer, next) = after(Fails::First);
    assert!(answer.is_ok_and(|body| body.is_none()) && next);
}

/// What comes of a work that fails, and whether the next is done.
fn after(fails: Fails) -> (Result<Option<Cells>, Panicked>, bool) {
    let workers = Workers::start(2);
    let (batch, finished) = Batch::new(2, fails);
    let answer = block_on(workers.add(owner(1, 1), batch));
    let (next, _) = Batch::new(1, Fails::Never);
    let next = block_on(workers.add(owner(1, 1), next));
    assert_eq!((finished.load(SeqCst), workers.metrics.queue_depth.get()), (0, 0));
    workers.end();
    (answer, next.is_ok_and(|body| body.is_some()))
}

/// A task that does nothing.
#[derive(Clone)]
struct Named(u8);

impl queue::Task for Named {
    fn is_cancelled(&self) -> bool {
        false
    }

    fn leave(&self) {}
}

pub(super) fn clients_in_turn() {
    let queue = Arc::new(Queue::default());
    queue.add(owner(1, 1), Named(1), 3);
    queue.add(owner(1, 2), Named(1), 1);
    // Whose part began, and 0 when the second client had come.
    let log = Arc::new(std::sync::Mutex::new(Vec::new()));
    let workers = [3, 2].map(|parts| {
        let (queue, log) = (Arc::clone(&queue), Arc::clone(&log));
        thread::spawn(move || {
            for _ in 0..parts {
                let (Named(client), _) = queue.next().expect("it is not closed");
                log.lock().unwrap().push(client);
            }
        })
    });
    queue.add(owner(2, 3), Named(2), 1);
    log.lock().unwrap().push(0);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let log = log.lock().unwrap();
    let passed = log.iter().skip_while(|entry| **entry != 0).take_while(|entry| **entry != 2);
    let passed = if log.contains(&2) { passed.filter(|entry| **entry == 1).count() } else { 9 };
    let was_first = log.iter().position(|entry| *entry == 2) < log.iter().position(|entry| *entry == 0);
    assert!(was_first || passed <= 1, "{passed} parts passed a client that waited: {log:?}");
}
