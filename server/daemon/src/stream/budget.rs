//! Bounds on the bytes that are taken together, and the gauges that show what is taken.
//!
//! # The memory of what is in flight
//!
//! One [`Budget`], the setting `memory_bytes_max`, covers all that clients make the server hold. Every part
//! of it that is not one batch of a running stream is confined to a share, so that none of the others can
//! take what streams live on:
//!
//! | what | share | reserved | given back |
//! | --- | --- | --- | --- |
//! | the message that opens a stream, of 128 KiB and more | all; counted with the next as its client's | before it is made | when it is sent, and the stream ends |
//! | one batch of each stream, its own | all; of one client half, after its first stream | when it is admitted | when it ends |
//! | batches ahead, buffers kept idle, shared memory | half, together | before a batch is begun; before the memory is made | when the bytes are sent; when nobody has the memory mapped any more |
//! | answers of 128 KiB and more, sheets, single images | a quarter | before they are drawn, or when they are written | when the last byte is sent |
//! | bodies of requests | an eighth | as they arrive | when the request is answered |
//!
//! # Why every stream goes on
//!
//! Nothing waits for memory: what is not there is not taken, and the request is refused, or the stream does
//! without work ahead. The one thing that a stream waits for is its own batch ([`OwnBatch`]), which nobody
//! else can have. That batch is either free, and then the next is begun in it; or it is being made, which
//! the workers do in bounded time, since clients take turns; or it is being sent, which ends when the
//! client has taken it, or is cut off because it takes nothing. So with any number of streams, and however
//! little is left, each goes on at the pace of its client.

use std::sync::atomic::Ordering;

use prometheus::IntGauge;

use crate::sync::{Arc, AtomicBool, AtomicU64, Notify};

/// Bytes that may be taken; cheap to clone.
#[derive(Clone)]
pub(crate) struct Budget {
    bytes: u64,
    left: Arc<AtomicU64>,
    pub(super) taken: IntGauge,
    /// What is taken here is taken there, too.
    whole: Option<Arc<Budget>>,
}

impl Budget {
    pub(crate) fn new(bytes: u64, taken: IntGauge) -> Budget {
        Budget { bytes, left: Arc::new(AtomicU64::new(bytes)), taken, whole: None }
    }

    /// A part of this budget: what is taken from it is at most `bytes`, and counts here.
    pub(crate) fn share(&self, bytes: u64, taken: IntGauge) -> Budget {
        let bytes = bytes.min(self.bytes);
        Budget { bytes, left: Arc::new(AtomicU64::new(bytes)), taken, whole: Some(Arc::new(self.clone())) }
    }

    /// All that there is, taken or not.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes bytes, if as many are left.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<Reservation> {
        self.take(bytes).then(|| Reservation { budget: self.clone(), bytes })
    }

    /// How many bytes have to come back to another budget until `bytes` can be taken of this one; none when
    /// no number of them would do, because what is short here is not taken there.
    pub(super) fn missing(&self, bytes: u64, other: &Budget) -> Option<u64> {
        let missing = bytes.saturating_sub(self.left.load(Ordering::Relaxed));
        if missing > 0 && !other.counts_in(self) {
            return None;
        }
        let whole = self.whole.as_ref().map_or(Some(0), |whole| whole.missing(bytes, other))?;
        Some(missing.max(whole))
    }

    /// Whether what is taken here is taken there.
    fn counts_in(&self, other: &Budget) -> bool {
        let is_same = Arc::ptr_eq(&self.left, &other.left);
        is_same || self.whole.as_ref().is_some_and(|whole| whole.counts_in(other))
    }

    fn take(&self, bytes: u64) -> bool {
        let took = |left: u64| left.checked_sub(bytes);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, took).is_err() {
            return false;
        }
        if let Some(whole) = &self.whole
            && !whole.take(bytes)
        {
            self.left.fetch_add(bytes, Ordering::Relaxed);
            return false;
        }
        self.taken.add(bytes as i64);
        true
    }

    fn give_back(&self, bytes: u64) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
        self.taken.sub(bytes as i64);
        if let Some(whole) = &self.whole {
            whole.give_back(bytes);
        }
    }
}

/// Part of a [`Budget`], returned to it when dropped.
pub(crate) struct Reservation {
    budget: Budget,
    pub(super) bytes: u64,
}

impl Reservation {
    /// Gives back what is above so many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        self.budget.give_back(less);
        self.bytes -= less;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// The memory that a stream has for one batch at a time, as long as it runs.
pub(crate) struct OwnBatch(Arc<Own>);

struct Own {
    is_taken: AtomicBool,
    /// Told when it is no longer taken.
    returned: Notify,
    _reservation: Reservation,
}

impl OwnBatch {
    pub(crate) fn new(reservation: Reservation) -> OwnBatch {
        let (is_taken, returned) = Default::default();
        OwnBatch(Arc::new(Own { is_taken, returned, _reservation: reservation }))
    }

    /// The memory for a batch, unless one has it.
    pub(crate) fn take(&self) -> Option<BatchMemory> {
        let taken = self.0.is_taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        taken.ok().map(|_| BatchMemory(Kind::Own(Arc::clone(&self.0))))
    }

    /// Done when it may have come back since this was last done.
    pub(crate) async fn returned(&self) {
        self.0.returned.notified().await;
    }
}

/// The memory of one batch, from its beginning until it is sent.
pub(crate) struct BatchMemory(Kind);

enum Kind {
    /// The stream's own.
    Own(Arc<Own>),
    /// What was left.
    Spare(Reservation),
}

impl BatchMemory {
    /// Memory that is not the stream's own.
    pub(crate) fn spare(reservation: Reservation) -> BatchMemory {
        BatchMemory(Kind::Spare(reservation))
    }

    /// The batch needs less from now on.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        match &mut self.0 {
            Kind::Own(_) => {}
            Kind::Spare(reservation) => reservation.shrink_to(bytes),
        }
    }
}

impl Drop for BatchMemory {
    fn drop(&mut self) {
        if let Kind::Own(own) = &self.0 {
            own.is_taken.store(false, Ordering::Release);
            // Kept for the stream if it does not wait yet.
            own.returned.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge() -> IntGauge {
        IntGauge::new("taken", "Bytes taken.").unwrap()
    }

    #[test]
    fn a_share_takes_from_the_whole_and_no_more_than_its_part() {
        let (taken, part_taken) = (gauge(), gauge());
        let whole = Budget::new(100, taken.clone());
        let part = whole.share(60, part_taken.clone());
        let both = || (taken.get(), part_taken.get());
        let mut first = part.reserve(50).unwrap();
        assert!(part.reserve(11).is_none());
        assert_eq!(both(), (50, 50));
        let other = whole.reserve(45).unwrap();
        assert!(part.reserve(10).is_none(), "the part has 10, the whole 5");
        assert_eq!(both(), (95, 50));
        first.shrink_to(20);
        first.shrink_to(30);
        assert_eq!(both(), (65, 20));
        drop(other);
        drop(part.reserve(40).unwrap());
        drop(first);
        assert_eq!(both(), (0, 0));
        assert!(whole.reserve(100).is_some());
        assert_eq!((whole.share(1000, gauge()).bytes(), whole.share(0, gauge()).bytes()), (100, 0));
    }

    #[test]
    fn what_is_missing_is_known_and_where_it_would_help() {
        let whole = Budget::new(100, gauge());
        let (ahead, answers) = (whole.share(50, gauge()), whole.share(25, gauge()));
        let memory = ahead.share(30, gauge());
        let _taken = [ahead.reserve(40), whole.reserve(50), answers.reserve(5)];
        // 10 of 50 and 5 of 100 are left.
        assert_eq!(ahead.missing(5, &ahead), Some(0));
        assert_eq!(ahead.missing(12, &ahead), Some(7));
        assert_eq!(memory.missing(30, &ahead), Some(25));
        assert_eq!(memory.missing(31, &ahead), None, "its own bound is short");
        assert_eq!(answers.missing(20, &ahead), Some(15));
        assert_eq!(answers.missing(21, &ahead), None, "what is ahead is none of theirs");
        assert_eq!(whole.missing(6, &ahead), Some(1));
    }

    #[test]
    fn no_number_of_threads_takes_more_than_there_is() {
        let taken = gauge();
        let whole = Budget::new(1000, taken.clone());
        let shares = [whole.share(700, gauge()), whole.share(600, gauge())];
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (share, taken) = (&shares[thread % 2], &taken);
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for step in 0..2000 {
                        held.extend(share.reserve((step * 7 + thread as u64) % 150));
                        assert!(taken.get() <= 1000 + 8 * 150, "a gauge is a moment late at most");
                        if step % 3 == 0 {
                            held.clear();
                        }
                    }
                });
            }
        });
        assert_eq!(taken.get(), 0);
        assert!(whole.reserve(1000).is_some());
    }

    #[tokio::test]
    async fn a_stream_has_one_batch_of_its_own_at_a_time() {
        let budget = Budget::new(10, gauge());
        let own = OwnBatch::new(budget.reserve(10).unwrap());
        for _ in 0..3 {
            let mut batch = own.take().unwrap();
            assert!(own.take().is_none());
            batch.shrink_to(1);
            assert!(budget.reserve(1).is_none(), "it stays the stream's");
            // Before anybody waits for it, or meanwhile.
            drop(batch);
            own.returned().await;
            let batch = own.take().unwrap();
            tokio::join!(own.returned(), async { drop(batch) });
        }
        let batch = own.take();
        drop(own);
        assert!(budget.reserve(1).is_none(), "a batch that is being sent");
        drop(batch);
        assert!(budget.reserve(10).is_some());
    }
}
