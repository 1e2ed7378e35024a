//! What tch does not bind, for any device: `cpp/shim.cpp` as safe functions.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};

use anyhow::bail;

unsafe extern "C" {
    fn pba_error() -> *const c_char;
    fn pba_backward_on_caller() -> c_int;
    fn pba_deterministic(on: c_int) -> c_int;
    fn pba_ops_start() -> c_int;
    fn pba_ops_stop() -> i64;
}

/// Whether a function of the shim succeeded.
///
/// # Errors
/// When it did not, with libtorch's reason.
pub(crate) fn check(code: c_int) -> anyhow::Result<()> {
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

/// Whether cuDNN chooses kernels by rule, so that a run can be repeated, or by measuring them.
pub(crate) fn deterministic(on: bool) -> anyhow::Result<()> {
    // SAFETY: sets global flags that libtorch reads under its own synchronisation.
    check(unsafe { pba_deterministic(on.into()) })
}

/// Runs `body`, and counts the operators that libtorch runs meanwhile on all threads.
pub(crate) fn count_ops<T>(body: impl FnOnce() -> T) -> anyhow::Result<(T, i64)> {
    // SAFETY: adds a callback that counts in an atomic; removed below, before anyone adds another.
    check(unsafe { pba_ops_start() })?;
    let result = body();
    // SAFETY: the callback was added above.
    Ok((result, unsafe { pba_ops_stop() }))
}
