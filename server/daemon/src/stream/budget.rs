//! A bound on the bytes that streams take together, and the gauge that shows what they take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::IntGauge;

/// Bytes that may be taken; cheap to clone.
#[derive(Clone)]
pub(crate) struct Budget {
    left: Arc<AtomicU64>,
    pub(super) taken: IntGauge,
}

impl Budget {
    pub(crate) fn new(bytes: u64, taken: IntGauge) -> Budget {
        Budget { left: Arc::new(AtomicU64::new(bytes)), taken }
    }

    /// Takes bytes, if as many are left.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<Reservation> {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).ok()?;
        self.taken.add(bytes as i64);
        Some(Reservation { budget: self.clone(), bytes })
    }
}

/// Part of a [`Budget`], returned to it when dropped.
pub(crate) struct Reservation {
    budget: Budget,
    pub(super) bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
        self.budget.taken.sub(self.bytes as i64);
    }
}
