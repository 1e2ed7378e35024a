//! Shared memory of a stream and its client, in slots of one batch each.
//!
//! This is the one file of the daemon with unsafe code. Two facts make it sound: a [`Slot`] is the
//! only value through which its part of the mapping is reached, and there is one for each part; and
//! the seals prevent writing through another mapping, and truncation under this one.

#![allow(unsafe_code, reason = "slices of a shared mapping; see above")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::stream::budget::{Budget, Reservation};

/// Slots are page-aligned, so that a client can release the pages of one slot only.
const PAGE_BYTES: usize = 4096;

/// The mapping, and the file behind it.
struct Mapping {
    map: MmapRaw,
    file: File,
    _reservation: Reservation,
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
    /// before 5.1, or a container that forbids it).
    pub(crate) fn new(
        budget: &Budget,
        schema: &[u8],
        slots: usize,
        slot_bytes: usize,
    ) -> io::Result<(Memory, Vec<Slot>)> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let first = schema.len().next_multiple_of(PAGE_BYTES);
        let slot_bytes = slot_bytes.next_multiple_of(PAGE_BYTES);
        let bytes =
            slots.checked_mul(slot_bytes).and_then(|bytes| bytes.checked_add(first)).ok_or_else(too_large)?;
        let reservation = budget.reserve(bytes as u64).ok_or_else(too_large)?;

        let file = memfd_create("pba-batches", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, bytes as u64)?;
        let file = File::from(file);
        let map = MmapOptions::new().len(bytes).map_raw(&file)?;
        // From here on only the mapping above can write, and nobody can change the length.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;

        // SAFETY: the mapping is `bytes` long, `schema.len() <= first <= bytes`, and nobody has seen
        // it yet: there is no slot, and the descriptor has not been given away.
        unsafe { std::slice::from_raw_parts_mut(map.as_mut_ptr(), schema.len()) }.copy_from_slice(schema);
        let mapping = Arc::new(Mapping { map, file, _reservation: reservation });
        let slot = |number| Slot {
            mapping: Arc::clone(&mapping),
            number: number as u32,
            offset: first + number * slot_bytes,
            len: slot_bytes,
        };
        let slots = (0..slots).map(slot).collect();
        Ok((Memory { mapping, schema_bytes: schema.len() }, slots))
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
        self.mapping.file.as_fd()
    }
}

/// The right to write one slot. The shared memory lives as long as any of its slots.
pub(crate) struct Slot {
    mapping: Arc<Mapping>,
    number: u32,
    offset: usize,
    len: usize,
}

impl Slot {
    /// Its number: slots are counted from 0.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Its offset in the shared memory, in bytes.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }
}

impl AsMut<[u8]> for Slot {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the range lies in the mapping and in no other slot (`Memory::new`), slots are
        // neither copied nor made elsewhere, and `self` is borrowed for as long as the slice. Other
        // processes may read what is being written here, and then see it half written; they cannot
        // write. The mapping lives as long as the slot, and the file cannot shrink.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.map.as_mut_ptr().add(self.offset), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use prometheus::IntGauge;

    use super::*;

    fn budget(bytes: u64) -> Budget {
        Budget::new(bytes, IntGauge::new("taken", "Bytes taken.").unwrap())
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
        assert_eq!(budget.taken.get(), 2 * 4096);
        drop(memory);
        assert!(Memory::new(&budget, b"", 2, 4096).is_err(), "a slot may still be written");
        drop(slots);
        assert_eq!(budget.taken.get(), 0);
        assert!(Memory::new(&budget, b"", 3, 4096).is_ok());
        assert!(Memory::new(&budget, b"", usize::MAX, 4096).is_err());
    }
}
