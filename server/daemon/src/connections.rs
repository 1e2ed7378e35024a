//! Connections that are open: how many there may be, and until when one is.

use std::sync::atomic::Ordering;

use prometheus::IntGauge;

use crate::sync::{Arc, AtomicUsize};

/// All connections that there may be.
pub(crate) struct Connections {
    max: usize,
    open: Arc<AtomicUsize>,
    active: IntGauge,
}

/// An open connection, which is counted until the last clone is dropped: by the task that serves it, its requests
/// and the stream that it was upgraded for.
#[derive(Clone)]
pub(crate) struct Connection {
    _open: Arc<Open>,
}

struct Open {
    open: Arc<AtomicUsize>,
    active: IntGauge,
}

impl Connections {
    /// At most so many, whose number is shown by a gauge.
    pub(crate) fn new(max: usize, active: IntGauge) -> Connections {
        Connections { max, open: Arc::new(AtomicUsize::new(0)), active }
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Counts one more, if there is room for it.
    pub(crate) fn open(&self) -> Option<Connection> {
        let more = |open: usize| (open < self.max).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        self.active.inc();
        Some(Connection {
            _open: Arc::new(Open { open: Arc::clone(&self.open), active: self.active.clone() }),
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.active.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_open_until_all_that_use_it_have_ended() {
        let active = IntGauge::new("active", "Connections.").unwrap();
        let connections = Connections::new(2, active.clone());
        let (served, other) = (connections.open().unwrap(), connections.open());
        let upgraded = served.clone();
        drop(served);
        assert!(connections.open().is_none() && active.get() == 2);
        drop(upgraded);
        assert!(connections.open().is_some());
        drop(other);
        assert_eq!(active.get(), 0);
    }
}
