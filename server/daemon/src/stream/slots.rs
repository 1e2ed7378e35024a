//! The slots of one stream: free ones, and those that its client holds. The others are with the workers.

use std::collections::HashMap;

/// Something with a number of its own.
pub(crate) trait Numbered {
    /// No two have the same.
    fn number(&self) -> u32;
}

/// The slots that no worker has.
pub(crate) struct Slots<S> {
    free: Vec<S>,
    /// By number.
    held: HashMap<u32, S>,
}

impl<S: Numbered> Slots<S> {
    /// All slots of a stream, none of which its client holds.
    pub(crate) fn new(free: Vec<S>) -> Slots<S> {
        Slots { free, held: HashMap::new() }
    }

    /// A slot that may be written.
    pub(crate) fn take(&mut self) -> Option<S> {
        // The slot used last is the one that is still in the cache.
        self.free.pop()
    }

    /// Gives the client a slot, which is its own until it gives it back.
    pub(crate) fn hand_over(&mut self, slot: S) {
        self.held.insert(slot.number(), slot);
    }

    /// The client gives a slot back. Returns whether it held it.
    pub(crate) fn give_back(&mut self, number: u32) -> bool {
        let slot = self.held.remove(&number);
        let is_held = slot.is_some();
        self.free.extend(slot);
        is_held
    }

    /// Slots that the client holds.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Numbered for u32 {
        fn number(&self) -> u32 {
            *self
        }
    }

    #[test]
    fn a_slot_is_free_or_held_or_with_a_worker() {
        let mut slots = Slots::new(vec![0, 1]);
        assert!(!slots.give_back(0), "it is free");
        let (second, first) = (slots.take().unwrap(), slots.take().unwrap());
        assert!(slots.take().is_none());
        assert!(!slots.give_back(first), "a worker has it");
        slots.hand_over(first);
        slots.hand_over(second);
        assert_eq!((slots.held(), slots.take()), (2, None));
        assert!(slots.give_back(second) && !slots.give_back(second) && !slots.give_back(7));
        assert_eq!((slots.held(), slots.take(), slots.take()), (1, Some(second), None));
    }
}
