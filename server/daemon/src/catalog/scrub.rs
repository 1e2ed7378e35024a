//! Reads every packed file again and again, slowly, so that damage on the disk is known before a stream meets it.
//!
//! A pass reads the datasets by name, their splits in order, and their record batches from first to last; it is
//! spread over the time that it may take. What is found counts as damage that a stream has found: streams that
//! would need it are refused, and the dataset is mended (`datasets.rs`). What the kernel holds in memory is read
//! there, and that is what would be served; the disk under it is read when the kernel has let go of it
//! ([`Split::scrub`](pba_datasets::Split::scrub)).

use std::cell::Cell;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use pba_datasets::DatasetError;

use crate::catalog::datasets::Catalog;
use crate::metrics::Metrics;

/// The longest sleep, after which it is asked whether to go on.
const SLEEP: Duration = Duration::from_secs(1);
/// Time from one pass to the next, at least: there may be next to nothing to read.
const PASS_MIN: Duration = Duration::from_millis(100);

/// Makes one pass after another, each in about `pass`, until it is over. Runs on a thread of its own, which
/// gives way to all others.
pub(crate) fn scrub(catalog: &Catalog, pass: Duration, metrics: &Metrics, is_over: &dyn Fn() -> bool) {
    // It reads a little slower than it should be if the system refuses.
    let _ = rustix::process::setpriority_process(None, 19);
    let pass = pass.max(PASS_MIN);
    let wait_until = |time: Instant| {
        loop {
            let left = time.saturating_duration_since(Instant::now());
            if is_over() {
                return ControlFlow::Break(());
            }
            if left.is_zero() {
                return ControlFlow::Continue(());
            }
            std::thread::sleep(left.min(SLEEP));
        }
    };
    while !is_over() {
        if catalog.check_ready().is_err() {
            std::thread::sleep(SLEEP);
            continue;
        }
        let (start, read) = (Instant::now(), Cell::new(0_u64));
        let entries = catalog.list();
        let total: u64 = entries.iter().flat_map(|entry| entry.splits()).map(|split| split.bytes()).sum();
        let pause = |bytes: usize| {
            read.set(read.get() + bytes as u64);
            metrics.scrub_bytes.inc_by(bytes as u64);
            wait_until(start + pass.mul_f64((read.get() as f64 / total.max(1) as f64).min(1.0)))
        };
        for split in entries.iter().flat_map(|entry| entry.splits()) {
            for batch in 0..split.record_batches() {
                match split.scrub(batch, &pause) {
                    Ok(()) => {}
                    Err(error @ DatasetError::Damaged { batch: Some(_), .. }) => {
                        tracing::error!(%error, "found by the scrub");
                    }
                    Err(error) => {
                        tracing::error!(%error, "found by the scrub");
                        break;
                    }
                }
                if is_over() {
                    return;
                }
            }
        }
        metrics.scrub_passes.inc();
        let _ = wait_until(start + pass);
    }
}
