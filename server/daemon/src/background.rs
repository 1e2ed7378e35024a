//! Work that goes on for as long as the server runs, on threads of its own, where it may wait for the disk.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, sleep};
use std::time::Duration;

/// Time after a panic until such work begins again.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// Does work on a thread of this name until it returns, and begins it again should it panic, which is logged and counted.
/// The thread is detached: what it does when the process ends is lost.
///
/// # Errors
/// When the system refuses a thread.
pub(crate) fn start(name: &str, mut work: impl FnMut() + Send + 'static) -> io::Result<()> {
    let work = move || {
        while catch_unwind(AssertUnwindSafe(&mut work)).is_err() {
            sleep(RESTART_DELAY);
        }
    };
    Builder::new().name(name.to_owned()).spawn(work).map(drop)
}
