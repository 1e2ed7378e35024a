//! What tch does not bind, for any device: `cpp/shim.cpp` as safe functions.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use anyhow::bail;

unsafe extern "C" {
    fn pba_backward_on_caller() -> *const c_char;
    fn pba_deterministic() -> *const c_char;
    fn pba_ops_start() -> *const c_char;
    fn pba_ops_stop() -> i64;
}

/// Whether a function of a shim succeeded: it then gives null.
///
/// # Errors
/// When it did not, with the reason that `library` has.
pub(crate) fn check(message: *const c_char, library: &str) -> anyhow::Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim keeps a NUL-terminated message per thread until the function fails again.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    // What follows the first line is a stack trace of libtorch's.
    bail!("{library}: {}", message.lines().next().unwrap_or_default())
}

/// Runs the backward passes of this thread on this thread. PyTorch would give those of all
/// threads to one engine thread per GPU.
pub(crate) fn backward_on_caller() -> anyhow::Result<()> {
    // SAFETY: sets a thread-local flag.
    check(unsafe { pba_backward_on_caller() }, "libtorch")
}

/// Has cuDNN choose kernels by rule, not by measuring them, so that a run can be repeated.
pub(crate) fn deterministic() -> anyhow::Result<()> {
    // SAFETY: sets global flags that libtorch reads under its own synchronisation.
    check(unsafe { pba_deterministic() }, "libtorch")
}

/// Runs `body`, and counts the operators that libtorch runs meanwhile on all threads.
pub(crate) fn count_ops<T>(body: impl FnOnce() -> T) -> anyhow::Result<(T, i64)> {
    // SAFETY: adds a callback that counts in an atomic; removed below, before anyone adds another.
    check(unsafe { pba_ops_start() }, "libtorch")?;
    let result = body();
    // SAFETY: the callback was added above.
    Ok((result, unsafe { pba_ops_stop() }))
}
