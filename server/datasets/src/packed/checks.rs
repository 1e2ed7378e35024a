//! What of a packed file was compared with its checksums.
//!
//! Pixels are compared block by block as they are first touched, and everything again when the file has
//! changed since: when its length or its times differ. So an image costs no more than
//! the look at a bit; the file's state is asked for once per batch. Encoded images are compared whenever they are
//! read, and have no bits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pba_files::FileState;

/// How long a file that has changed is compared again for each batch: two changes within a tick of the clock
/// that the kernel stamps them with, some milliseconds, cannot be told apart.
const UNSETTLED: Duration = Duration::from_secs(2);

/// A part that is compared as a whole: one with a checksum of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Everything of a record batch but its images, by its position.
    Columns(usize),
    /// A block of pixels, or an encoded image, by its position in the file.
    Block(usize),
}

/// Damaged parts that are kept apart; there is no use in knowing more of a disk.
const DAMAGED_MAX: usize = 1000;

/// What was compared with the checksums since the file last changed, and what differed.
#[derive(Debug)]
pub(crate) struct Checks {
    /// A bit for each record batch, then for each block.
    bits: Vec<AtomicU64>,
    batches: usize,
    blocks: usize,
    /// Bits that are not set.
    left: AtomicUsize,
    /// Whether the state holds damage, so that a request that only asks for that does not look into it.
    is_damaged: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stamp: FileState,
    /// How often the bits were cleared, so that what was compared before is not noted after.
    cleared: u64,
    unsettled_until: Option<Instant>,
    /// Why a part is not served.
    damaged: BTreeMap<Part, String>,
    /// Why nothing is.
    lost: Option<String>,
}

impl Checks {
    /// Of a file in a state in which the columns of all record batches were compared, and none of so many blocks
    /// of pixels.
    pub(crate) fn new(stamp: FileState, batches: usize, blocks: usize) -> Checks {
        let bits = (0..(batches + blocks).div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let (left, damaged) = (AtomicUsize::new(batches + blocks), BTreeMap::new());
        let state = State { stamp, cleared: 0, unsettled_until: None, damaged, lost: None };
        let is_damaged = AtomicBool::new(false);
        let checks = Checks { bits, batches, blocks, left, is_damaged, state: Mutex::new(state) };
        (0..batches).for_each(|batch| checks.note(0, Part::Columns(batch)));
        checks
    }

    /// Compares the file's state with that in which its content was compared, and forgets that when it has
    /// changed. Returns how often that has happened.
    pub(crate) fn settle(&self, stamp: FileState) -> u64 {
        let mut state = self.state();
        let is_changed = state.stamp != stamp || state.lost.take().is_some();
        let is_unsettled = state.unsettled_until.is_some_and(|until| Instant::now() < until);
        if is_changed {
            state.unsettled_until = Some(Instant::now() + UNSETTLED);
            state.stamp = stamp;
            state.damaged.clear();
        } else if !is_unsettled {
            state.unsettled_until = None;
        }
        if is_changed || is_unsettled {
            state.cleared += 1;
            self.bits.iter().for_each(|bits| bits.store(0, Ordering::Relaxed));
            self.left.store(self.batches + self.blocks, Ordering::Release);
        }
        self.note_state(&state);
        state.cleared
    }

    /// Notes that nothing of the file can be served, until [`settle`](Checks::settle) says otherwise.
    pub(crate) fn note_loss(&self, reason: &str) {
        let mut state = self.state();
        state.lost = Some(reason.to_owned());
        self.note_state(&state);
    }

    fn note_state(&self, state: &State) {
        self.is_damaged.store(!state.damaged.is_empty() || state.lost.is_some(), Ordering::Release);
    }

    /// Whether damage is known.
    #[inline]
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Acquire)
    }

    /// Whether all parts have been compared.
    #[inline]
    pub(crate) fn is_complete(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// Whether a part has been compared.
    #[inline]
    pub(crate) fn has(&self, part: Part) -> bool {
        self.bit(part).is_some_and(|(bits, mask)| bits.load(Ordering::Relaxed) & mask != 0)
    }

    /// Notes that a part is what was written, unless all was forgotten since `cleared` was asked for.
    pub(crate) fn note(&self, cleared: u64, part: Part) {
        let Some((bits, mask)) = self.bit(part) else { return };
        if bits.load(Ordering::Relaxed) & mask != 0 {
            return;
        }
        let state = self.state();
        if state.cleared == cleared && bits.fetch_or(mask, Ordering::Relaxed) & mask == 0 {
            self.left.fetch_sub(1, Ordering::Release);
        }
    }

    /// Notes that a part of a record batch is damaged, if the file is still what it was when that was found. Of
    /// many damaged parts, that their record batch is.
    pub(crate) fn note_damage(&self, stamp: FileState, batch: usize, part: Part, reason: String) {
        let mut state = self.state();
        if state.stamp == stamp {
            let is_many = state.damaged.len() >= DAMAGED_MAX;
            let noted = if is_many { Part::Columns(batch) } else { part };
            // It may have been whole when it was compared: a disk can lose what it had, and tells no time of it.
            [part, noted].into_iter().for_each(|part| self.forget(part));
            state.damaged.insert(noted, reason);
            self.note_state(&state);
        }
    }

    /// Has a part compared again; the state is locked.
    fn forget(&self, part: Part) {
        let Some((bits, mask)) = self.bit(part) else { return };
        if bits.fetch_and(!mask, Ordering::Relaxed) & mask != 0 {
            self.left.fetch_add(1, Ordering::Release);
        }
    }

    /// The parts that are known to be damaged, and how that shows; or why all of the file is.
    ///
    /// # Errors
    /// When all of it is.
    pub(crate) fn damaged(&self) -> Result<BTreeMap<Part, String>, String> {
        if !self.is_damaged() {
            return Ok(BTreeMap::new());
        }
        let state = self.state();
        state.lost.clone().map_or_else(|| Ok(state.damaged.clone()), Err)
    }

    /// Where a part's bit lies; encoded images have none.
    fn bit(&self, part: Part) -> Option<(&AtomicU64, u64)> {
        let bit = match part {
            Part::Columns(batch) => batch,
            Part::Block(block) if block < self.blocks => self.batches + block,
            Part::Block(_) => return None,
        };
        Some((&self.bits[bit / 64], 1 << (bit % 64)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_under_an_unchanged_file_is_no_longer_taken_for_whole() {
        let file = tempfile::tempfile().unwrap();
        let stamp = FileState::of_open(&file).unwrap();
        let checks = Checks::new(stamp, 1, 3);
        let parts = [Part::Block(0), Part::Block(1), Part::Block(2)];
        let cleared = checks.settle(stamp);
        parts.into_iter().for_each(|part| checks.note(cleared, part));
        assert!(checks.is_complete() && checks.has(parts[1]));
        // As a scrub finds it: the file has the same times.
        checks.note_damage(stamp, 0, parts[1], "flipped".to_owned());
        assert!(!checks.is_complete() && !checks.has(parts[1]), "it has to be compared again");
        assert!(checks.has(parts[0]) && checks.has(Part::Columns(0)));
        checks.note_damage(stamp, 0, parts[1], "flipped".to_owned());
        checks.note(cleared, parts[1]);
        assert!(checks.is_complete(), "counted once");
    }
}
