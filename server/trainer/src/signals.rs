//! Being told to stop.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// The process was told to stop, and did so between two steps.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

extern "C" fn note(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

/// Notes SIGTERM and SIGINT, and asks for a SIGTERM when the parent process dies: a search
/// without its server would go on unseen.
pub(crate) fn install(die_with_parent: bool) {
    // SAFETY: the handler only stores to an atomic, which is allowed at any point.
    unsafe {
        let handler = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
        libc::signal(libc::SIGTERM, handler);
        libc::signal(libc::SIGINT, handler);
    }
    if die_with_parent {
        // SAFETY: sets a flag of this process.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
        // The parent may have died before the flag was set; then another process has adopted us.
        if std::os::unix::process::parent_id() == 1 && std::process::id() != 1 {
            STOP.store(true, Ordering::Relaxed);
        }
    }
}

/// Fails once the process was told to stop.
pub(crate) fn check() -> anyhow::Result<()> {
    if STOP.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
}
