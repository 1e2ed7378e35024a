//! Reusable batch buffers, and the pieces that they are written in.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

use crate::stream::budget::{Budget, Reservation};

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

    /// Frees all idle buffers, and returns whether there were any.
    pub(crate) fn free(&self) -> bool {
        let idle = std::mem::take(&mut *self.idle());
        !idle.is_empty()
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<(BytesMut, Reservation)>> {
        // No panic can leave the list inconsistent.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
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
pub(crate) trait Divisible: AsMut<[u8]> + Send + 'static {
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
        assert!(!pool.free(), "it was taken");
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
        assert!(pool.free());
        assert_eq!((kept(&pool), pool.budget.taken.get()), (vec![], 0));
        lend(KEPT_BYTES_MAX + 1);
        assert!(!pool.free());
    }
}
