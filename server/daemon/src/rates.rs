//! What the server did per second in the last two minutes, for the pages: a page is drawn at once, and a rate needs two
//! looks at a counter.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use prometheus::core::Collector;

use crate::metrics::Metrics;
use crate::stream::engine::Engine;
use crate::sync::lock;

/// Time from one look to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// Looks that are kept.
pub(crate) const KEPT: usize = 120;
/// Looks that a rate of now is over: batches come in bursts.
const WINDOW: usize = 3;

/// Counters at one time.
#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    /// What was counted until then.
    sums: Rates,
}

/// How much there is of everything in a second; of a [`Look`], in all.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rates {
    /// Images augmented.
    pub(crate) images: f64,
    /// Bytes of streams.
    pub(crate) bytes: f64,
    /// Workers that are busy, on average.
    pub(crate) workers_busy: f64,
    /// Cores that trainers take, on average.
    pub(crate) trainer_cores: f64,
    /// Clients that wait for a batch, on average.
    pub(crate) clients_waiting: f64,
    /// Batches that wait for their client, on average.
    pub(crate) batches_waiting: f64,
}

/// The looks of the last two minutes.
#[derive(Default)]
pub(crate) struct History(Mutex<VecDeque<Look>>);

impl History {
    /// Looks at the counters again and again.
    pub(crate) async fn follow(&self, engine: &Engine) {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            engine.running.count_waits();
            self.add(look(&engine.metrics));
        }
    }

    fn add(&self, look: Look) {
        let mut looks = self.looks();
        if looks.len() > KEPT {
            looks.pop_front();
        }
        looks.push_back(look);
    }

    /// The rates of now: over the last seconds. All are 0 in the first second of the server.
    pub(crate) fn now(&self) -> Rates {
        let looks = self.looks();
        let Some(last) = looks.back() else { return Rates::default() };
        let before = &looks[looks.len().saturating_sub(1 + WINDOW)];
        let seconds = last.at.duration_since(before.at).as_secs_f64();
        if seconds == 0.0 {
            return Rates::default();
        }
        let per_second = |of: fn(&Rates) -> f64| ((of(&last.sums) - of(&before.sums)) / seconds).max(0.0);
        Rates {
            images: per_second(|sums| sums.images),
            bytes: per_second(|sums| sums.bytes),
            workers_busy: per_second(|sums| sums.workers_busy),
            trainer_cores: per_second(|sums| sums.trainer_cores),
            clients_waiting: per_second(|sums| sums.clients_waiting),
            batches_waiting: per_second(|sums| sums.batches_waiting),
        }
    }

    /// Images per second between each two looks, the oldest first: at most [`KEPT`].
    pub(crate) fn images(&self) -> Vec<f64> {
        let looks = self.looks();
        let rate = |(before, after): (&Look, &Look)| {
            (after.sums.images - before.sums.images)
                / after.at.duration_since(before.at).as_secs_f64().max(1e-3)
        };
        looks.iter().zip(looks.iter().skip(1)).map(rate).collect()
    }

    fn looks(&self) -> MutexGuard<'_, VecDeque<Look>> {
        lock(&self.0)
    }
}

fn look(metrics: &Metrics) -> Look {
    let sums = Rates {
        images: sum(&metrics.images_augmented),
        bytes: sum(&metrics.stream_bytes),
        workers_busy: sum(&metrics.worker_busy_seconds),
        trainer_cores: sum(&metrics.trainer_cpu_seconds),
        clients_waiting: sum(&metrics.client_wait_seconds),
        batches_waiting: sum(&metrics.backpressure_seconds),
    };
    Look { at: Instant::now(), sums }
}

/// What a counter has counted, over all of its labels.
pub(crate) fn sum(counter: &impl Collector) -> f64 {
    let families = counter.collect();
    families
        .iter()
        .flat_map(|family| family.get_metric())
        .map(|metric| metric.get_counter().get_value())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_over_the_last_looks() {
        let (metrics, history, begin) = (Metrics::new().unwrap(), History::default(), Instant::now());
        assert_eq!((history.now().images, history.images().len()), (0.0, 0));
        for second in 0..200 {
            history.add(Look { at: begin + Duration::from_secs(second), ..look(&metrics) });
            let more = if second < 190 { 100 } else { 10 };
            metrics.images_augmented.with_label_values(&["a"]).inc_by(more);
            metrics.images_augmented.with_label_values(&["b"]).inc_by(more);
            metrics.trainer_cpu_seconds.inc_by(1.5);
        }
        assert_eq!((history.now().images, history.now().trainer_cores), (20.0, 1.5));
        let images = history.images();
        assert_eq!((images.len(), images[0], *images.last().unwrap()), (KEPT, 200.0, 20.0));
        assert_eq!(history.now().clients_waiting, 0.0);
    }
}
