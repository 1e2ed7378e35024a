//! Whole-system tests: the real binaries, used as people use them.
//!
//! This library is the harness. A [`Server`] is a running `pba serve` on a port of its own with a
//! data directory of its own, so any number of them live side by side, and each ends with the
//! test that started it. [`http`] is a client simple enough to be trusted about what is on the
//! wire: it says whether an answer came whole. The themes are the files in `tests/`.
//!
//! `make test` builds the binary that the tests start; `PBA_BIN` names another one.

pub mod binary;
pub mod chaos;
pub mod collector;
pub mod epoch;
pub mod fuzz;
pub mod guarded;
pub mod http;
pub mod imports;
pub mod log;
pub mod metrics;
pub mod mounts;
pub mod parquet_files;
pub mod power_loss;
pub mod proxy;
pub mod search;
pub mod server;
pub mod skipped;
pub mod slow_file;
pub mod terminal;
pub mod tls;
pub mod xml;

use std::time::{Duration, Instant};

pub use binary::{Pba, pba};
pub use epoch::Epoch;
pub use http::{Answer, Download};
pub use proxy::CuttingProxy;
pub use server::Server;

/// Nothing that a test waits for takes this long, not even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How often something that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks until something is there.
///
/// # Panics
/// When it is not there after [`PATIENCE`]; the message names it.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}, in vain");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Looks until a number has stood still for so long.
///
/// # Panics
/// When it still moves after [`PATIENCE`].
#[track_caller]
pub fn wait_until_still(what: &str, still_for: Duration, mut look: impl FnMut() -> f64) -> f64 {
    let (mut value, mut since) = (look(), Instant::now());
    wait_for(what, || {
        let now = look();
        if now != value {
            (value, since) = (now, Instant::now());
        }
        (since.elapsed() >= still_for).then_some(value)
    })
}

/// A path in the repository.
pub fn repository(path: &str) -> std::path::PathBuf {
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the crate lies in the repository").join(path)
}
