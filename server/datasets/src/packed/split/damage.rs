//! What is known of a split's damage, and looking for more of it.

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, fadvise};
use rustix::io::{ReadWriteFlags, preadv2};

use crate::error::DatasetError;
use crate::packed::checks::Part;
use crate::packed::hash::checksum;
use crate::packed::split::{Split, differs};

impl Split {
    /// Compares all that some samples are read from with its checksums, whatever was compared before, as it lies in
    /// memory: a gigabyte takes a tenth of a second or two.
    ///
    /// # Errors
    /// The first [`DatasetError::Damaged`].
    ///
    /// # Panics
    /// When an index is not below [`len`](Split::len).
    pub fn check_again(&self, indices: impl IntoIterator<Item = u64>) -> Result<(), DatasetError> {
        let found = self.settle()?;
        // The blocks of each record batch, and whether samples are read from them.
        let mut blocks: Vec<Vec<bool>> = self.batches.iter().map(|_| Vec::new()).collect();
        for index in indices {
            let position = self.position(index);
            let (batch, used) = (&self.batches[position], &mut blocks[position]);
            used.resize(batch.blocks(self.head.shape), false);
            for block in self.blocks_of(position, index) {
                used[block - batch.first_block] = true;
            }
        }
        for (position, used) in blocks.iter().enumerate().filter(|(_, used)| !used.is_empty()) {
            self.compare_anew(found, position, Part::Columns(position))?;
            for (block, _) in used.iter().enumerate().filter(|(_, used)| **used) {
                let block = self.batches[position].first_block + block;
                self.compare_anew(found, position, Part::Block(block))?;
            }
        }
        self.look().map(drop)
    }

    /// Compares everything with its checksums, whatever was compared before, as it lies in memory. `go_on` is asked
    /// after each record batch, with the number of rows so far.
    ///
    /// # Errors
    /// At the first damage, and [`DatasetError::Cancelled`].
    pub fn check_all(&self, go_on: &dyn Fn(u64) -> ControlFlow<()>) -> Result<(), DatasetError> {
        let found = self.settle()?;
        for (position, batch) in self.batches.iter().enumerate() {
            self.compare_anew(found, position, Part::Columns(position))?;
            for block in self.blocks(batch) {
                self.compare_anew(found, position, Part::Block(block))?;
            }
            if go_on(batch.first_row + batch.rows as u64).is_break() {
                return Err(DatasetError::Cancelled);
            }
        }
        self.look().map(drop)
    }

    /// Whether damage is known. Neither is the file looked at, nor is anything waited for.
    #[inline]
    pub fn is_damaged(&self) -> bool {
        self.checks.is_damaged()
    }

    /// Damage that is known, if any: the first. Neither is the file looked at, nor does this wait for a disk.
    pub fn known_damage(&self) -> Option<DatasetError> {
        match self.checks.damaged() {
            Ok(damaged) => {
                let (part, reason) = damaged.first_key_value()?;
                Some(self.damaged(self.position_of(*part), *part, reason))
            }
            Err(reason) => Some(self.lost(reason)),
        }
    }

    /// How many record batches are known to be damaged, without looking at the file; all when it is not what was
    /// opened any more.
    pub fn known_damaged_batches(&self) -> usize {
        match self.checks.damaged() {
            Ok(damaged) => {
                damaged.into_keys().map(|part| self.position_of(part)).collect::<BTreeSet<_>>().len()
            }
            Err(_) => self.batches.len(),
        }
    }

    /// Damage that is known and affects one of some samples, unless the file has changed since; nothing is read, but
    /// if any is known, the file is looked at.
    ///
    /// # Errors
    /// [`DatasetError::Damaged`], with the record batch and its rows.
    pub fn check_known(&self, indices: impl IntoIterator<Item = u64>) -> Result<(), DatasetError> {
        if !self.is_damaged() {
            return Ok(());
        }
        self.settle()?;
        let damaged = self.checks.damaged().map_err(|reason| self.lost(reason))?;
        if damaged.is_empty() {
            return Ok(());
        }
        let mut found = indices.into_iter().filter_map(|index| {
            let position = self.position(index);
            let blocks = self.blocks_of(position, index).map(Part::Block);
            let mut parts = std::iter::once(Part::Columns(position)).chain(blocks);
            parts.find_map(|part| Some(self.damaged(position, part, damaged.get(&part)?)))
        });
        found.next().map_or(Ok(()), Err)
    }

    /// How many record batches are known to be damaged, after a look at the file; all when it is not what was opened
    /// any more.
    pub fn damaged_batches(&self) -> usize {
        // What a look finds is known then.
        let _ = self.settle();
        self.known_damaged_batches()
    }

    /// The position of a part's record batch.
    fn position_of(&self, part: Part) -> usize {
        match part {
            Part::Columns(position) => position,
            Part::Block(block) => self.batches.partition_point(|batch| batch.first_block <= block) - 1,
        }
    }

    /// How many record batches there are, for [`scrub`](Split::scrub).
    pub fn record_batches(&self) -> usize {
        self.batches.len()
    }

    /// Reads a record batch from the file again, and compares it with its checksums, whatever was compared
    /// before. `pause` is called after each block, with the bytes that were read for it; [`ControlFlow::Break`]
    /// ends it early.
    ///
    /// Of what the kernel holds in memory, that copy is read, which is the one that is served: damage under it on
    /// the disk shows when the kernel lets go of the copy. What comes from the disk is not kept in memory for this.
    ///
    /// # Errors
    /// The first [`DatasetError::Damaged`], with the record batch and its rows. Every damaged block is noted, so that
    /// it is known; if the columns beside the images are damaged, no block is read.
    ///
    /// # Panics
    /// When there is no such record batch.
    pub fn scrub(
        &self,
        position: usize,
        pause: &dyn Fn(usize) -> ControlFlow<()>,
    ) -> Result<(), DatasetError> {
        let found = self.settle()?;
        let batch = &self.batches[position];
        self.compare_anew(found, position, Part::Columns(position))?;
        let (mut buffer, mut first) = (Vec::new(), Ok(()));
        for block in self.blocks(batch) {
            let range = self.block(batch, block);
            buffer.resize(range.len(), 0);
            let same = match self.read_again(&mut buffer, range.start as u64) {
                Ok(()) => differs(checksum(&[&buffer]), self.block_sum(batch, block)),
                Err(error) => Err(format!("it cannot be read: {error}")),
            };
            let same = same.map_err(|reason| self.note_damage(found, position, Part::Block(block), reason));
            first = first.and(same);
            if pause(range.len()).is_break() {
                break;
            }
        }
        first
    }

    /// Fills `buffer` from the file, and has the kernel forget what it had to read from the disk.
    fn read_again(&self, buffer: &mut [u8], start: u64) -> io::Result<()> {
        let pieces = &mut [IoSliceMut::new(buffer)];
        if preadv2(&self.file, pieces, start, ReadWriteFlags::NOWAIT) == Ok(buffer.len()) {
            return Ok(());
        }
        self.file.read_exact_at(buffer, start)?;
        // It need not heed this, and keeps what is mapped.
        let _ = fadvise(&self.file, start, NonZeroU64::new(buffer.len() as u64), Advice::DontNeed);
        Ok(())
    }

    /// Whether a record batch is known to be damaged; nothing is read, nor is the file looked at.
    pub fn is_known_damaged(&self, position: usize) -> bool {
        let is_of_it = |part: &Part| self.position_of(*part) == position;
        self.checks.damaged().map_or(true, |damaged| damaged.keys().any(is_of_it))
    }

    /// Whether a part of the file could not be read since it was opened, and was read as zeros.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.map.is_faulted()
    }
}
