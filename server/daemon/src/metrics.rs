//! Every metric of the server, on one page.
//!
//! Names carry the prefix `pba_` and base units; labels take values from closed sets, or from
//! the configured datasets, so that the number of series is bounded.

use std::sync::Arc;

use pba_schedules::Op;
use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// The registered metrics; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Inner>);

impl std::ops::Deref for Metrics {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// The metrics themselves.
#[allow(missing_docs, reason = "the help text beside each registration says what it is")]
pub(crate) struct Inner {
    registry: Registry,
    pub(crate) images_augmented: IntCounterVec,
    pub(crate) batches_sent: IntCounter,
    pub(crate) stream_bytes: IntCounter,
    pub(crate) streams_active: IntGauge,
    pub(crate) stage_augment: Histogram,
    pub(crate) stage_encode: Histogram,
    pub(crate) stage_send: Histogram,
    pub(crate) stage_decode: Histogram,
    ops_applied: [IntCounter; Op::ALL.len()],
    pub(crate) worker_busy_seconds: Counter,
    pub(crate) queue_depth: IntGauge,
    pub(crate) client_wait_seconds: Counter,
    pub(crate) backpressure_seconds: Counter,
    pub(crate) resumes: IntCounter,
    pub(crate) requests: IntCounterVec,
    pub(crate) request_errors: IntCounterVec,
    pub(crate) cache_bytes: IntGauge,
    pub(crate) decoded_cache_bytes: IntGauge,
    pub(crate) decoded_cache_hits: IntCounter,
    pub(crate) decoded_cache_misses: IntCounter,
    pub(crate) shared_memory_bytes: IntGauge,
    pub(crate) shared_memory_refused: IntCounter,
    pub(crate) ready: IntGauge,
    pub(crate) searches: IntGaugeVec,
    pub(crate) search_epoch: IntGauge,
    pub(crate) search_best_accuracy: Gauge,
    pub(crate) search_exploits: IntCounter,
    pub(crate) search_restarts: IntCounter,
    pub(crate) search_images_trained: IntCounter,
    pub(crate) gpu_memory_used_bytes: IntGauge,
}

impl Metrics {
    /// Registers every metric in a registry of its own, so that several servers can live in one
    /// process.
    ///
    /// # Errors
    /// When two metrics share a name, which is a mistake on this page.
    pub(crate) fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let register = |collector: Box<dyn Collector>| registry.register(collector);

        macro_rules! metric {
            ($type:ident, $name:literal, $help:literal) => {{
                let metric = $type::with_opts(Opts::new($name, $help))?;
                register(Box::new(metric.clone()))?;
                metric
            }};
            ($type:ident, $name:literal, $help:literal, $($label:literal),+) => {{
                let metric = $type::new(Opts::new($name, $help), &[$($label),+])?;
                register(Box::new(metric.clone()))?;
                metric
            }};
        }

        let images_augmented =
            metric!(IntCounterVec, "pba_images_augmented_total", "Images augmented, by dataset.", "dataset");
        let batches_sent = metric!(IntCounter, "pba_batches_sent_total", "Batches handed to the network.");
        let stream_bytes =
            metric!(IntCounter, "pba_stream_bytes_total", "Bytes of streams handed to the network.");
        let streams_active = metric!(IntGauge, "pba_streams_active", "Streams being sent.");
        // From 1 microsecond (the header of a batch) to 16 seconds (a huge batch to a slow client).
        let stage_buckets = prometheus::exponential_buckets(1e-6, 4.0, 13)?;
        let stage = HistogramVec::new(
            HistogramOpts::new(
                "pba_stage_duration_seconds",
                "Time per batch: augment = pixels of one batch on one worker, encode = its message, \
                 send = until the network asks for more; decode = the part of augment in which JPEG and PNG \
                 become pixels, where a dataset is kept so.",
            )
            .buckets(stage_buckets),
            &["stage"],
        )?;
        register(Box::new(stage.clone()))?;
        let ops = metric!(IntCounterVec, "pba_ops_applied_total", "Ops that fired, by op.", "op");
        let worker_busy_seconds = metric!(
            Counter,
            "pba_worker_busy_seconds_total",
            "Time that workers spent on jobs, over all workers."
        );
        let queue_depth = metric!(IntGauge, "pba_queue_depth", "Jobs waiting for a worker.");
        let client_wait_seconds = metric!(
            Counter,
            "pba_client_wait_seconds_total",
            "Time that clients waited for a batch: the server is too slow."
        );
        let backpressure_seconds = metric!(
            Counter,
            "pba_backpressure_seconds_total",
            "Time that finished batches waited for their client: the client is too slow."
        );
        let resumes = metric!(
            IntCounter,
            "pba_resumes_total",
            "Streams that started after batch 0, with some left: resumed or striped."
        );
        let requests = metric!(
            IntCounterVec,
            "pba_requests_total",
            "Requests answered, by route and status.",
            "route",
            "status"
        );
        let request_errors = metric!(
            IntCounterVec,
            "pba_request_errors_total",
            "Requests refused or broken off, by kind.",
            "kind"
        );
        let cache_bytes = metric!(
            IntGauge,
            "pba_cache_bytes",
            "Bytes of packed datasets that are mapped; the kernel holds in memory what it has room for."
        );
        let decoded_cache_bytes = metric!(
            IntGauge,
            "pba_decoded_cache_bytes",
            "Memory taken by decoded pixels of images that are kept encoded; at most decoded_cache_bytes of the configuration."
        );
        let decoded_cache_hits = metric!(
            IntCounter,
            "pba_decoded_cache_hits_total",
            "Images whose pixels were in the decoded cache."
        );
        let decoded_cache_misses = metric!(
            IntCounter,
            "pba_decoded_cache_misses_total",
            "Images that had to be decoded, as their pixels were not in the decoded cache."
        );
        let shared_memory_bytes = metric!(
            IntGauge,
            "pba_shared_memory_bytes",
            "Memory that streams on the Unix socket share with their clients, until they end; at most shared_memory_bytes_max of the configuration."
        );
        let shared_memory_refused = metric!(
            IntCounter,
            "pba_shared_memory_refused_total",
            "Streams on the Unix socket that asked for shared memory and went through the socket, because there was no more."
        );
        let ready =
            metric!(IntGauge, "pba_ready", "1 while the server takes new streams, 0 while it drains.");

        let searches = metric!(IntGaugeVec, "pba_searches", "Population searches, by state.", "state");
        let search_epoch = metric!(
            IntGauge,
            "pba_search_epoch",
            "Epochs that every member of the running search has trained."
        );
        let search_best_accuracy = metric!(
            Gauge,
            "pba_search_best_accuracy_ratio",
            "Best validation accuracy in the population of the running search, 0 to 1."
        );
        let search_exploits = metric!(
            IntCounter,
            "pba_search_exploits_total",
            "Members that copied a better one, over all searches."
        );
        let search_restarts = metric!(
            IntCounter,
            "pba_search_restarts_total",
            "Trainers that crashed or were killed, and went on from their last checkpoint."
        );
        let search_images_trained =
            metric!(IntCounter, "pba_search_images_trained_total", "Images that searches trained on.");
        // Told by trainers on a GPU; a CPU has none to tell of.
        let gpu_memory_used_bytes = metric!(
            IntGauge,
            "pba_gpu_memory_used_bytes",
            "GPU memory that the running search uses; 0 on a CPU."
        );

        let info = IntGaugeVec::new(
            Opts::new("pba_build_info", "Always 1; the labels say what is running."),
            &["version"],
        )?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        register(Box::new(info))?;
        register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;

        Ok(Metrics(Arc::new(Inner {
            images_augmented,
            batches_sent,
            stream_bytes,
            streams_active,
            stage_augment: stage.with_label_values(&["augment"]),
            stage_encode: stage.with_label_values(&["encode"]),
            stage_send: stage.with_label_values(&["send"]),
            stage_decode: stage.with_label_values(&["decode"]),
            ops_applied: Op::ALL.map(|op| ops.with_label_values(&[op.name()])),
            worker_busy_seconds,
            queue_depth,
            client_wait_seconds,
            backpressure_seconds,
            resumes,
            requests,
            request_errors,
            cache_bytes,
            decoded_cache_bytes,
            decoded_cache_hits,
            decoded_cache_misses,
            shared_memory_bytes,
            shared_memory_refused,
            ready,
            searches,
            search_epoch,
            search_best_accuracy,
            search_exploits,
            search_restarts,
            search_images_trained,
            gpu_memory_used_bytes,
            registry,
        })))
    }

    /// Counts the ops that fired in a batch.
    pub(crate) fn count_ops(&self, counts: impl IntoIterator<Item = (Op, u64)>) {
        for (op, count) in counts {
            self.ops_applied[op as usize].inc_by(count);
        }
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric cannot be written, which is a mistake on this page.
    pub(crate) fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Counts something while it lives, on every exit path.
pub(crate) struct Live(IntGauge);

impl Live {
    /// Adds one to the gauge until dropped.
    pub(crate) fn new(gauge: &IntGauge) -> Live {
        gauge.inc();
        Live(gauge.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_the_prefix_and_a_help() {
        let metrics = Metrics::new().unwrap();
        metrics.images_augmented.with_label_values(&["shapes"]).inc();
        metrics.count_ops([(Op::Rotate, 3)]);
        let text = metrics.text().unwrap();
        assert!(text.contains("pba_ops_applied_total{op=\"Rotate\"} 3"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("pba_") || line.starts_with("process_"), "{line}");
        }
    }

    #[test]
    fn a_live_count_ends_with_its_guard() {
        let metrics = Metrics::new().unwrap();
        let live = Live::new(&metrics.streams_active);
        assert_eq!(metrics.streams_active.get(), 1);
        drop(live);
        assert_eq!(metrics.streams_active.get(), 0);
    }
}
