//! Memory: budgets, buffers, slots, what is shared with clients, what is cached, and maps.

use std::sync::Arc;

use loom::future::block_on;
use loom::thread;

use crate::area::Area;
use crate::cells::{Cells, Seen};
use crate::channel::channel;
use crate::metrics::gauge;
use crate::stream::budget::{BatchMemory, Budget, OwnBatch};
use crate::stream::buffers::BufferPool;
use crate::stream::decoded_cache::{DecodedCache, Key};
use crate::stream::shared_memory::{Memory, SharedMemory};
use crate::stream::slots::{Numbered, Slots};
use crate::sync::AtomicUsize as Watched;

use crate::models::common::Counted;

pub(super) fn budget() {
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

pub(super) fn own_batch() {
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
pub(super) fn idle_buffers() {
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

pub(super) fn returned_buffers() {
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

/// A stream of three batches through two slots: the server's loop, a worker and a client.
pub(super) fn slots() {
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

/// Of a real memory file: its stream has ended and its task looks after it, a worker has a slot yet, and the client lets
/// go, in any order.
pub(super) fn shared_memory() {
    let (taken, running, kept) = (gauge(), gauge(), gauge());
    let budget = Budget::new(2 * 4096, taken.clone());
    let buffers = BufferPool::new(1, budget.clone());
    let home = SharedMemory::new(budget, buffers, running.clone(), kept.clone());
    let (memory, mut slots) = Memory::new(&home, b"", 2, 4096).unwrap();
    let number = memory.number();
    let client = memory.descriptor().try_clone_to_owned().unwrap();
    let late = slots.pop().unwrap();
    drop((memory, slots));
    let task = {
        let (home, taken) = (Arc::clone(&home), taken.clone());
        thread::spawn(move || {
            // Again and again, until it is not used.
            if !home.is_used(number) {
                assert_eq!(taken.get(), 0, "it is no longer looked after, and still reserved");
            }
        })
    };
    let client = thread::spawn(move || drop(client));
    // The worker.
    drop(late);
    task.join().unwrap();
    client.join().unwrap();
    assert!(!home.is_used(number), "it is let go");
    assert_eq!([taken.get(), running.get(), kept.get()], [0, 0, 0]);
}

pub(super) fn decoded_cache() {
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
    // Both keep the same first, and there is room for two.
    let first = thread::spawn(keep([1, 0]));
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
pub(super) fn areas() {
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
