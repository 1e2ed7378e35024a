//! CUDA streams.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

use crate::torch;

// Of `cpp/shim.cpp`: libtorch's own streams, which need no CUDA library to link.
unsafe extern "C" {
    fn pba_stream_new(device: c_int, id: *mut i64) -> *const c_char;
    fn pba_stream_swap(device: c_int, id: i64, before: *mut i64) -> *const c_char;
    fn pba_stream_wait(device: c_int, first: i64, waits: i64) -> *const c_char;
}

fn check(message: *const c_char) -> anyhow::Result<()> {
    torch::check(message, "libtorch")
}

/// A CUDA stream of libtorch's pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    device: c_int,
    id: i64,
}

impl Stream {
    pub(crate) fn new(device: usize) -> anyhow::Result<Stream> {
        let (device, mut id) = (device as c_int, 0);
        // SAFETY: `id` is valid for the write.
        check(unsafe { pba_stream_new(device, &mut id) })?;
        Ok(Stream { device, id })
    }

    /// Queues what `body` does on this stream, after everything that is queued on the current one.
    /// The current stream waits for it only in [`Stream::join`].
    pub(crate) fn run<T>(self, body: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let (mut before, mut ignored) = (0, 0);
        // SAFETY: the id came from the pool, and the out parameters are valid.
        check(unsafe { pba_stream_swap(self.device, self.id, &mut before) })?;
        // SAFETY: as above; `before` is the id of a live stream.
        let result = check(unsafe { pba_stream_wait(self.device, before, self.id) }).and_then(|()| body());
        // SAFETY: as above.
        check(unsafe { pba_stream_swap(self.device, before, &mut ignored) })?;
        result
    }

    /// Makes the current stream wait for what is queued on this one.
    pub(crate) fn join(self) -> anyhow::Result<()> {
        let (mut current, mut ignored) = (0, 0);
        // SAFETY: both ids are of live streams, and the out parameters are valid. Swapping there
        // and back is how the guard interface tells the current stream.
        unsafe {
            check(pba_stream_swap(self.device, self.id, &mut current))?;
            check(pba_stream_swap(self.device, current, &mut ignored))?;
            check(pba_stream_wait(self.device, self.id, current))
        }
    }
}
