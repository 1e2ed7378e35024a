//! Reusable batch buffers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Idle buffers that are kept for the next batch.
///
/// A batch is a few hundred kilobytes to a few megabytes, large enough that the allocator would return it
/// to the kernel and fault it in again each time. The buffer returned last is reused first, because it is
/// still in the CPU cache.
#[derive(Clone)]
pub(crate) struct BufferPool {
    idle: Arc<Mutex<Vec<Vec<u8>>>>,
    idle_max: usize,
}

/// Larger buffers are freed rather than kept: they come from rare, huge batches. The usual large
/// one, 128 images of 224x224, takes 19 MB. Idle memory is bounded by this times the number of buffers
/// kept.
const KEPT_BYTES_MAX: usize = 32 << 20;

impl BufferPool {
    /// A pool that keeps at most `idle_max` idle buffers.
    pub(crate) fn new(idle_max: usize) -> BufferPool {
        BufferPool { idle: Arc::default(), idle_max: idle_max.max(1) }
    }

    /// A buffer of exactly `len` bytes, of unspecified content.
    pub(crate) fn take(&self, len: usize) -> Buffer {
        let mut bytes = self.idle().pop().unwrap_or_default();
        if bytes.capacity() < len {
            // A fresh zeroed allocation is cheaper than growing, which would copy.
            bytes = vec![0; len];
        }
        bytes.resize(len, 0);
        Buffer { bytes, pool: self.clone() }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // No panic can leave the list inconsistent.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer that goes back to its pool when dropped.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    pool: BufferPool,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut idle = self.pool.idle();
        // A full pool frees the buffer: that is its bound.
        if self.bytes.capacity() <= KEPT_BYTES_MAX && idle.len() < self.pool.idle_max {
            idle.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_buffer_comes_back_when_the_last_reader_is_done() {
        let pool = BufferPool::new(1);
        let mut buffer = pool.take(1000);
        buffer.as_mut().fill(7);
        let address = buffer.as_ref().as_ptr();
        let sent = Bytes::from_owner(buffer);
        let slice = sent.slice(10..20);
        drop(sent);
        assert_eq!((pool.idle().len(), slice[0]), (0, 7));
        drop(slice);
        assert_eq!(pool.idle().len(), 1);
        assert_eq!(pool.take(500).as_ref().as_ptr(), address, "the same memory serves a smaller batch");
    }

    #[test]
    fn the_pool_is_bounded() {
        let pool = BufferPool::new(1);
        let buffers = [pool.take(10), pool.take(10)];
        drop(buffers);
        assert_eq!(pool.idle().len(), 1);
        drop(pool.take(KEPT_BYTES_MAX + 1));
        assert_eq!(pool.idle().len(), 0);
    }
}
