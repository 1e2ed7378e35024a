//! What tch does not bind, for any device: `cpp/shim.cpp` as safe functions.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::slice;

use tch::{Device, Kind, Tensor};

unsafe extern "C" {
    fn pba_backward_on_caller() -> *const c_char;
    fn pba_deterministic(by_measuring: bool) -> *const c_char;
    fn pba_copy_async(into: *mut c_void, from: *const c_void) -> *const c_char;
    fn pba_ops_start() -> *const c_char;
    fn pba_ops_stop() -> i64;
}

/// The device failed, or its memory is full: the run goes on from its last checkpoint in another process.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct DeviceFault(String);

impl DeviceFault {
    pub(crate) fn new(reason: impl Into<String>) -> DeviceFault {
        DeviceFault(reason.into())
    }
}

/// Whether a function of a shim succeeded: it then gives null.
///
/// # Errors
/// [`DeviceFault`] when it did not, with the reason that `library` has.
pub(crate) fn check(message: *const c_char, library: &str) -> anyhow::Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim keeps a NUL-terminated message per thread until the function fails again.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    // What follows the first line is a stack trace of libtorch's.
    Err(DeviceFault(format!("{library}: {}", message.lines().next().unwrap_or_default())).into())
}

/// Runs the backward passes of this thread on this thread. PyTorch would give those of all
/// threads to one engine thread per GPU.
pub(crate) fn backward_on_caller() -> anyhow::Result<()> {
    // SAFETY: sets a thread-local flag.
    check(unsafe { pba_backward_on_caller() }, "libtorch")
}

/// Has cuDNN choose kernels that repeat their results and round no inputs; by rule, so that a run can be
/// repeated, or by measuring them.
pub(crate) fn deterministic(by_measuring: bool) -> anyhow::Result<()> {
    // SAFETY: sets global flags that libtorch reads under its own synchronisation.
    check(unsafe { pba_deterministic(by_measuring) }, "libtorch")
}

/// A tensor of 32-bit floats in the memory of this machine, whose numbers do not change any more.
pub(crate) struct Frozen(Tensor);

impl Frozen {
    /// The tensor, which nothing else may write to while this lives.
    pub(crate) fn new(tensor: &Tensor) -> Frozen {
        assert_eq!((tensor.device(), tensor.kind()), (Device::Cpu, Kind::Float));
        Frozen(tensor.contiguous())
    }

    pub(crate) fn size(&self) -> Vec<i64> {
        self.0.size()
    }

    /// The numbers, as they lie in memory.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: a contiguous tensor of floats has so many bytes there, as long as it lives, and nothing writes to
        // them; any bytes will do.
        unsafe { slice::from_raw_parts(self.0.data_ptr().cast(), self.0.numel() * size_of::<f32>()) }
    }
}

/// Copies into a tensor of the same shape; the calling thread waits for no device.
pub(crate) fn copy_async(into: &mut Tensor, from: &Tensor) -> anyhow::Result<()> {
    // SAFETY: tch's pointers are to `at::Tensor`, which live as long as the references.
    check(unsafe { pba_copy_async(into.as_mut_ptr().cast(), from.as_ptr().cast()) }, "libtorch")
}

/// Runs `body`, and counts the operators that libtorch runs meanwhile on all threads.
pub(crate) fn count_ops<T>(body: impl FnOnce() -> T) -> anyhow::Result<(T, i64)> {
    // SAFETY: adds a callback that counts in an atomic; removed below, before anyone adds another.
    check(unsafe { pba_ops_start() }, "libtorch")?;
    let result = body();
    // SAFETY: the callback was added above.
    Ok((result, unsafe { pba_ops_stop() }))
}
