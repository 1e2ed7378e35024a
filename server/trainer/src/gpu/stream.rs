//! CUDA streams, and events that they wait for.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use crate::torch;

// Of `cpp/shim.cpp`: libtorch's own streams, which need no CUDA library to link.
unsafe extern "C" {
    fn pba_stream_new(device: c_int, id: *mut i64) -> *const c_char;
    fn pba_stream_swap(device: c_int, id: i64, before: *mut i64) -> *const c_char;
    fn pba_stream_wait(device: c_int, first: i64, waits: i64) -> *const c_char;
    fn pba_event_new(event: *mut *mut c_void) -> *const c_char;
    fn pba_event_free(event: *mut c_void) -> *const c_char;
    fn pba_event_record(event: *mut c_void, device: c_int, id: i64) -> *const c_char;
    fn pba_event_block(event: *mut c_void, device: c_int, id: i64) -> *const c_char;
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

/// A point in what a stream was given.
pub(crate) struct Event(*mut c_void);

impl Event {
    /// An event that no stream waits for before it is recorded.
    pub(crate) fn new() -> anyhow::Result<Event> {
        let mut event = ptr::null_mut();
        // SAFETY: `event` is valid for the write.
        check(unsafe { pba_event_new(&mut event) })?;
        Ok(Event(event))
    }

    /// Marks what the stream has been given so far.
    pub(crate) fn record(&self, stream: Stream) -> anyhow::Result<()> {
        // SAFETY: the event is alive, and the id came from the pool.
        check(unsafe { pba_event_record(self.0, stream.device, stream.id) })
    }

    /// Lets the stream go on only after what was marked.
    pub(crate) fn block(&self, stream: Stream) -> anyhow::Result<()> {
        // SAFETY: as above.
        check(unsafe { pba_event_block(self.0, stream.device, stream.id) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it came from `pba_event_new` and is freed once.
        unsafe { pba_event_free(self.0) };
    }
}
