//! A model, and how it is run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A property of the server, and its model.
pub struct Model {
    /// What must hold.
    pub property: &'static str,
    run: fn(),
}

impl Model {
    pub(crate) const fn new(property: &'static str, run: fn()) -> Model {
        Model { property, run }
    }

    /// Runs the model in every order in which threads are interrupted at most so often, and returns how many those
    /// are.
    ///
    /// # Panics
    /// When the property does not hold in one of them. May abort the process, when threads wait for ever.
    pub fn check(&self, interruptions: usize) -> u64 {
        let orders = Arc::new(AtomicU64::new(0));
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(interruptions);
        builder.max_branches = 10_000;
        let (count, run) = (Arc::clone(&orders), self.run);
        builder.check(move || {
            count.fetch_add(1, Ordering::Relaxed);
            run();
        });
        orders.load(Ordering::Relaxed)
    }
}
