//! Who is next: what waits, of one after another.

use std::collections::VecDeque;

/// What waits of each, in the order of their turns: as the requests of each client, or the tasks of each stream of
/// each client. A client that has nothing has no turn.
///
/// Those that wait are few, so one is looked for among all.
pub(crate) struct RoundRobin<K, V>(VecDeque<(K, V)>);

/// Something of which a part can be taken in a turn.
pub(crate) trait Waiting: Default {
    fn is_empty(&self) -> bool;
}

impl<T> Waiting for VecDeque<T> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl<K: PartialEq, V: Waiting> Waiting for RoundRobin<K, V> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K, V> Default for RoundRobin<K, V> {
    fn default() -> RoundRobin<K, V> {
        RoundRobin(VecDeque::new())
    }
}

impl<K: PartialEq, V: Waiting> RoundRobin<K, V> {
    /// What waits of one, to which something is added. One that is new has its turn after all others.
    pub(crate) fn of(&mut self, key: K) -> &mut V {
        let place = self.0.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
            self.0.push_back((key, V::default()));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }

    /// What `take` takes of the one whose turn it is, which then comes last; of the next one, if that has nothing
    /// that is wanted. None when nobody has.
    ///
    /// `take` leaves nothing behind when it finds nothing.
    pub(crate) fn next<T>(&mut self, mut take: impl FnMut(&mut V) -> Option<T>) -> Option<T> {
        while let Some((key, mut waiting)) = self.0.pop_front() {
            let taken = take(&mut waiting);
            if !waiting.is_empty() {
                self.0.push_back((key, waiting));
            }
            if taken.is_some() {
                return taken;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_and_who_has_nothing_has_none() {
        let mut robin = RoundRobin::<u8, RoundRobin<u8, VecDeque<u8>>>::default();
        let waiting = [(1, 1, 10), (1, 1, 11), (1, 2, 0), (1, 3, 12), (2, 1, 20), (2, 1, 21), (3, 1, 0)];
        for (client, stream, value) in waiting {
            robin.of(client).of(stream).push_back(value);
        }
        // What is 0 is not wanted.
        let mut next = || {
            robin.next(|streams| {
                streams.next(|values| {
                    values.retain(|value| *value != 0);
                    values.pop_front()
                })
            })
        };
        assert_eq!(
            [(); 6].map(|()| next()),
            [10, 20, 12, 21, 11, 0].map(|value| (value > 0).then_some(value))
        );
        assert!(robin.is_empty());
    }
}
