//! Shared memory of a stream and its client, in slots of one batch each.
//!
//! A client keeps what it holds when its stream has ended, and that memory counts as this process's. So it
//! stays reserved until no other process has it open or mapped, which the kernel tells: it grants a write lease
//! on a file only to the one process that has it open. The client's descriptor is an opening of its own for that.
//! (An opening with `O_PATH` is not seen: a process that means harm to its own machine can keep memory so.)
//!
//! This is the one file of the daemon with unsafe code. Two facts make it sound: a [`Slot`] is the
//! only value through which its part of the mapping is reached, and there is one for each part; and
//! the seals prevent writing through another mapping, and truncation under this one.

#![allow(unsafe_code, reason = "slices of a shared mapping, and one call of fcntl; see above")]

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering;

use memmap2::{MmapOptions, MmapRaw};
use prometheus::IntGauge;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::stream::budget::{Budget, Reservation};
use crate::stream::buffers::{BufferPool, Divisible};
use crate::stream::slots::Numbered;
use crate::sync::{Arc, AtomicU64, Mutex, MutexGuard, lock};

/// Slots are page-aligned, so that a client can release the pages of one slot only.
const PAGE_BYTES: usize = 4096;

/// Most memories that clients keep after their streams have ended, each of which takes a descriptor. With more,
/// streams go through the socket.
pub(crate) const KEPT_MAX: usize = 256;

/// The memory that all streams share with their clients.
pub(crate) struct SharedMemory {
    budget: Budget,
    /// Idle ones make room.
    buffers: BufferPool,
    /// Of streams that run.
    running_bytes: IntGauge,
    /// Of streams that have ended.
    kept_bytes: IntGauge,
    /// Every memory that is reserved, by its number; with what is left of it when neither its stream nor a
    /// worker has any of it.
    memories: Mutex<HashMap<u64, Option<Leftover>>>,
    /// Number of the next memory.
    next: AtomicU64,
}

/// What is left of a memory that only its client may still use.
struct Leftover {
    witness: File,
    reservation: Reservation,
}

impl SharedMemory {
    /// Shared memory within a budget, which may have what buffers are kept idle in.
    pub(crate) fn new(
        budget: Budget,
        buffers: BufferPool,
        running_bytes: IntGauge,
        kept_bytes: IntGauge,
    ) -> Arc<SharedMemory> {
        let (memories, next) = Default::default();
        Arc::new(SharedMemory { budget, buffers, running_bytes, kept_bytes, memories, next })
    }

    /// Whether a memory is used: by its stream, by a worker that has a slot of it, or by its client. One that is
    /// not is no longer reserved.
    pub(crate) fn is_used(&self, number: u64) -> bool {
        let mut memories = self.memories();
        let is_unused = |kept: &Option<Leftover>| kept.as_ref().is_some_and(Leftover::is_unused);
        if memories.get(&number).is_some_and(is_unused) {
            self.release(memories.remove(&number).flatten());
        }
        memories.contains_key(&number)
    }

    /// Gives back what is no longer used, and returns how many memories clients keep.
    fn sweep(&self) -> usize {
        let mut memories = self.memories();
        let unused = memories.extract_if(|_, kept| kept.as_ref().is_some_and(Leftover::is_unused));
        unused.for_each(|(_, unused)| self.release(unused));
        memories.values().flatten().count()
    }

    fn release(&self, kept: Option<Leftover>) {
        self.kept_bytes.sub(kept.map_or(0, |kept| kept.reservation.bytes as i64));
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<u64, Option<Leftover>>> {
        lock(&self.memories)
    }
}

impl Leftover {
    fn is_unused(&self) -> bool {
        // Without an answer, it stays reserved.
        is_open_once(&self.witness).unwrap_or(false)
    }
}

/// The mapping, and the file behind it.
struct Mapping {
    map: MmapRaw,
    /// The client's opening, until the mapping is dropped.
    shown: Option<File>,
    /// One more opening, through which the kernel is asked whether it is the only one. None once it is dropped.
    last: Option<Leftover>,
    number: u64,
    home: Arc<SharedMemory>,
}

impl Drop for Mapping {
    /// The memory is no longer this server's; it may still be its client's.
    fn drop(&mut self) {
        drop(self.shown.take());
        let Some(last) = self.last.take() else { return };
        let bytes = last.reservation.bytes as i64;
        self.home.running_bytes.sub(bytes);
        let mut memories = self.home.memories();
        if last.is_unused() {
            memories.remove(&self.number);
        } else {
            self.home.kept_bytes.add(bytes);
            memories.insert(self.number, Some(last));
        }
    }
}

/// Opens a file of memory once more, to be read.
fn open_again(file: &File) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?))
}

/// Linux's `F_SETSIG`, which libc does not name: the signal of a lease that another process ends.
const SET_SIGNAL: i32 = 10;

/// Whether no other process has opened a file that was opened again, or has it mapped through such an opening.
fn is_open_once(file: &File) -> io::Result<bool> {
    let control = |command: i32, value: i32| {
        // SAFETY: these commands take a number, and the descriptor is open as long as `file` is borrowed.
        match unsafe { libc::fcntl(file.as_raw_fd(), command, value) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // Should another process open it between the two lines below, this process gets this signal, which does nothing.
    control(SET_SIGNAL, libc::SIGURG)?;
    match control(libc::F_SETLEASE, libc::F_WRLCK) {
        Ok(()) => control(libc::F_SETLEASE, libc::F_UNLCK).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Shared memory for the batches of one stream: the schema's message, then slots.
pub(crate) struct Memory {
    mapping: Arc<Mapping>,
    schema_bytes: usize,
}

impl Memory {
    /// Creates shared memory for `slots` batches of at most `slot_bytes` bytes, and the slots.
    ///
    /// # Errors
    /// When the budget or the system has none left, or the system does not support sealed memory (Linux
    /// before 5.3, or a container that forbids it), or does not tell who has a file open.
    pub(crate) fn new(
        home: &Arc<SharedMemory>,
        schema: &[u8],
        slots: usize,
        slot_bytes: usize,
    ) -> io::Result<(Memory, Vec<Slot>)> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let first = schema.len().next_multiple_of(PAGE_BYTES);
        let slot_bytes = slot_bytes.next_multiple_of(PAGE_BYTES);
        let bytes =
            slots.checked_mul(slot_bytes).and_then(|bytes| bytes.checked_add(first)).ok_or_else(too_large)?;
        if home.sweep() >= KEPT_MAX {
            return Err(too_large());
        }
        let reservation = home.buffers.reserve(&home.budget, bytes as u64).ok_or_else(too_large)?;

        let file = memfd_create("pba-batches", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, bytes as u64)?;
        let file = File::from(file);
        let map = MmapOptions::new().len(bytes).map_raw(&file)?;
        // From here on only the mapping above can write, and the length can no longer change.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;
        let witness = open_again(&file)?;
        if !is_open_once(&witness)? {
            return Err(io::Error::other("the system does not tell who has the memory open"));
        }
        let shown = Some(open_again(&file)?);

        // SAFETY: the mapping is `bytes` long, `schema.len() <= first <= bytes`, and nothing has seen
        // it yet: there is no slot, and the descriptor has not been given away.
        unsafe { std::slice::from_raw_parts_mut(map.as_mut_ptr(), schema.len()) }.copy_from_slice(schema);
        home.running_bytes.add(bytes as i64);
        let number = home.next.fetch_add(1, Ordering::Relaxed);
        home.memories().insert(number, None);
        let last = Some(Leftover { witness, reservation });
        let mapping = Arc::new(Mapping { map, shown, last, number, home: Arc::clone(home) });
        let slot = |number| Slot {
            mapping: Arc::clone(&mapping),
            number: number as u32,
            offset: first + number * slot_bytes,
            len: slot_bytes,
        };
        let slots = (0..slots).map(slot).collect();
        Ok((Memory { mapping, schema_bytes: schema.len() }, slots))
    }

    /// Its number, which no other memory of this server has.
    pub(crate) fn number(&self) -> u64 {
        self.mapping.number
    }

    /// Its length: schema and slots.
    pub(crate) fn bytes(&self) -> usize {
        self.mapping.map.len()
    }

    /// Length of the schema's message, at the beginning.
    pub(crate) fn schema_bytes(&self) -> usize {
        self.schema_bytes
    }

    /// The descriptor for the client, which can read it and map it, but not write to it.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.mapping.shown.as_ref().expect("it is there until the mapping is dropped").as_fd()
    }
}

/// The right to write one slot, or a piece of it. The shared memory lives as long as any of its slots.
pub(crate) struct Slot {
    mapping: Arc<Mapping>,
    number: u32,
    offset: usize,
    len: usize,
}

impl Numbered for Slot {
    fn number(&self) -> u32 {
        self.number
    }
}

impl Slot {
    /// Its offset in the shared memory, in bytes.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }
}

impl Divisible for Slot {
    fn split_off(&mut self, at: usize) -> Slot {
        assert!(at <= self.len, "{at} of {} bytes", self.len);
        let rest = Slot {
            mapping: Arc::clone(&self.mapping),
            number: self.number,
            offset: self.offset + at,
            len: self.len - at,
        };
        self.len = at;
        rest
    }

    fn unsplit(&mut self, rest: Slot) {
        let is_next = Arc::ptr_eq(&self.mapping, &rest.mapping) && rest.offset == self.offset + self.len;
        assert!(is_next, "not the piece that was cut off");
        self.len += rest.len;
    }
}

impl AsMut<[u8]> for Slot {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the range lies in the mapping and in no other slot (`Memory::new`), slots are
        // neither copied nor made elsewhere (pieces of one are apart, see `Divisible`), and `self` is
        // borrowed for as long as the slice. Other processes may read what is being written here, and
        // then see it half written; they cannot write. The mapping lives as long as the slot, and the file cannot shrink.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.map.as_mut_ptr().add(self.offset), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn gauge() -> IntGauge {
        IntGauge::new("taken", "Bytes taken.").unwrap()
    }

    fn budget(bytes: u64) -> Arc<SharedMemory> {
        let budget = Budget::new(bytes, gauge());
        SharedMemory::new(budget.clone(), BufferPool::new(1, budget), gauge(), gauge())
    }

    #[test]
    fn slots_are_apart_and_seen_through_the_descriptor() {
        let budget = budget(1 << 20);
        let (memory, mut slots) = Memory::new(&budget, b"schema", 3, 5000).unwrap();
        assert_eq!((memory.bytes(), memory.schema_bytes()), (4096 + 3 * 8192, 6));
        for slot in &mut slots {
            let number = slot.number() as u8;
            slot.as_mut().fill(number + 1);
        }
        let file = File::from(memory.descriptor().try_clone_to_owned().unwrap());
        let mut bytes = vec![0; memory.bytes()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes[..6], b"schema");
        assert!(bytes[6..4096].iter().all(|byte| *byte == 0));
        for slot in &slots {
            let part = &bytes[slot.offset()..slot.offset() + 8192];
            assert!(part.iter().all(|byte| u32::from(*byte) == slot.number() + 1));
        }
    }

    #[test]
    fn pieces_of_a_slot_are_apart_and_together_the_slot() {
        let (_memory, mut slots) = Memory::new(&budget(1 << 20), b"schema", 2, 4096).unwrap();
        let mut slot = slots.swap_remove(1);
        let mut last = slot.split_off(4000);
        let mut middle = slot.split_off(100);
        std::thread::scope(|scope| {
            for (byte, piece) in [&mut slot, &mut middle, &mut last].into_iter().enumerate() {
                scope.spawn(move || piece.as_mut().fill(byte as u8 + 1));
            }
        });
        assert_eq!([&mut slot, &mut middle, &mut last].map(|piece| piece.as_mut().len()), [100, 3900, 96]);
        slot.unsplit(middle);
        slot.unsplit(last);
        let expected = [vec![1; 100], vec![2; 3900], vec![3; 96]].concat();
        assert_eq!((slot.number(), &*slot.as_mut()), (1, &expected[..]));
        assert!(slots[0].as_mut().iter().all(|byte| *byte == 0), "the other slot");
    }

    #[test]
    fn nobody_else_can_write_cut_or_unseal_it() {
        let (memory, _slots) = Memory::new(&budget(1 << 20), b"schema", 1, 4096).unwrap();
        let file = File::from(memory.descriptor().try_clone_to_owned().unwrap());
        assert!(file.write_at(b"x", 0).is_err());
        assert!(file.set_len(0).is_err());
        assert!(file.set_len(1 << 30).is_err());
        assert!(MmapOptions::new().len(4096).map_raw(&file).is_err(), "a mapping that could write");
        assert!(MmapOptions::new().len(4096).map_raw_read_only(&file).is_ok());
        assert!(fcntl_add_seals(&file, SealFlags::WRITE).is_err());
    }

    #[test]
    fn the_budget_comes_back_with_the_last_slot() {
        let budget = budget(3 * 4096);
        let (memory, slots) = Memory::new(&budget, b"", 2, 4096).unwrap();
        assert!(Memory::new(&budget, b"", 2, 4096).is_err());
        assert_eq!((budget.budget.taken.get(), budget.running_bytes.get()), (2 * 4096, 2 * 4096));
        drop(memory);
        assert!(Memory::new(&budget, b"", 2, 4096).is_err(), "a slot may still be written");
        drop(slots);
        assert_eq!((budget.budget.taken.get(), budget.running_bytes.get()), (0, 0));
        assert!(Memory::new(&budget, b"", 3, 4096).is_ok());
        assert!(Memory::new(&budget, b"", usize::MAX, 4096).is_err());
    }

    /// Looks again for a while: a program that another test starts has all descriptors for a moment.
    #[track_caller]
    fn is_let_go(memory: &SharedMemory, number: u64) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while memory.is_used(number) {
            assert!(std::time::Instant::now() < end, "memory {number} is still kept");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_a_client_keeps_stays_reserved_until_it_lets_go() {
        let budget = budget(3 * 4096);
        let taken = || [&budget.budget.taken, &budget.running_bytes, &budget.kept_bytes].map(IntGauge::get);
        let (memory, slots) = Memory::new(&budget, b"", 2, 4096).unwrap();
        let number = memory.number();
        // As a message on a socket gives it to the client, who maps it and closes it.
        let descriptor = File::from(memory.descriptor().try_clone_to_owned().unwrap());
        let map = MmapOptions::new().map_raw_read_only(&descriptor).unwrap();
        drop((memory, slots));
        assert_eq!(taken(), [2 * 4096, 0, 2 * 4096]);
        assert!(budget.is_used(number), "it has descriptor and mapping");
        drop(descriptor);
        assert!(budget.is_used(number), "it has the mapping");
        assert!(Memory::new(&budget, b"", 2, 4096).is_err());
        assert_eq!(taken(), [2 * 4096, 0, 2 * 4096]);
        drop(map);
        is_let_go(&budget, number);
        assert_eq!(taken(), [0, 0, 0]);
        let (memory, slots) = Memory::new(&budget, b"", 3, 4096).unwrap();
        assert_eq!(taken(), [3 * 4096, 3 * 4096, 0]);
        let (number, descriptor) = (memory.number(), memory.descriptor().try_clone_to_owned().unwrap());
        drop((memory, slots));
        assert!(budget.is_used(number), "it has not looked at its descriptor yet");
        drop(descriptor);
        is_let_go(&budget, number);
        assert_eq!(taken(), [0, 0, 0]);
    }

    #[test]
    fn a_slot_that_is_dropped_late_is_looked_for_until_then() {
        let budget = budget(2 * 4096);
        let (memory, mut slots) = Memory::new(&budget, b"", 2, 4096).unwrap();
        let (number, descriptor) = (memory.number(), memory.descriptor().try_clone_to_owned().unwrap());
        let late = slots.pop();
        drop((memory, slots));
        assert!(budget.is_used(number), "its stream has ended, and a worker still writes");
        drop(late);
        assert!(budget.is_used(number), "its client has it");
        drop(descriptor);
        is_let_go(&budget, number);
        assert_eq!((budget.budget.taken.get(), budget.kept_bytes.get()), (0, 0));
    }

    #[test]
    fn idle_buffers_make_room() {
        let budget = Budget::new(3 * 4096, gauge());
        let buffers = BufferPool::new(3, budget.clone());
        let taken = [1000, 2000, 8000].map(|bytes| buffers.take(bytes, bytes));
        taken.into_iter().for_each(|bytes| drop(buffers.lend(bytes)));
        assert_eq!(budget.taken.get(), 11_000);
        let home = SharedMemory::new(budget.clone(), buffers, gauge(), gauge());
        let memory = Memory::new(&home, b"", 1, 4096);
        assert!(memory.is_ok());
        assert_eq!(budget.taken.get(), 4096 + 8000, "those that were idle for longest");
    }

    #[test]
    fn no_more_memories_are_kept_than_descriptors_are_there_for() {
        let budget = budget(1 << 30);
        let keep = || {
            let (memory, _slots) = Memory::new(&budget, b"", 1, 4096).ok()?;
            Some(memory.descriptor().try_clone_to_owned().unwrap())
        };
        let mut kept: Vec<_> = std::iter::from_fn(keep).collect();
        assert_eq!(kept.len(), KEPT_MAX);
        // A stream that needs memory finds what was let go.
        kept.clear();
        is_let_go(&budget, 0);
        assert!(keep().is_some());
    }
}
