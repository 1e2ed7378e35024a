//! The resources that streams share: the workers, the memory, and the bounds of both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::access::Identity;
use crate::config::Limits;
use crate::error::{Cause, Error};
use crate::metrics::{Metrics, Refused};
use crate::stream::budget::{BatchMemory, Budget, OwnBatch, Reservation};
use crate::stream::buffers::BufferPool;
use crate::stream::client::Client;
use crate::stream::decoded_cache::DecodedCache;
use crate::stream::permits::{Permit, Permits, Refusal};
use crate::stream::pool::Pool;
use crate::stream::queue::Owner;
use crate::stream::running::Running;
use crate::stream::shared_memory::SharedMemory;
use crate::stream::turns::Turns;

/// Longest message that opens a stream whose memory is not counted: a usual one has 2 KB, and each stream has one.
pub(crate) const SMALL_OPENING_BYTES: u64 = 128 << 10;

/// The resources that all streams share.
pub(crate) struct Engine {
    pub(crate) pool: Pool,
    pub(crate) buffers: BufferPool,
    pub(crate) decoded: DecodedCache,
    /// Bounds all that is in flight; see [`budget`](crate::stream::budget).
    memory: Budget,
    /// The shares of it.
    shares: Shares,
    pub(crate) shared_memory: Arc<SharedMemory>,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    /// Turns of previews and single images: they use at most half of the workers, so that they cannot delay
    /// the streams.
    pub(crate) single_tasks: Turns,
    permits: Permits,
    pub(crate) running: Running,
    /// The number of the next owner of work.
    next: AtomicU64,
}

impl Engine {
    /// Starts the workers.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(limits: Limits, metrics: Metrics) -> anyhow::Result<Engine> {
        let decoded = Budget::new(limits.decoded_cache_bytes as u64, metrics.decoded_cache_bytes.clone());
        let memory = Budget::new(limits.memory_bytes_max, metrics.memory_in_flight_bytes.clone());
        let share = |share: &str, parts: u64| {
            let taken = metrics.memory_share_bytes.with_label_values(&[share]);
            memory.share(memory.bytes() / parts, taken)
        };
        let shares =
            Shares { ahead: share("ahead", 2), answers: share("answers", 4), bodies: share("bodies", 8) };
        let shared_memory = metrics.memory_share_bytes.with_label_values(&["shared_memory"]);
        let shared_memory = shares.ahead.share(limits.shared_memory_bytes_max, shared_memory);
        let (running, kept) = (metrics.shared_memory_bytes.clone(), metrics.shared_memory_kept_bytes.clone());
        // One buffer per worker is being filled; the rest is on its way to a client.
        let buffers = BufferPool::new(limits.threads + 2 * limits.batches_ahead, shares.ahead.clone());
        Ok(Engine {
            pool: Pool::start(limits.threads, metrics.clone())?,
            decoded: DecodedCache::new(decoded),
            shared_memory: SharedMemory::new(shared_memory, buffers.clone(), running, kept),
            buffers,
            memory,
            shares,
            single_tasks: Turns::new((limits.threads / 2).max(1)),
            permits: Permits::new(limits.streams_max, limits.streams_per_client_max),
            running: Running::new(metrics.clone()),
            next: AtomicU64::new(0),
            metrics,
            limits,
        })
    }

    /// A permit for one more stream of a client, until it is dropped.
    ///
    /// # Errors
    /// When all permits are taken, or the client's share of them.
    pub(crate) fn admit(&self, client: Client) -> Result<Permit, Error> {
        let Limits { streams_max, streams_per_client_max, .. } = self.limits;
        self.permits.take(self.owner(client)).map_err(|refusal| match refusal {
            Refusal::All => {
                let detail = format!("all {streams_max} streams are taken; try again in a second");
                self.refuse(Cause::Full, Refused::Streams, detail)
            }
            Refusal::OfClient => {
                let detail = format!(
                    "this client has {streams_per_client_max} streams, the most that one may have \
                     (streams_per_client_max); try again in a second"
                );
                self.refuse(Cause::Full, Refused::StreamsPerClient, detail)
            }
        })
    }

    /// Counts the stream of a permit as one of the token that asks for it, if that has a limit of its own.
    ///
    /// # Errors
    /// When the token has as many streams as it may have.
    pub(crate) fn count_for(&self, permit: &mut Permit, identity: &Identity) -> Result<(), Error> {
        let limited = identity.token().and_then(|token| Some((&token.name, token.streams_max?)));
        let Some((name, streams_max)) = limited else { return Ok(()) };
        permit.count_for(name, streams_max).map_err(|()| {
            let detail = format!(
                "the token {name:?} has {streams_max} streams, the most that it may have (streams_max of its table); try \
                 again in a second"
            );
            self.refuse(Cause::Full, Refused::StreamsPerToken, detail)
        })
    }

    /// Memory for the message that opens a stream, unless that is small.
    ///
    /// # Errors
    /// When there is not enough left, or never could be.
    pub(crate) fn memory_for_opening(&self, bytes: u64) -> Result<Option<Reservation>, Error> {
        let is_large = bytes > SMALL_OPENING_BYTES;
        is_large.then(|| self.reserve(&self.memory, bytes, Refused::Memory)).transpose()
    }

    /// Counts memory of the stream of a permit as its client's: all that the stream has of its own.
    ///
    /// # Errors
    /// When the client has half of all that there is.
    pub(crate) fn charge(&self, permit: &mut Permit, bytes: u64) -> Result<(), Error> {
        permit.charge(bytes, self.memory.bytes() / 2).map_err(|taken| {
            let detail = format!(
                "this stream takes {bytes} bytes of its own, and other streams of this client have {taken}; one client \
                 may have half of the server's {} (memory_bytes_max); try again in a second",
                self.memory.bytes()
            );
            self.refuse(Cause::Memory, Refused::MemoryPerClient, detail)
        })
    }

    /// Memory for one batch of a stream, for as long as it runs.
    ///
    /// # Errors
    /// When there is not enough left.
    pub(crate) fn own_batch(&self, bytes: u64) -> Result<OwnBatch, Error> {
        Ok(OwnBatch::new(self.reserve(&self.memory, bytes, Refused::Memory)?))
    }

    /// Memory for one batch more, if enough is left.
    pub(crate) fn spare_batch(&self, bytes: u64) -> Option<BatchMemory> {
        self.buffers.reserve(&self.shares.ahead, bytes).map(BatchMemory::spare)
    }

    /// Memory for an answer, or to work on one.
    ///
    /// # Errors
    /// When there is not enough left, or never could be.
    pub(crate) fn memory_for_answer(&self, bytes: u64) -> Result<Reservation, Error> {
        self.reserve(&self.shares.answers, bytes, Refused::MemoryOfAnswers)
    }

    /// Memory for a part of a request's body.
    ///
    /// # Errors
    /// When there is not enough left, or never could be.
    pub(crate) fn memory_for_body(&self, bytes: u64) -> Result<Reservation, Error> {
        self.reserve(&self.shares.bodies, bytes, Refused::MemoryOfBodies)
    }

    /// The largest body of a request that could be received: while it grows, it is there twice.
    pub(crate) fn body_bytes_max(&self) -> usize {
        let room = usize::try_from(self.shares.bodies.bytes() / 2).unwrap_or(usize::MAX);
        self.limits.body_bytes_max.min(room)
    }

    /// All memory for what is in flight.
    pub(crate) fn memory_bytes_max(&self) -> u64 {
        self.memory.bytes()
    }

    /// The most that one answer may take.
    pub(crate) fn answer_bytes_max(&self) -> u64 {
        self.shares.answers.bytes()
    }

    fn reserve(&self, budget: &Budget, bytes: u64, refused: Refused) -> Result<Reservation, Error> {
        if bytes > budget.bytes() {
            let detail = format!(
                "it takes {bytes} bytes of memory; this server has {} for all that is of its kind, of its {} \
                 (memory_bytes_max)",
                budget.bytes(),
                self.memory.bytes()
            );
            return Err(Error::new(Cause::TooLarge, detail));
        }
        self.buffers.reserve(budget, bytes).ok_or_else(|| {
            let detail = format!(
                "{bytes} bytes more do not fit beside what others have of the server's {} (memory_bytes_max); \
                 try again in a second",
                self.memory.bytes()
            );
            self.refuse(Cause::Memory, refused, detail)
        })
    }

    /// A request is refused because something is full.
    pub(crate) fn refuse(&self, cause: Cause, refused: Refused, detail: impl ToString) -> Error {
        self.metrics.refuse(refused);
        Error::new(cause, detail)
    }

    /// Whose work a request of a client is.
    pub(crate) fn owner(&self, client: Client) -> Owner {
        Owner { client, stream: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// Streams that hold a permit.
    pub(crate) fn streams(&self) -> usize {
        self.permits.taken()
    }
}

/// Parts of the memory.
struct Shares {
    /// Batches beyond each stream's own, shared memory and idle buffers.
    ahead: Budget,
    answers: Budget,
    bodies: Budget,
}
