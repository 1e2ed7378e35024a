//! The models: what threads of the daemon do with what they share, and what must hold whatever their order.

use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::thread;

use crate::area::Area;
use crate::cells::{Cells, Seen};
use crate::channel::channel;
use crate::connections::Connections;
use crate::metrics::{Metrics, gauge};
use crate::model::Model;
use crate::stream::budget::{BatchMemory, Budget, OwnBatch};
use crate::stream::buffers::BufferPool;
use crate::stream::client::Client;
use crate::stream::decoded_cache::{DecodedCache, Key};
use crate::stream::permits::Permits;
use crate::stream::pieces::Pieces;
use crate::stream::queue::{self, Owner, Queue};
use crate::stream::shared_memory::{Memory, SharedMemory};
use crate::stream::slots::{Numbered, Slots};
use crate::stream::turns::Turns;
use crate::stream::work::{Answer, Panicked, Task, Work};
use crate::stream::workspace::Workspace;
use crate::sync::{AtomicUsize as Watched, Mutex, lock};

pub(crate) const ALL: &[Model] = &[
    Model {
        property: "the budget and its shares are never exceeded, and every byte comes back",
        run: budget,
    },
    Model { property: "a stream gets its own batch back and never sleeps through that", run: own_batch },
    Model { property: "idle buffers make room for whoever needs it, and no byte is lost", run: idle_buffers },
    Model { property: "a buffer that comes back while room is made is kept or freed", run: returned_buffers },
    Model { property: "a turn goes to one at a time, and past those who have left", run: turns },
    Model { property: "turns go from client to client", run: turns_in_turn },
    Model {
        property: "permits of streams are bounded, and come back with the memory they count",
        run: permits,
    },
    Model {
        property: "connections are bounded, and each is open as long as anything of it",
        run: connections,
    },
    Model {
        property: "every part is done once, the last sees all, and no worker sleeps through work",
        run: work,
    },
    Model { property: "work whose reader leaves ends, and so do its workers", run: work_left },
    Model { property: "work that panics is answered so, and no worker is lost", run: work_panics },
    Model { property: "work that fails is answered once, and the next is done", run: work_fails },
    Model { property: "a client waits for at most one part of another", run: clients_in_turn },
    Model { property: "a slot is written by one, and not while its client holds it", run: slots },
    Model {
        property: "shared memory is reserved until stream, worker and client have left it",
        run: shared_memory,
    },
    Model {
        property: "a fault is found in the map that it is in, whatever becomes of the others",
        run: areas,
    },
    Model { property: "the decoded cache holds what it has reserved and no more", run: decoded_cache },
];

fn client(number: u8) -> Client {
    Client::at(Ipv4Addr::new(192, 0, 2, number).into())
}

fn owner(number: u8, stream: u64) -> Owner {
    Owner { client: client(number), stream }
}

/// Bytes in use, as those count that use them: loom does not interrupt between a call and the count of it.
#[derive(Clone)]
struct Counted {
    bytes: Arc<AtomicUsize>,
    most: usize,
}

impl Counted {
    fn new(most: usize) -> Counted {
        Counted { bytes: Arc::default(), most }
    }

    fn add(&self, bytes: usize) {
        let taken = self.bytes.fetch_add(bytes, SeqCst) + bytes;
        assert!(taken <= self.most, "{taken} of {}", self.most);
    }

    fn sub(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, SeqCst);
    }
}

fn budget() {
    let (taken, part_taken) = (gauge(), gauge());
    let whole = Budget::new(10, taken.clone());
    let part = whole.share(6, part_taken.clone());
    let (in_all, in_part) = (Counted::new(10), Counted::new(6));
    let threads = [(true, 4), (true, 5), (false, 5)].map(|(is_part, bytes)| {
        let (whole, part, in_all, in_part) = (whole.clone(), part.clone(), in_all.clone(), in_part.clone());
        move || {
            let budget = if is_part { &part } else { &whole };
            let Some(mut memory) = budget.reserve(bytes) else { return };
            let counts = [Some(&in_all), is_part.then_some(&in_part)];
            let counts = || counts.into_iter().flatten();
            counts().for_each(|count| count.add(bytes as usize));
            counts().for_each(|count| count.sub(3));
            memory.shrink_to(bytes - 3);
            counts().for_each(|count| count.sub(bytes as usize - 3));
        }
    });
    let [first, second, third] = threads;
    let others = [thread::spawn(first), thread::spawn(second)];
    third();
    others.into_iter().for_each(|other| other.join().unwrap());
    assert_eq!((taken.get(), part_taken.get()), (0, 0));
    drop(part.reserve(6).expect("the share is whole again"));
    assert!(whole.reserve(10).is_some(), "so is the budget");
}

fn own_batch() {
    let budget = Budget::new(10, gauge());
    let own = OwnBatch::new(budget.reserve(10).unwrap());
    let (send, sent) = channel::<BatchMemory>();
    let connection = thread::spawn(move || {
        for _ in 0..2 {
            drop(sent.recv().unwrap());
        }
    });
    block_on(async {
        for _ in 0..2 {
            let batch = loop {
                match own.take() {
                    Some(batch) => break batch,
                    None => own.returned().await,
                }
            };
            assert!(own.take().is_none(), "one at a time");
            send.send(batch);
        }
    });
    drop(own);
    connection.join().unwrap();
    assert!(budget.reserve(10).is_some());
}

/// Two that need all that idle buffers have, at the same time.
fn idle_buffers() {
    let taken = gauge();
    let budget = Budget::new(10, taken.clone());
    let pool = BufferPool::new(2, budget.clone());
    let buffers = [5, 5].map(|len| pool.take(len, len));
    buffers.into_iter().for_each(|buffer| drop(pool.lend(buffer)));
    assert_eq!(taken.get(), 10);
    let other = {
        let (pool, budget) = (pool.clone(), budget.clone());
        thread::spawn(move || pool.reserve(&budget, 5))
    };
    let first = pool.reserve(&budget, 5);
    let second = other.join().unwrap();
    assert!(first.is_some() && second.is_some(), "there is room for both");
    assert_eq!(taken.get(), 10);
    drop((first, second));
    assert_eq!(taken.get(), 0);
}

fn returned_buffers() {
    let taken = gauge();
    let whole = Budget::new(12, taken.clone());
    let pool = BufferPool::new(1, whole.share(12, gauge()));
    let (idle, lent) = (pool.take(4, 4), pool.take(6, 6));
    drop(pool.lend(idle));
    let lent = pool.lend(lent);
    let other = thread::spawn(move || drop(lent));
    let memory = pool.reserve(&whole, 8);
    other.join().unwrap();
    drop(memory);
    // Whatever is taken now lies idle.
    let all = pool.reserve(&whole, 12);
    assert!(all.is_some() && taken.get() == 12);
    drop(all);
    assert_eq!(taken.get(), 0);
}

fn turns() {
    let turns = Arc::new(Turns::new(1));
    let users = Counted::new(1);
    let first = block_on(turns.take(client(1)));
    users.add(1);
    let leaver = {
        let (turns, users) = (Arc::clone(&turns), users.clone());
        thread::spawn(move || {
            let mut waiting = pin!(turns.take(client(2)));
            if let Poll::Ready(turn) = waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                users.add(1);
                users.sub(1);
                drop(turn);
            }
            // It leaves here: before, while or after the turn comes.
        })
    };
    let stayer = {
        let (turns, users) = (Arc::clone(&turns), users.clone());
        thread::spawn(move || {
            let turn = block_on(turns.take(client(3)));
            users.add(1);
            users.sub(1);
            drop(turn);
        })
    };
    users.sub(1);
    drop(first);
    leaver.join().unwrap();
    stayer.join().unwrap();
    // The turn is there at once, and not with somebody who has left.
    let mut again = pin!(turns.take(client(1)));
    assert!(again.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
}

fn turns_in_turn() {
    let turns = Turns::new(1);
    let first = block_on(turns.take(client(1)));
    let noop = &mut Context::from_waker(Waker::noop());
    let mut waiting = [1, 1, 2].map(|number| Some(Box::pin(turns.take(client(number)))));
    for waiting in waiting.iter_mut().flatten() {
        assert!(waiting.as_mut().poll(noop).is_pending());
    }
    let other = thread::spawn(move || drop(first));
    for next in [0, 2, 1] {
        let turn = block_on(waiting[next].take().unwrap());
        for waiting in waiting.iter_mut().flatten() {
            assert!(waiting.as_mut().poll(noop).is_pending(), "there is one turn");
        }
        drop(turn);
    }
    other.join().unwrap();
}

fn permits() {
    let permits = Arc::new(Permits::new(2, 1));
    let (streams, of_client) = (Counted::new(2), Counted::new(1));
    let take = |number: u8| {
        let (permits, streams, of_client) = (Arc::clone(&permits), streams.clone(), of_client.clone());
        move || {
            let Ok(mut permit) = permits.take(owner(number, 0)) else { return };
            streams.add(1);
            if number == 1 {
                of_client.add(1);
            }
            assert_eq!(permit.charge(7, 5), Ok(()), "a client may always have one");
            if number == 1 {
                of_client.sub(1);
            }
            streams.sub(1);
        }
    };
    let others = [thread::spawn(take(1)), thread::spawn(take(1))];
    take(2)();
    others.into_iter().for_each(|other| other.join().unwrap());
    assert_eq!(permits.taken(), 0);
    let all = [permits.take(owner(1, 1)), permits.take(owner(2, 2))];
    assert!(all.iter().all(Result::is_ok));
}

fn connections() {
    let active = gauge();
    let connections = Arc::new(Connections::new(1, active.clone()));
    let open = Counted::new(1);
    let visit = |connections: Arc<Connections>, open: Counted| {
        let served = connections.open()?;
        open.add(1);
        let upgraded = served.clone();
        Some((served, upgraded, open))
    };
    let close = |visit: Option<(_, _, Counted)>| {
        let Some((served, upgraded, open)) = visit else { return };
        let other = thread::spawn(move || drop(upgraded));
        open.sub(1);
        drop(served);
        other.join().unwrap();
    };
    let other = {
        let (connections, open) = (Arc::clone(&connections), open.clone());
        thread::spawn(move || close(visit(connections, open)))
    };
    close(visit(Arc::clone(&connections), open));
    other.join().unwrap();
    assert_eq!(active.get(), 0);
    assert!(connections.open().is_some());
}

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

fn work() {
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

fn work_left() {
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

fn work_panics() {
    let (answer, next) = after(Fails::Panics);
    assert!(answer.is_err() && next);
}

fn work_fails() {
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

fn clients_in_turn() {
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

/// A stream of three batches through two slots: the server's loop, a worker and a client.
fn slots() {
    enum Event {
        Filled(Cells),
        Released(u32),
    }
    let cells = [Cells::new(0, 1), Cells::new(1, 1)];
    let memory: Vec<Seen> = cells.iter().map(Cells::seen).collect();
    let mut slots = Slots::new(cells.into());
    let (to_server, events) = channel();
    let (to_worker, asked) = channel::<Cells>();
    let (to_client, batches) = channel::<u32>();
    let worker = {
        let to_server = to_server.clone();
        thread::spawn(move || {
            while let Some(mut slot) = asked.recv() {
                slot.write();
                to_server.send(Event::Filled(slot));
            }
        })
    };
    let client = thread::spawn(move || {
        let mut held = None;
        for _ in 0..3 {
            let number = batches.recv().unwrap();
            memory[number as usize].read();
            // It holds one while it waits for the next.
            if let Some(earlier) = held.replace(number) {
                memory[earlier as usize].read();
                to_server.send(Event::Released(earlier));
            }
        }
        to_server.send(Event::Released(held.unwrap()));
    });
    let (mut left, mut released) = (3, 0);
    while released < 3 {
        while left > 0
            && let Some(slot) = slots.take()
        {
            left -= 1;
            to_worker.send(slot);
        }
        match events.recv().unwrap() {
            Event::Filled(slot) => {
                let number = slot.number();
                slots.hand_over(slot);
                to_client.send(number);
            }
            Event::Released(number) => {
                assert!(slots.give_back(number), "it holds it");
                assert!(!slots.give_back(number), "and gives it back once");
                released += 1;
            }
        }
    }
    drop(to_worker);
    worker.join().unwrap();
    client.join().unwrap();
    assert_eq!(slots.held(), 0);
    assert!(slots.take().is_some() && slots.take().is_some() && slots.take().is_none());
}

/// Of a real memory file: its stream ends, a worker has a slot yet, and the client lets go, in any order.
fn shared_memory() {
    let (taken, running, kept) = (gauge(), gauge(), gauge());
    let budget = Budget::new(2 * 4096, taken.clone());
    let buffers = BufferPool::new(1, budget.clone());
    let home = SharedMemory::new(budget, buffers, running.clone(), kept.clone());
    let (memory, mut slots) = Memory::new(&home, b"", 2, 4096).unwrap();
    let number = memory.number();
    let client = memory.descriptor().try_clone_to_owned().unwrap();
    let late = slots.pop().unwrap();
    let is_written = Arc::new(AtomicUsize::new(0));
    let worker = {
        let is_written = Arc::clone(&is_written);
        thread::spawn(move || {
            is_written.store(1, SeqCst);
            drop(late);
        })
    };
    let client = thread::spawn(move || drop(client));
    drop((memory, slots));
    // As the stream's task looks after it, again and again.
    if !home.is_used(number) {
        assert_eq!((is_written.load(SeqCst), taken.get()), (1, 0), "a worker has a slot of it");
    }
    worker.join().unwrap();
    client.join().unwrap();
    assert!(!home.is_used(number), "it is let go");
    assert_eq!([taken.get(), running.get(), kept.get()], [0, 0, 0]);
}

fn decoded_cache() {
    let taken = gauge();
    let cache = Arc::new(DecodedCache::new(Budget::new(600, taken.clone())));
    let (split, other) = (pba_schedules::Digest::of("a split"), pba_schedules::Digest::of("another"));
    let key = move |split, sample| Key { split, sample, reduction: 1 };
    let keep = |samples: [u64; 2]| {
        let cache = Arc::clone(&cache);
        move || {
            for sample in samples {
                // An entry takes 256 bytes besides.
                if let Some(room) = cache.room(40) {
                    cache.keep(room, key(split, sample), vec![sample as u8; 40].into());
                }
                assert!(cache.get(&key(split, sample)).is_none_or(|pixels| pixels[..] == [sample as u8; 40]));
            }
        }
    };
    let first = thread::spawn(keep([0, 1]));
    keep([1, 2])();
    first.join().unwrap();
    let held = (0..3).filter(|sample| cache.get(&key(split, *sample)).is_some()).count();
    assert_eq!(taken.get(), 296 * held as i64, "what is taken is what is held");
    assert!(held > 0 && cache.get(&key(other, 1)).is_none());
    cache.forget(&split);
    assert_eq!(taken.get(), 0);
}

/// A thread opens and closes maps, while another's handler looks for its own among them: an address that is in
/// none of theirs, but between the start of one and the end of the next.
fn areas() {
    let [changes, start, end] = [0; 3].map(Watched::new);
    let area = Arc::new(Area { changes, start, end });
    area.set(10, 20);
    let opens = {
        let area = Arc::clone(&area);
        thread::spawn(move || {
            area.set(0, 0);
            area.set(40, 50);
            area.set(0, 0);
            area.set(10, 15);
        })
    };
    for (address, ends) in [(30, &[][..]), (17, &[20])] {
        let found = area.end_around(address);
        assert!(found.is_none_or(|end| ends.contains(&end)), "{address} until {found:?}");
    }
    opens.join().unwrap();
    assert_eq!((area.end_around(12), area.end_around(15)), (Some(15), None));
}
