//! Reusable batch buffers, and the pieces that they are written in.

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::stream::budget::{Budget, Reservation};
use crate::sync::{Arc, Mutex, MutexGuard, lock};

/// Idle buffers that are kept for the next batch, as far as there is memory.
///
/// A batch is a few hundred kilobytes to a few megabytes, large enough that the allocator would return it
/// to the kernel and fault it in again each time. The buffer returned last is reused first, because it is
/// still in the CPU cache.
#[derive(Clone)]
pub(crate) struct BufferPool {
    idle: Arc<Mutex<VecDeque<(BytesMut, Reservation)>>>,
    idle_max: usize,
    budget: Budget,
}

/// Larger buffers are freed rather than kept: they come from rare, huge batches. The usual large
/// one, 128 images of 224x224, takes 19 MB.
const KEPT_BYTES_MAX: usize = 32 << 20;

impl BufferPool {
    /// A pool that keeps at most `idle_max` idle buffers, as far as the budget goes.
    pub(crate) fn new(idle_max: usize, budget: Budget) -> BufferPool {
        BufferPool { idle: Arc::default(), idle_max: idle_max.max(1), budget }
    }

    /// A buffer of exactly `len` bytes, of unspecified content, which takes at most `bytes_max` bytes.
    pub(crate) fn take(&self, len: usize, bytes_max: usize) -> BytesMut {
        let fits = |(bytes, _): &(BytesMut, _)| (len..=bytes_max).contains(&bytes.capacity());
        let kept = {
            let mut idle = self.idle();
            idle.iter().rposition(fits).and_then(|found| idle.remove(found))
        };
        // A fresh zeroed allocation is cheaper than growing, which would copy.
        let mut bytes = kept.map_or_else(|| BytesMut::zeroed(bytes_max), |(bytes, _)| bytes);
        bytes.resize(len, 0);
        bytes
    }

    /// A buffer as it is read; it comes back here when the last reader is done.
    pub(crate) fn lend(&self, bytes: BytesMut) -> Lent {
        Lent { bytes, pool: self.clone() }
    }

    /// Takes memory of a budget. Idle buffers make room for it: they are kept for work ahead, so whatever is
    /// not may have their memory.
    pub(crate) fn reserve(&self, budget: &Budget, bytes: u64) -> Option<Reservation> {
        loop {
            if let Some(reservation) = budget.reserve(bytes) {
                return Some(reservation);
            }
            let missing = budget.missing(bytes, &self.budget)?;
            // If nothing is missing any more, it was given back meanwhile.
            if missing > 0 && !self.free(missing) {
                return None;
            }
        }
    }

    /// Frees idle buffers of so many bytes, those first that have been idle for longest, and none when all of
    /// them have fewer. Returns whether any were freed.
    fn free(&self, bytes: u64) -> bool {
        let mut idle = self.idle();
        let mut freed = 0;
        let count = idle.iter().take_while(|(_, memory)| {
            let is_short = freed < bytes;
            freed += if is_short { memory.bytes } else { 0 };
            is_short
        });
        let count = count.count();
        let freed: Vec<_> = if freed < bytes { Vec::new() } else { idle.drain(..count).collect() };
        drop(idle);
        !freed.is_empty()
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<(BytesMut, Reservation)>> {
        lock(&self.idle)
    }
}

/// A buffer that goes back to its pool when dropped.
pub(crate) struct Lent {
    bytes: BytesMut,
    pool: BufferPool,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let BufferPool { idle_max, budget, .. } = &self.pool;
        let bytes = self.bytes.capacity();
        if bytes > KEPT_BYTES_MAX {
            return;
        }
        // Without memory for it, it is freed.
        let Some(reservation) = budget.reserve(bytes as u64) else { return };
        let mut idle = self.pool.idle();
        idle.push_back((std::mem::take(&mut self.bytes), reservation));
        // One that has not been used for long may be of a size that is no longer used.
        let oldest = if idle.len() > *idle_max { idle.pop_front() } else { None };
        drop(idle);
        drop(oldest);
    }
}

/// Memory that can be cut into pieces, each with an owner of its own, and be put together again.
pub(crate) trait Divisible: Send + 'static {
    /// Cuts off and returns what comes after the first `at` bytes.
    ///
    /// # Panics
    /// When there are fewer.
    fn split_off(&mut self, at: usize) -> Self;

    /// Puts back the piece that was cut off its end.
    fn unsplit(&mut self, rest: Self);
}

impl Divisible for BytesMut {
    fn split_off(&mut self, at: usize) -> BytesMut {
        BytesMut::split_off(self, at)
    }

    fn unsplit(&mut self, rest: BytesMut) {
        // In place: the pieces are of one allocation, and beside each other.
        BytesMut::unsplit(self, rest);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prometheus::IntGauge;

    use super::*;

    fn pool(idle_max: usize, bytes: u64) -> BufferPool {
        BufferPool::new(idle_max, Budget::new(bytes, IntGauge::new("taken", "Bytes taken.").unwrap()))
    }

    #[test]
    fn a_buffer_comes_back_when_the_last_reader_is_done() {
        let pool = pool(1, 1 << 20);
        let mut buffer = pool.take(1000, 1000);
        buffer.fill(7);
        let address = buffer.as_ptr();
        let sent = Bytes::from_owner(pool.lend(buffer));
        let slice = sent.slice(10..20);
        drop(sent);
        assert_eq!((pool.idle().len(), slice[0]), (0, 7));
        drop(slice);
        assert_eq!(pool.idle().len(), 1);
        assert_ne!(pool.take(500, 999).as_ptr(), address, "more than it may take");
        assert_eq!(pool.take(500, 1000).as_ptr(), address, "the same memory serves a smaller batch");
        assert!(pool.idle().is_empty(), "it was taken");
    }

    #[test]
    fn a_buffer_comes_back_as_it_was_after_it_was_in_pieces() {
        let pool = pool(1, 1 << 20);
        let mut address = None;
        for length in [1000, 700, 1000] {
            let mut buffer = pool.take(length, 1000);
            assert_eq!((buffer.len(), buffer.capacity()), (length, 1000));
            assert_eq!(*address.get_or_insert(buffer.as_ptr()), buffer.as_ptr());
            let mut last = Divisible::split_off(&mut buffer, 600);
            let mut middle = Divisible::split_off(&mut buffer, 10);
            std::thread::scope(|scope| {
                for piece in [&mut buffer, &mut middle, &mut last] {
                    scope.spawn(|| piece.fill(7));
                }
            });
            Divisible::unsplit(&mut buffer, middle);
            Divisible::unsplit(&mut buffer, last);
            assert_eq!(buffer, vec![7; length]);
            drop(pool.lend(buffer));
        }
    }

    #[test]
    fn the_pool_is_bounded() {
        let pool = pool(2, 100);
        let lend = |bytes: usize| drop(pool.lend(pool.take(bytes, bytes)));
        for bytes in [10, 20, 30] {
            lend(bytes);
        }
        let kept =
            |pool: &BufferPool| pool.idle().iter().map(|(bytes, _)| bytes.capacity()).collect::<Vec<_>>();
        assert_eq!(kept(&pool), [20, 30], "what was needed last");
        lend(60);
        assert_eq!(kept(&pool), [20, 30], "without memory for it, it is not kept");
        assert_eq!(pool.budget.taken.get(), 50);
        assert!(pool.free(50));
        assert_eq!((kept(&pool), pool.budget.taken.get()), (vec![], 0));
        lend(KEPT_BYTES_MAX + 1);
        assert!(kept(&pool).is_empty());
    }

    #[test]
    fn idle_buffers_make_room_as_far_as_it_is_needed() {
        let gauge = || IntGauge::new("taken", "Bytes taken.").unwrap();
        let whole = Budget::new(120, gauge());
        let pool = BufferPool::new(9, whole.share(100, gauge()));
        let other = whole.share(40, gauge());
        let lengths = [10, 20, 30, 40];
        for buffer in lengths.map(|length| pool.take(length, length)) {
            drop(pool.lend(buffer));
        }
        let kept = || pool.idle().iter().map(|(bytes, _)| bytes.capacity()).collect::<Vec<_>>();
        let first = pool.reserve(&whole, 20).unwrap();
        assert_eq!(kept(), lengths, "there was room");
        let second = pool.reserve(&whole, 11).unwrap();
        assert_eq!(kept(), [30, 40], "those that were idle for longest");
        assert!(pool.reserve(&other, 41).is_none(), "it is more than the share");
        assert!(pool.reserve(&whole, 90).is_none(), "all of them together have too little");
        assert_eq!(kept(), [30, 40], "where it would not help, none is freed");
        let third = pool.reserve(&other, 40).unwrap();
        assert_eq!(kept(), [40]);
        let ahead = pool.reserve(&pool.budget, 49).unwrap();
        assert_eq!((kept(), whole.taken.get()), (vec![], 120));
        drop((first, second, third, ahead));
        assert_eq!(whole.taken.get(), 0);
    }
}
