//! Signals that tell the process to stop.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);
static PARENT: AtomicI32 = AtomicI32::new(0);

/// The process was told to stop, and stopped between two steps.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

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
    let on = |signal, handler: extern "C" fn(libc::c_int)| {
        // SAFETY: the handlers only use atomics and getppid, which are allowed at any point.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    };
    // A file that would be longer than it may be is refused like one for which there is no room.
    // SAFETY: the signal is ignored; no handler runs.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    on(libc::SIGTERM, note);
    on(libc::SIGINT, note);
    if die_with_parent {
        // SAFETY: getppid cannot fail.
        PARENT.store(unsafe { libc::getppid() }, Ordering::Relaxed);
        on(libc::SIGUSR1, note_orphaned);
        // SAFETY: prctl sets a flag of this process. Signal 0 only asks whether a process is there.
        let starter_died = unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGUSR1);
            starter.is_some_and(|starter| libc::kill(starter, 0) != 0)
        };
        // The process that started us may have died before it was watched, and another process be our
        // parent now. It need not have been our parent, but that of a script that started us.
        if starter_died {
            STOP.store(true, Ordering::Relaxed);
        }
    }
}

/// Fails once the process was told to stop.
pub(crate) fn check() -> anyhow::Result<()> {
    if STOP.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
}
