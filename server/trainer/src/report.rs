//! Reports on standard output: one JSON object per line.

use std::io::Write;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use pba_search::protocol::Report;
use pba_search::{Progress, Spec};
use serde::Serialize;

/// Time between two progress events.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Writes a line. Its reader may have left; the run's folder has everything that matters.
pub(crate) fn line(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Writes a report, or the reason why a spec is refused.
pub(crate) fn tell(what: &impl Serialize) {
    line(&serde_json::to_string(what).expect("what is told is written as JSON"));
}

/// Progress of a run, updated by the training threads and reported once a second.
#[derive(Debug)]
pub(crate) struct Meter {
    start: Instant,
    epochs: u32,
    /// Images to train in all.
    images_total: u64,
    epoch: AtomicU32,
    /// Images trained by this process.
    images: AtomicU64,
    /// Images that were trained before this process, in epochs that it need not repeat.
    images_before: AtomicU64,
    /// In use on the GPU after the last epoch; 0 on a CPU.
    gpu_memory_used_bytes: AtomicU64,
}

impl Meter {
    /// The meter of a job whose spec is sized.
    pub(crate) fn of(spec: &impl Spec) -> Meter {
        Meter {
            start: Instant::now(),
            epochs: spec.epochs(),
            images_total: spec.images(),
            epoch: AtomicU32::new(0),
            images: AtomicU64::new(0),
            images_before: AtomicU64::new(0),
            gpu_memory_used_bytes: AtomicU64::new(0),
        }
    }

    /// Starts from `epoch` finished epochs, in which `images` images were trained; those that this process
    /// trained itself count as its own.
    pub(crate) fn resume(&self, epoch: u32, images: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
        let own = self.images.load(Ordering::Relaxed);
        self.images_before.store(images.saturating_sub(own), Ordering::Relaxed);
    }

    pub(crate) fn trained(&self, images: usize) {
        self.images.fetch_add(images as u64, Ordering::Relaxed);
    }

    /// Records a finished epoch, and the memory of the GPU, if any.
    pub(crate) fn finished(&self, epoch: u32, gpu_memory_used_bytes: Option<u64>) {
        self.epoch.store(epoch, Ordering::Relaxed);
        self.gpu_memory_used_bytes.store(gpu_memory_used_bytes.unwrap_or(0), Ordering::Relaxed);
    }

    /// The progress of the run.
    pub(crate) fn progress(&self) -> Report {
        let seconds = self.start.elapsed().as_secs_f64();
        let trained = self.images.load(Ordering::Relaxed);
        let images = trained + self.images_before.load(Ordering::Relaxed);
        let total = self.images_total;
        let rate = trained as f64 / seconds;
        Report::Progress(Progress {
            epoch: self.epoch.load(Ordering::Relaxed),
            epochs: self.epochs,
            fraction: (images as f64 / total.max(1) as f64 * 1e4).round() / 1e4,
            images,
            images_per_second: rate.round(),
            seconds: (seconds * 10.0).round() / 10.0,
            seconds_left: (trained > 0).then(|| (total.saturating_sub(images) as f64 / rate).round()),
            gpu_memory_used_bytes: Some(self.gpu_memory_used_bytes.load(Ordering::Relaxed))
                .filter(|&bytes| bytes > 0),
        })
    }
}

/// A figure in JSON: rounded, and null if a model diverged.
pub(crate) fn number(value: f64) -> Option<f64> {
    (!value.is_nan()).then_some((value * 1e6).round() / 1e6)
}

/// Does `body`, and meanwhile reports a meter's progress.
pub(crate) fn ticking<T>(meter: &Meter, body: impl FnOnce() -> T) -> T {
    // Nothing is sent: the thread ends once the sender is dropped.
    let (going_on, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let going_on = going_on;
        scope.spawn(move || {
            while ended.recv_timeout(PROGRESS_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                tell(&meter.progress());
            }
        });
        let result = body();
        drop(going_on);
        result
    })
}
