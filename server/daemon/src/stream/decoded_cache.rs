//! Cache of decoded images, for splits stored encoded; shared by all streams.
//!
//! Every epoch reads each sample once, in a random order. An evicted image would be needed in this epoch
//! or the next, no later than the image that replaced it: eviction gains nothing, and costs a decode. So
//! the cache is filled up to its bound and then left alone; its hit rate is the share of the dataset that
//! it holds.
//!
//! A hit or a miss changes no byte of any batch, only the time it takes.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use pba_schedules::Digest;

use crate::stream::budget::{Budget, Reservation};
use crate::sync::{Mutex, MutexGuard, RandomState, lock};

/// Number of locks that the images are spread over: more than cores that could want one at a time. A lock
/// is held for a table lookup, never while an image is decoded.
const SHARDS: usize = 64;

/// Most bytes of an entry besides its pixels: key, pointers and counts, and its share of a half-empty
/// table.
const ENTRY_BYTES: usize = 256;

/// Identifies pixels: the same wherever the same split is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) split: Digest,
    pub(crate) sample: u64,
    /// Factor by which the image was reduced when decoded.
    pub(crate) reduction: u32,
}

/// Pixels, and the room that they take.
type Shard = HashMap<Key, (Arc<[u8]>, Reservation)>;

/// Complete decoded images, as far as the budget goes.
pub(crate) struct DecodedCache {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    budget: Budget,
}

impl DecodedCache {
    /// An empty cache; disabled if the budget is 0.
    pub(crate) fn new(budget: Budget) -> DecodedCache {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        DecodedCache { shards, hasher: RandomState::new(), budget }
    }

    /// The pixels of a key, if they are here.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<[u8]>> {
        self.shard(key).get(key).map(|(pixels, _)| Arc::clone(pixels))
    }

    /// Reserves room for pixels, if there is enough left.
    pub(crate) fn room(&self, pixel_bytes: usize) -> Option<Reservation> {
        self.budget.reserve(pixel_bytes.checked_add(ENTRY_BYTES)? as u64)
    }

    /// Stores the pixels of a key, or keeps those of a faster worker, which are the same.
    ///
    /// # Panics
    /// When the room was reserved for fewer bytes.
    pub(crate) fn keep(&self, room: Reservation, key: Key, pixels: Arc<[u8]>) {
        let bytes = pixels.len() + ENTRY_BYTES;
        assert!(bytes as u64 <= room.bytes, "{} bytes in too little room", pixels.len());
        self.shard(&key).entry(key).or_insert((pixels, room));
    }

    /// Drops what was decoded of a split: it was damaged, perhaps before that was known.
    pub(crate) fn forget(&self, split: &Digest) {
        for shard in &self.shards {
            lock(shard).retain(|key, _| key.split != *split);
        }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let shard = self.hasher.hash_one(key) as usize % SHARDS;
        lock(&self.shards[shard])
    }
}

#[cfg(test)]
mod tests {
    use prometheus::IntGauge;

    use super::*;

    fn cache(bytes_max: usize) -> DecodedCache {
        let taken = IntGauge::new("taken", "Bytes taken.").unwrap();
        DecodedCache::new(Budget::new(bytes_max as u64, taken))
    }

    fn bytes(cache: &DecodedCache) -> usize {
        cache.budget.taken.get() as usize
    }

    fn key(sample: u64) -> Key {
        Key { split: Digest::of("a split"), sample, reduction: 1 }
    }

    #[test]
    fn it_is_filled_and_then_kept() {
        let cache = cache(3 * (100 + ENTRY_BYTES));
        for sample in 0..10 {
            match cache.room(100) {
                Some(room) => cache.keep(room, key(sample), vec![sample as u8; 100].into()),
                None => assert!(sample >= 3, "there is room for three"),
            }
        }
        for sample in 0..10 {
            let expected = (sample < 3).then(|| vec![sample as u8; 100]);
            assert_eq!(cache.get(&key(sample)).map(|pixels| pixels.to_vec()), expected, "sample {sample}");
        }
        assert_eq!(bytes(&cache), 3 * (100 + ENTRY_BYTES));
    }

    #[test]
    fn what_was_damaged_is_forgotten() {
        let cache = cache(1 << 20);
        let other = Key { split: Digest::of("another"), ..key(0) };
        for key in [key(0), key(1), other] {
            cache.keep(cache.room(100).unwrap(), key, vec![7; 100].into());
        }
        cache.forget(&Digest::of("a split"));
        assert!(cache.get(&key(0)).is_none() && cache.get(&key(1)).is_none() && cache.get(&other).is_some());
        assert_eq!(bytes(&cache), 100 + ENTRY_BYTES);
    }

    #[test]
    fn keys_differ_in_every_part() {
        let cache = cache(1 << 20);
        cache.keep(cache.room(1).unwrap(), key(0), vec![1].into());
        assert!(cache.get(&Key { reduction: 2, ..key(0) }).is_none());
        assert!(cache.get(&Key { split: Digest::of("another"), ..key(0) }).is_none());
        assert!(cache.get(&key(1)).is_none());
        assert!(cache.get(&key(0)).is_some());
    }

    #[test]
    fn room_that_is_not_used_is_given_back() {
        let cache = cache(1000);
        for _ in 0..100 {
            drop(cache.room(700).expect("it was given back"));
        }
        // Twice the same: the second finds the first.
        cache.keep(cache.room(100).unwrap(), key(0), vec![0; 100].into());
        cache.keep(cache.room(100).unwrap(), key(0), vec![0; 100].into());
        assert_eq!(bytes(&cache), 100 + ENTRY_BYTES);
        assert!(cache.room(1000).is_none());
        assert!(cache.room(usize::MAX).is_none());
    }

    #[test]
    fn nothing_is_kept_when_it_is_turned_off() {
        assert!(cache(0).room(0).is_none());
    }

    #[test]
    fn the_bound_holds_under_many_threads() {
        let cache = cache(200 * (64 + ENTRY_BYTES));
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let cache = &cache;
                scope.spawn(move || {
                    for step in 0..1000 {
                        let sample = (step * 7 + thread) % 400;
                        match cache.get(&key(sample)) {
                            Some(pixels) => assert_eq!(pixels[..], [sample as u8; 64]),
                            None => {
                                if let Some(room) = cache.room(64) {
                                    assert!(bytes(cache) <= 200 * (64 + ENTRY_BYTES));
                                    cache.keep(room, key(sample), vec![sample as u8; 64].into());
                                }
                            }
                        }
                    }
                });
            }
        });
        let kept = (0..400).filter(|&sample| cache.get(&key(sample)).is_some()).count();
        assert_eq!(bytes(&cache), kept * (64 + ENTRY_BYTES), "what is taken is what is kept");
        assert!(kept > 190, "{kept} of 200 were kept");
    }
}
