//! The C++ shims, as safe functions.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};

use anyhow::bail;

unsafe extern "C" {
    fn pba_error() -> *const c_char;
    fn pba_backward_on_caller() -> c_int;
    fn pba_deterministic(on: c_int) -> c_int;
    fn pba_ops_start() -> c_int;
    fn pba_ops_stop() -> i64;
    fn pba_stream_new(device: c_int, id: *mut i64) -> c_int;
    fn pba_stream_swap(device: c_int, id: i64, before: *mut i64) -> c_int;
    fn pba_stream_wait(device: c_int, first: i64, waits: i64) -> c_int;
}

fn check(code: c_int) -> anyhow::Result<()> {
    if code != 0 {
        // SAFETY: the shim keeps a NUL-terminated message per thread until its next error.
        let message = unsafe { CStr::from_ptr(pba_error()) };
        // What follows the first line is a stack trace of libtorch's.
        bail!("libtorch: {}", message.to_string_lossy().lines().next().unwrap_or_default());
    }
    Ok(())
}

/// Runs the backward passes of this thread on this thread. PyTorch would give those of all
/// threads to one engine thread per GPU.
pub(crate) fn backward_on_caller() -> anyhow::Result<()> {
    // SAFETY: sets a thread-local flag.
    check(unsafe { pba_backward_on_caller() })
}

/// Whether cuDNN picks kernels by rule, so that a run can be repeated, or by stopwatch.
pub(crate) fn deterministic(on: bool) -> anyhow::Result<()> {
    // SAFETY: sets global flags that libtorch reads under its own synchronisation.
    check(unsafe { pba_deterministic(on.into()) })
}

/// Operators that libtorch runs in `body`, on all threads.
pub(crate) fn count_ops<T>(body: impl FnOnce() -> T) -> anyhow::Result<(T, i64)> {
    // SAFETY: adds a callback that counts in an atomic; removed below, before anyone adds another.
    check(unsafe { pba_ops_start() })?;
    let result = body();
    // SAFETY: the callback was added above.
    Ok((result, unsafe { pba_ops_stop() }))
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

    /// Gives what `body` does to this stream, after everything that the current one was given.
    /// The current stream does not wait for it: [`Stream::join`] does.
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

    /// Lets the current stream wait for what this one was given.
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
