//! Signals that tell the process to stop.
#![allow(unsafe_code)]

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);
static PARENT: AtomicI32 = AtomicI32::new(0);

/// The process was told to stop, and stopped between two steps.
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

/// The kernel sends this when the *thread* that started us ends. While its process lives, another
/// of its threads becomes our parent, and will be watched in turn.
extern "C" fn note_orphaned(_signal: libc::c_int) {
    // SAFETY: getppid may be called in a signal handler, and cannot fail.
    if unsafe { libc::getppid() } != PARENT.load(Ordering::Relaxed) {
        STOP.store(true, Ordering::Relaxed);
    }
}

/// Watches for SIGTERM, SIGINT and, if asked to, the death of the parent process: without its server
/// a search would run unnoticed.
pub(crate) fn install(starter: Option<i32>, die_with_parent: bool) {
    // SAFETY: the handlers only use atomics and getppid, which are allowed at any point.
    unsafe {
        let handler = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
        libc::signal(libc::SIGTERM, handler);
        libc::signal(libc::SIGINT, handler);
    }
    if die_with_parent {
        // SAFETY: as above; prctl sets a flag of this process.
        unsafe {
            PARENT.store(libc::getppid(), Ordering::Relaxed);
            libc::signal(libc::SIGUSR1, note_orphaned as extern "C" fn(libc::c_int) as libc::sighandler_t);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGUSR1);
        }
        // Whoever started us may have died before it was watched, and another process be our
        // parent now. It need not have been our parent, but that of a script that started us.
        if let Some(starter) = starter {
            // SAFETY: signal 0 only asks whether the process is there.
            if unsafe { libc::kill(starter, 0) } != 0 {
                STOP.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Fails once the process was told to stop.
pub(crate) fn check() -> anyhow::Result<()> {
    if STOP.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
}
