//! The concurrent parts of the server, in every order in which their threads can meet.
//!
//! The files of daemon and datasets that share something among threads take their locks and atomics from `sync.rs`.
//! Here the same files are compiled with a `sync.rs` of loom's types. Loom runs a model, a few threads that do
//! what threads of the daemon do, once for each order in which their steps can follow each other, and with each
//! value that a relaxed load may see, as far as C11's memory model goes. It finds by itself threads that
//! wait for ever, and access to the same bytes by two at a time; what else must hold is asserted.
//!
//! Orders in which threads are interrupted more than a few times are left out, so that each model ends: `make test`
//! takes one interruption, `make models` two.

mod cells;
mod channel;
mod model;
mod models;
mod sync;

pub use model::Model;

#[path = "../../../server/datasets/src/packed/area.rs"]
mod area;

#[allow(dead_code, reason = "of the daemon's files, models use what threads share")]
#[path = "../../../server/daemon/src/stream"]
mod stream {
    pub(crate) mod budget;
    pub(crate) mod buffers;
    pub(crate) mod client;
    pub(crate) mod connections;
    pub(crate) mod decoded_cache;
    pub(crate) mod permits;
    pub(crate) mod pieces;
    pub(crate) mod queue;
    pub(crate) mod round_robin;
    pub(crate) mod shared_memory;
    pub(crate) mod slots;
    pub(crate) mod turns;
    pub(crate) mod work;

    /// What a worker has of its own is no part of the models.
    pub(crate) mod workspace {
        #[derive(Default)]
        pub(crate) struct Workspace(());
    }
}

/// The metrics that these files record.
mod metrics {
    use prometheus::{Counter, IntGauge};

    #[derive(Clone)]
    pub(crate) struct Metrics {
        pub(crate) queue_depth: IntGauge,
        pub(crate) worker_busy_seconds: Counter,
    }

    impl Metrics {
        pub(crate) fn new() -> Metrics {
            let queue_depth = gauge();
            Metrics { queue_depth, worker_busy_seconds: Counter::new("busy", "Seconds.").expect("a name") }
        }
    }

    pub(crate) fn gauge() -> IntGauge {
        IntGauge::new("gauge", "A gauge.").expect("a name")
    }
}

/// All models.
pub fn all() -> &'static [Model] {
    models::ALL
}
