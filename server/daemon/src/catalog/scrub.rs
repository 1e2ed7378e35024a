//! Reads every packed file again and again, slowly, so that damage is known soon: that on the disk before a stream
//! meets it, and that in memory, which no time of a file tells, before much of it was served.
//!
//! A pass reads the datasets by name, their splits in order, and their record batches from first to last. What is
//! found counts as damage that a stream has found: streams that would need it are refused, and the dataset is mended
//! (`upkeep.rs`). What the kernel holds in memory is read there, and that is what would be served; the disk under
//! it is read when the kernel has let go of it ([`Split::scrub`](pba_datasets::Split::scrub)).
//!
//! A pass takes as long as all packed files at the rate that is set, which is how long damage of that kind can be
//! served. Streams do not notice: the thread gives way to others, leaves half of its time to a disk that is slow,
//! and takes no memory from them.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use pba_datasets::DatasetError;

use crate::catalog::datasets::Catalog;
use crate::metrics::Metrics;

/// The longest sleep, after which it is asked whether to go on.
const SLEEP: Duration = Duration::from_secs(1);
/// Bytes that are read between two sleeps, at least: a small image is not worth one.
const STEP_BYTES: usize = 256 << 10;
/// A disk that takes so long for a step has enough to do: it gets as much time for others.
const SLOW: Duration = Duration::from_millis(50);
/// How far it may fall behind the rate that is set, and make up for it.
const BEHIND_MAX: Duration = Duration::from_secs(1);
/// Time from one pass to the next, at least: there may be next to nothing to read.
const PASS_MIN: Duration = Duration::from_secs(1);

/// Makes one pass after another, at so many bytes in a second, until it is over. Runs on a thread of its own, which
/// gives way to all others.
pub(crate) fn scrub(catalog: &Catalog, bytes_per_second: u64, metrics: &Metrics, is_over: &dyn Fn() -> bool) {
    // It gives way, but not so far that it would stand still while all cores are busy. Should the system refuse, it
    // still takes 1 % of a core.
    let _ = rustix::process::setpriority_process(None, 10);
    let sleep_until = |time: Instant| {
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
        let start = Instant::now();
        let (begun, due, read) = (Cell::new(start), Cell::new(start), Cell::new(0));
        let pause = |bytes: usize| {
            metrics.scrub_bytes.inc_by(bytes as u64);
            read.set(read.get() + bytes);
            if read.get() < STEP_BYTES {
                return ControlFlow::Continue(());
            }
            let now = Instant::now();
            let took = now.saturating_duration_since(begun.get());
            // On a busy machine it is late at times, and makes up for that.
            let behind = due.get().max(now.checked_sub(BEHIND_MAX).unwrap_or(now));
            due.set(behind + Duration::from_secs_f64(read.get() as f64 / bytes_per_second as f64));
            read.set(0);
            let next = sleep_until(if took < SLOW { due.get() } else { due.get().max(now + took) });
            begun.set(Instant::now());
            next
        };
        for entry in catalog.list() {
            for split in entry.splits() {
                for batch in 0..split.record_batches() {
                    if is_over() {
                        return;
                    }
                    // It was mended meanwhile, and is another file.
                    if !entry.has(&split) {
                        break;
                    }
                    let is_known = split.is_known_damaged(batch);
                    match split.scrub(batch, &pause) {
                        Err(error @ DatasetError::Damaged { batch: Some(_), .. }) if !is_known => {
                            tracing::error!(%error, "found by the scrub");
                        }
                        Ok(()) | Err(DatasetError::Damaged { batch: Some(_), .. }) => {}
                        // All of it is lost, as those say who look after the datasets.
                        Err(_) => break,
                    }
                }
            }
        }
        metrics.scrub_passes.inc();
        metrics.scrub_pass_seconds.set(start.elapsed().as_secs_f64());
        let _ = sleep_until(start + PASS_MIN);
    }
}
