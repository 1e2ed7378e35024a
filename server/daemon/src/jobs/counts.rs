//! The metrics of jobs, most of which only searches have.

use std::any::Any;
use std::time::{SystemTime, UNIX_EPOCH};

use pba_search::{Event, Progress, Run, Search};
use pba_wire::jobs::JobState;

use crate::metrics::Metrics;

/// Counts an event of a job, and the job after it.
pub(super) fn event<K: Run>(metrics: &Metrics, id: &str, event: &K::Event, job: &K) {
    let (event, job): (&dyn Any, &dyn Any) = (event, job);
    let (Some(event), Some(search)) = (event.downcast_ref(), job.downcast_ref::<Search>()) else { return };
    match event {
        Event::Scored { epoch, .. } => {
            metrics.search_epoch.with_label_values(&[id]).set((*epoch).into());
            let best = search.best_accuracy().unwrap_or(0.0);
            metrics.search_best_accuracy.with_label_values(&[id]).set(best);
        }
        Event::Exploit(_) => metrics.search_exploits.inc(),
        _ => {}
    }
}

/// Begins the series of a kind of job.
pub(super) fn begin_kind<K: Run>(metrics: &Metrics) {
    metrics.trainer_restarts.with_label_values(&[K::JOB.name]);
}

/// A trainer of a job is started.
pub(super) fn start<K: Run>(metrics: &Metrics, id: &str) {
    if is_search::<K>() {
        advance(metrics, id);
    }
}

/// Counts the progress of a trainer that has trained `images` since it last reported, which was `before`.
pub(super) fn progress<K: Run>(
    metrics: &Metrics,
    id: &str,
    before: Option<&Progress>,
    progress: &Progress,
    images: u64,
) {
    let of = |progress: Option<&Progress>| {
        progress.and_then(|progress| progress.gpu_memory_used_bytes).unwrap_or(0)
    };
    // Several jobs may train, each on a device of its own.
    metrics.gpu_memory_used_bytes.add(of(Some(progress)) as i64 - of(before) as i64);
    if is_search::<K>() {
        metrics.search_images_trained.inc_by(images);
        if images > 0 {
            advance(metrics, id);
        }
    }
}

/// A search has got on.
fn advance(metrics: &Metrics, id: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    metrics.search_progress_timestamp.with_label_values(&[id]).set(now.as_secs() as i64);
}

/// The trainer of a job has ended, which last reported `last`, if anything.
pub(super) fn end(metrics: &Metrics, id: &str, last: Option<&mut Progress>) {
    // Of a job that is no search, or has not scored yet, there are none.
    let _ = metrics.search_epoch.remove_label_values(&[id]);
    let _ = metrics.search_best_accuracy.remove_label_values(&[id]);
    let _ = metrics.search_progress_timestamp.remove_label_values(&[id]);
    let Some(last) = last else { return };
    metrics.gpu_memory_used_bytes.sub(last.gpu_memory_used_bytes.take().unwrap_or(0) as i64);
}

/// Counts a trainer that was started again.
pub(super) fn restart<K: Run>(metrics: &Metrics) {
    metrics.trainer_restarts.with_label_values(&[K::JOB.name]).inc();
}

/// Sets the number of jobs in a state.
pub(super) fn jobs<K: Run>(metrics: &Metrics, state: JobState, count: usize) {
    metrics.jobs.with_label_values(&[K::JOB.name, state.name()]).set(count as i64);
}

fn is_search<K: Run>() -> bool {
    std::any::TypeId::of::<K>() == std::any::TypeId::of::<Search>()
}
