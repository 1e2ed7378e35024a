//! Reusable batch buffers.

use std::sync::{Arc, Mutex, PoisonError};

/// Idle buffers that are kept for the next batch.
///
/// A batch is a few hundred kilobytes to a few megabytes, large enough that the allocator would return it
/// to the kernel and fault it in again each time. The buffer returned last is reused first, because it is
/// still in the CPU cache.
#[derive(Clone)]
pub(crate) struct BufferPool {
    idle: Arc<Idle>,
}

struct Idle {
    buffers: Mutex<Vec<Vec<u8>>>,
    max: usize,
}

impl Idle {
    /// Runs with the list, which no panic can leave inconsistent.
    fn with<T>(&self, run: impl FnOnce(&mut Vec<Vec<u8>>) -> T) -> T {
        run(&mut self.buffers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Larger buffers are freed rather than kept: they come from rare, huge batches. The usual large
/// one, 128 images of 224x224, takes 19 MB. Idle memory is bounded by this times the number of buffers
/// kept.
const KEPT_BYTES_MAX: usize = 32 << 20;

impl BufferPool {
    /// A pool that keeps at most `idle_max` idle buffers.
    pub(crate) fn new(idle_max: usize) -> BufferPool {
        BufferPool { idle: Arc::new(Idle { buffers: Mutex::default(), max: idle_max.max(1) }) }
    }

    /// A buffer of exactly `len` bytes, of unspecified content.
    pub(crate) fn take(&self, len: usize) -> Buffer {
        let mut bytes = self.idle.with(Vec::pop).unwrap_or_default();
        if bytes.capacity() < len {
            // A fresh zeroed allocation is cheaper than growing, which would copy.
            bytes = vec![0; len];
        }
        bytes.resize(len, 0);
        Buffer { bytes, idle: Arc::clone(&self.idle) }
    }

    /// Bytes in idle buffers.
    #[cfg(test)]
    fn idle(&self) -> usize {
        self.idle.with(|buffers| buffers.len())
    }
}

/// A buffer that goes back to its pool when dropped.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    idle: Arc<Idle>,
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
        if self.bytes.capacity() <= KEPT_BYTES_MAX {
            let bytes = std::mem::take(&mut self.bytes);
            self.idle.with(|buffers| {
                // A full pool frees the buffer: that is its bound.
                if buffers.len() < self.idle.max {
                    buffers.push(bytes);
                }
            });
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
        assert_eq!((pool.idle(), slice[0]), (0, 7));
        drop(slice);
        assert_eq!(pool.idle(), 1);
        assert_eq!(pool.take(500).as_ref().as_ptr(), address, "the same memory serves a smaller batch");
    }

    #[test]
    fn the_pool_is_bounded() {
        let pool = BufferPool::new(1);
        let buffers = [pool.take(10), pool.take(10)];
        drop(buffers);
        assert_eq!(pool.idle(), 1);
        drop(pool.take(KEPT_BYTES_MAX + 1));
        assert_eq!(pool.idle(), 0);
    }
}
