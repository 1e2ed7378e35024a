//! Every metric of the server in one module: its doc comment is its help.
//!
//! Names carry the prefix `pba_` and base units; labels take values from closed sets, or from
//! the configured datasets and the searches that run, so that the number of series is bounded. What counts is there
//! at 0 before it counts anything: a rate over its first event would be none otherwise.

use std::sync::{Arc, LazyLock};

use pba_schedules::Op;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::version;

/// The registered metrics; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    inner: Arc<Inner>,
    /// The counter of each op, which every batch looks up for each op.
    ops: Arc<[IntCounter]>,
}

impl std::ops::Deref for Metrics {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

/// Buckets, in seconds: the first, how much larger each next one is, and how many there are.
type Buckets = (f64, f64, usize);

/// From 1 microsecond (the header of a batch) to 16 seconds (a huge batch to a slow client).
const STAGE_BUCKETS: Buckets = (1e-6, 2.0, 25);
/// From 1 millisecond to a minute.
const FIRST_BATCH_BUCKETS: Buckets = (1e-3, 2.0, 17);
/// From half a millisecond to two minutes, after which a request is given up. There are as many series of them as routes.
const REQUEST_BUCKETS: Buckets = (5e-4, 4.0, 10);

/// Declares and registers metrics: field, type, name and labels of each, with its help as doc comment.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $type:ident = $name:literal $([$($label:literal),*])? $(in $buckets:ident)?;)*) => {
        pub(crate) struct Inner {
            registry: Registry,
            $($(#[doc = $help])+ pub(crate) $field: $type,)*
        }

        impl Inner {
            fn register(registry: Registry) -> prometheus::Result<Inner> {
                $(
                    let options = Opts::new($name, concat!($($help),+).trim_start());
                    let $field = metrics!(@new $type, options $(, &[$($label),*])? $(, in $buckets)?)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Inner { registry, $($field,)* })
            }
        }
    };
    (@new HistogramVec, $options:ident, $labels:expr, in $buckets:ident) => {
        HistogramVec::new(with_buckets($options, $buckets)?, $labels)
    };
    (@new Histogram, $options:ident, in $buckets:ident) => {
        Histogram::with_opts(with_buckets($options, $buckets)?)
    };
    (@new $type:ident, $options:ident, $labels:expr) => { $type::new($options, $labels) };
    (@new $type:ident, $options:ident) => { $type::with_opts($options) };
}

fn with_buckets(options: Opts, (start, factor, count): Buckets) -> prometheus::Result<HistogramOpts> {
    Ok(HistogramOpts::from(options).buckets(prometheus::exponential_buckets(start, factor, count)?))
}

metrics! {
    /// Images augmented, by dataset.
    images_augmented: IntCounterVec = "pba_images_augmented_total" ["dataset"];
    /// Batches handed to the network.
    batches_sent: IntCounter = "pba_batches_sent_total";
    /// Bytes of streams handed to the network.
    stream_bytes: IntCounter = "pba_stream_bytes_total";
    /// Streams being sent.
    streams_active: IntGauge = "pba_streams_active";
    /// Streams being sent in which one side has waited for the other most of the last ten seconds or so: client = for
    /// batches, server = for the client to take them.
    streams_waiting: IntGaugeVec = "pba_streams_waiting" ["dataset", "side"];
    /// Streams that have ended: completed = all of it was sent; left = the client went away; cut = the server ended it,
    /// because the client stalled, the server stopped or a batch failed; refused = before the first byte, where the
    /// dataset is none if there is no such dataset.
    stream_outcomes: IntCounterVec = "pba_stream_outcomes_total" ["dataset", "outcome"];
    /// Time from a request for a stream to its first batch.
    first_batch_seconds: Histogram = "pba_first_batch_seconds" in FIRST_BATCH_BUCKETS;
    /// Time per batch: augment = pixels of one batch, over its workers, encode = its message, send = until
    /// the network asks for more; decode = the part of augment that decodes JPEG and PNG, for datasets
    /// stored encoded.
    stage: HistogramVec = "pba_stage_duration_seconds" ["stage"] in STAGE_BUCKETS;
    /// Ops that fired, by op.
    ops_applied: IntCounterVec = "pba_ops_applied_total" ["op"];
    /// Time that workers spent on batches, previews and single images, over all workers.
    worker_busy_seconds: Counter = "pba_worker_busy_seconds_total";
    /// Batches, previews and single images that wait for a worker.
    queue_depth: IntGauge = "pba_queue_depth";
    /// Time that clients have waited for a batch, over all streams, those that wait now included: the server is too slow.
    client_wait_seconds: CounterVec = "pba_client_wait_seconds_total" ["dataset"];
    /// Time that the server has waited for clients to take finished batches, likewise: the client is too slow.
    backpressure_seconds: CounterVec = "pba_backpressure_seconds_total" ["dataset"];
    /// Streams that started after batch 0, with some left: resumed or striped.
    resumes: IntCounter = "pba_resumes_total";
    /// Connections that are open.
    connections_active: IntGauge = "pba_connections_active";
    /// Connections that were refused, because connections_max were open, or three quarters of them by one client.
    connections_refused: IntCounter = "pba_connections_refused_total";
    /// TLS handshakes: done; failed, those that the client left or that took too long included; plain_text = a client
    /// spoke plain HTTP, and was told so.
    tls_handshakes: IntCounterVec = "pba_tls_handshakes_total" ["outcome"];
    /// Replaced certificates: succeeded = in use, failed = the one before is kept.
    tls_reloads: IntCounterVec = "pba_tls_reloads_total" ["outcome"];
    /// When the server's own certificate expires, in seconds since 1970; absent without TLS.
    certificate_expiry: IntGaugeVec = "pba_tls_certificate_expiry_timestamp_seconds" [];
    /// Requests answered, by route and status.
    requests: IntCounterVec = "pba_requests_total" ["route", "status"];
    /// Time from the head of a request to that of its answer, by route.
    request_duration: HistogramVec = "pba_request_duration_seconds" ["route"] in REQUEST_BUCKETS;
    /// Requests refused or aborted, by kind.
    request_errors: IntCounterVec = "pba_request_errors_total" ["kind"];
    /// Requests refused because something is full, by what: streams = all of them, streams_per_client = those
    /// of one client, streams_per_token = those of one token; memory = all of it, memory_per_client = the half that one client's streams may have,
    /// memory_of_answers, memory_of_bodies = the shares of these.
    refused: IntCounterVec = "pba_refused_total" ["reason"];
    /// Memory taken by what is in flight: batches, idle buffers, shared memory, answers, bodies of requests; at
    /// most memory_bytes_max of the configuration.
    memory_in_flight_bytes: IntGauge = "pba_memory_in_flight_bytes";
    /// The part of it that is confined to a share: ahead = batches beyond each stream's own, idle buffers, shared
    /// memory (half of memory_bytes_max); shared_memory, of that; answers (a quarter); bodies (an eighth).
    memory_share_bytes: IntGaugeVec = "pba_memory_share_bytes" ["share"];
    /// Bytes of packed datasets that are mapped; the kernel keeps in memory as much as fits.
    cache_bytes: IntGauge = "pba_cache_bytes";
    /// Record batches of packed datasets that are known to be damaged, until they are mended, by dataset.
    damaged_record_batches: IntGaugeVec = "pba_damaged_record_batches" ["dataset"];
    /// Datasets whose damage was mended, or whose import went well at last, by dataset.
    repairs: IntCounterVec = "pba_repairs_total" ["dataset"];
    /// Bytes of packed datasets that the scrub has read and compared with their checksums.
    scrub_bytes: IntCounter = "pba_scrub_bytes_total";
    /// Passes of the scrub over all packed datasets.
    scrub_passes: IntCounter = "pba_scrub_passes_total";
    /// Seconds that the last pass of the scrub took: how long damage in memory can be served, at most.
    scrub_pass_seconds: Gauge = "pba_scrub_pass_seconds";
    /// Bytes in the cache of decoded images; at most decoded_cache_bytes of the configuration.
    decoded_cache_bytes: IntGauge = "pba_decoded_cache_bytes";
    /// Images whose pixels were in the decoded cache.
    decoded_cache_hits: IntCounter = "pba_decoded_cache_hits_total";
    /// Images that had to be decoded because their pixels were not in the decoded cache.
    decoded_cache_misses: IntCounter = "pba_decoded_cache_misses_total";
    /// Bytes of shared memory of the streams on the Unix socket, until they end; with what clients keep, at most
    /// shared_memory_bytes_max of the configuration.
    shared_memory_bytes: IntGauge = "pba_shared_memory_bytes";
    /// Bytes of shared memory that clients still have mapped although their streams have ended.
    shared_memory_kept_bytes: IntGauge = "pba_shared_memory_kept_bytes";
    /// Streams on the Unix socket that asked for shared memory but went through the socket, because none
    /// was available.
    shared_memory_refused: IntCounter = "pba_shared_memory_refused_total";
    /// 1 until the server is told to stop, then 0.
    ready: IntGauge = "pba_ready";
    /// Datasets, by state.
    datasets: IntGaugeVec = "pba_datasets" ["state"];
    /// Bytes that are free for the data directory.
    data_directory_free_bytes: IntGauge = "pba_data_directory_free_bytes";
    /// 1 if the disk takes what is written to the data directory, as far as is known; 0 if it is full, read-only, moved
    /// away or does not answer.
    data_directory_writable: IntGauge = "pba_data_directory_writable";
    /// 1 if there is a trainer that runs, as far as is known; 0 if there is none, it does not start, or died again and
    /// again.
    trainer_ready: IntGauge = "pba_trainer_ready";
    /// 1 if this server is the writer of its data directory, which hosts the jobs there; 0 if it is a replica.
    writer: IntGauge = "pba_writer";
    /// Jobs that this server hosts, by kind and state.
    jobs: IntGaugeVec = "pba_jobs" ["kind", "state"];
    /// Epochs that every member of a search has trained, while it runs.
    search_epoch: IntGaugeVec = "pba_search_epoch" ["search"];
    /// Best validation accuracy in the population of a search, 0 to 1, while it runs.
    search_best_accuracy: GaugeVec = "pba_search_best_accuracy_ratio" ["search"];
    /// Times that a member copied a better one, over all searches.
    search_exploits: IntCounter = "pba_search_exploits_total";
    /// Images that searches trained on.
    search_images_trained: IntCounter = "pba_search_images_trained_total";
    /// When a search last trained on an image, or its trainer was started, in seconds since 1970, while it runs.
    search_progress_timestamp: IntGaugeVec = "pba_search_progress_timestamp_seconds" ["search"];
    /// Trainers that crashed or were killed, and were started again from the last checkpoint, by the kind of their job.
    trainer_restarts: IntCounterVec = "pba_trainer_restarts_total" ["kind"];
    /// Processor time of the trainers of jobs, in seconds over all cores: `process_cpu_seconds_total` has that of the
    /// server alone.
    trainer_cpu_seconds: Counter = "pba_trainer_cpu_seconds_total";
    /// GPU memory in use by all programs on the GPUs that jobs train on, in all.
    gpu_memory_used_bytes: IntGauge = "pba_gpu_memory_used_bytes";
    /// Times that the file of tokens was read again because it had changed, by outcome: succeeded, or failed = it cannot be
    /// read, and the tokens of before stay.
    token_reloads: IntCounterVec = "pba_token_reloads_total" ["outcome"];
    /// Lines of the audit log that could not be written to the data directory. They are in the server's log.
    audit_lines_lost: IntCounter = "pba_audit_lines_lost_total";
    /// Always 1; the labels say what is running.
    build_info: IntGaugeVec = "pba_build_info" ["version", "revision"];
}

/// Lines of the log that could not be written, because its reader has gone, is too slow, or its disk is full.
/// The log is the process's own, so it is counted over all servers in it.
pub(crate) static LOG_LINES_LOST: LazyLock<IntCounter> = LazyLock::new(|| {
    of_process(
        "pba_log_lines_lost_total",
        "Lines of the log that were lost, because its reader has gone or does not keep up, or its disk is full.",
    )
});

/// Panics anywhere in the process: each is a fault of the server, though it harms one request at most,
/// or takes a second of what goes on in the background.
pub(crate) static PANICS: LazyLock<IntCounter> = LazyLock::new(|| {
    of_process(
        "pba_panics_total",
        "Panics: faults of the server, each of which ended a request, a stream or an import.",
    )
});

fn of_process(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("the name is one of a metric")
}

impl Metrics {
    /// Registers every metric in a registry of its own, so that several servers can run in one process.
    ///
    /// # Errors
    /// When two metrics share a name, which is a mistake in this module.
    pub(crate) fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        registry.register(Box::new(LOG_LINES_LOST.clone()))?;
        registry.register(Box::new(PANICS.clone()))?;
        let metrics = Inner::register(registry)?;
        metrics.build_info.with_label_values(&[version::VERSION, version::REVISION]).set(1);
        metrics.begin_dataset(NO_DATASET);
        for stage in STAGES {
            metrics.stage.with_label_values(&[stage]);
        }
        for reason in REASONS {
            metrics.refused.with_label_values(&[reason]);
        }
        for outcome in HANDSHAKES {
            metrics.tls_handshakes.with_label_values(&[outcome]);
        }
        for outcome in RELOADS {
            metrics.tls_reloads.with_label_values(&[outcome]);
            metrics.token_reloads.with_label_values(&[outcome]);
        }
        let ops = Op::ALL.iter().map(|op| metrics.ops_applied.with_label_values(&[op.name()])).collect();
        Ok(Metrics { inner: Arc::new(metrics), ops })
    }

    /// Counts the ops that fired in a batch.
    pub(crate) fn count_ops(&self, counts: impl IntoIterator<Item = (Op, u64)>) {
        for (op, count) in counts {
            self.ops[op as usize].inc_by(count);
        }
    }
}

/// The label of a dataset that there is not: whatever clients ask for, there is one series.
pub(crate) const NO_DATASET: &str = "none";
/// The label of a route that there is not.
pub(crate) const NO_ROUTE: &str = "none";

/// The kind of error of a stream that breaks when it has begun, which is no refusal of its request.
pub(crate) const BROKEN_STREAM: &str = "broken-stream";

pba_types::named! {
    /// How a stream ended, as distinguished by `pba_stream_outcomes_total`.
    pub enum Outcome {
        /// All of it was sent.
        Completed = "completed",
        /// The client went away.
        Left = "left",
        /// The server ended it.
        Cut = "cut",
        /// It was refused before the first byte.
        Refused = "refused",
    }
}

/// What is full, as distinguished by `pba_refused_total`.
#[derive(Clone, Copy)]
pub(crate) enum Refused {
    Streams,
    StreamsPerClient,
    StreamsPerToken,
    Memory,
    MemoryPerClient,
    MemoryOfAnswers,
    MemoryOfBodies,
}

/// The label of each.
const REASONS: [&str; 7] = [
    "streams",
    "streams_per_client",
    "streams_per_token",
    "memory",
    "memory_per_client",
    "memory_of_answers",
    "memory_of_bodies",
];

/// What became of a file that was read again.
#[derive(Clone, Copy)]
pub(crate) enum Reload {
    Succeeded,
    Failed,
}

/// The label of each.
const RELOADS: [&str; 2] = ["succeeded", "failed"];

/// A part of the work on a batch, as distinguished by `pba_stage_duration_seconds`.
#[derive(Clone, Copy)]
pub(crate) enum Stage {
    Augment,
    Decode,
    Encode,
    Send,
}

/// The label of each stage.
const STAGES: [&str; 4] = ["augment", "decode", "encode", "send"];

/// How a TLS handshake ended, as distinguished by `pba_tls_handshakes_total`.
#[derive(Clone, Copy)]
pub(crate) enum Handshake {
    Done,
    Failed,
    PlainText,
}

/// The label of each.
const HANDSHAKES: [&str; 3] = ["done", "failed", "plain_text"];

impl Inner {
    /// Counts a TLS handshake.
    pub(crate) fn shook_hands(&self, outcome: Handshake) {
        self.tls_handshakes.with_label_values(&[HANDSHAKES[outcome as usize]]).inc();
    }

    /// Counts an attempt to replace the certificate.
    pub(crate) fn count_certificate_reload(&self, outcome: Reload) {
        self.tls_reloads.with_label_values(&[RELOADS[outcome as usize]]).inc();
    }

    /// The times of a stage.
    pub(crate) fn stage(&self, stage: Stage) -> Histogram {
        self.stage.with_label_values(&[STAGES[stage as usize]])
    }

    /// Begins the series of a dataset.
    pub(crate) fn begin_dataset(&self, name: &str) {
        for outcome in Outcome::ALL {
            self.stream_outcomes.with_label_values(&[name, outcome.name()]);
        }
        if name == NO_DATASET {
            return;
        }
        self.images_augmented.with_label_values(&[name]);
        self.client_wait_seconds.with_label_values(&[name]);
        self.backpressure_seconds.with_label_values(&[name]);
        self.damaged_record_batches.with_label_values(&[name]);
        self.repairs.with_label_values(&[name]);
    }

    /// Begins the series of a route, which answers with these statuses when all is well.
    pub(crate) fn begin_route<'a>(&self, route: &str, statuses: impl IntoIterator<Item = &'a str>) {
        self.request_duration.with_label_values(&[route]);
        for status in statuses {
            self.requests.with_label_values(&[route, status]);
        }
    }

    /// Counts a stream that has ended, or was refused.
    pub(crate) fn end_stream(&self, dataset: &str, outcome: Outcome) {
        self.stream_outcomes.with_label_values(&[dataset, outcome.name()]).inc();
    }

    /// Counts a request that was refused because something is full.
    pub(crate) fn refuse(&self, refused: Refused) {
        self.refused.with_label_values(&[REASONS[refused as usize]]).inc();
    }

    /// Counts that the file of tokens was read again.
    pub(crate) fn count_token_reload(&self, outcome: Reload) {
        self.token_reloads.with_label_values(&[RELOADS[outcome as usize]]).inc();
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric cannot be written, which is a mistake in this module.
    pub(crate) fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
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
}
