//! Where a map lies, as a signal's handler reads it at any moment, without a lock.

use std::sync::atomic::Ordering;

use crate::sync::{AtomicUsize, fence};

/// A range of addresses, or none. One thread at a time changes it; any number read it meanwhile.
///
/// A reader must not take the start of one range for that of another: it would find an address in a map that it is
/// not of. So each change is counted before and after, and what was read during one, or on both sides of one, is
/// not believed.
pub(crate) struct Area {
    /// Changes that have begun and that have ended; odd during one.
    pub(crate) changes: AtomicUsize,
    /// Address of the first byte; 0 when there is none.
    pub(crate) start: AtomicUsize,
    /// Address after the last byte.
    pub(crate) end: AtomicUsize,
}

impl Area {
    /// Makes it another range; of nothing, when both are 0.
    pub(crate) fn set(&self, start: usize, end: usize) {
        let changes = self.changes.load(Ordering::Relaxed);
        self.changes.store(changes + 1, Ordering::Relaxed);
        // Who sees one of the two below sees the count above.
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        self.changes.store(changes + 2, Ordering::Release);
    }

    /// The end of the range, if an address lies in it. A caller that keeps the range from being changed gets the right
    /// answer; of one that is being changed, the answer is that the address is elsewhere.
    ///
    /// Async-signal-safe.
    pub(crate) fn end_around(&self, address: usize) -> Option<usize> {
        let changes = self.changes.load(Ordering::Acquire);
        let (start, end) = (self.start.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let is_one = changes.is_multiple_of(2) && self.changes.load(Ordering::Relaxed) == changes;
        (is_one && (start..end).contains(&address)).then_some(end)
    }
}
