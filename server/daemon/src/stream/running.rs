//! The streams that are running, and the one line that the log has of each when it has ended.
//!
//! What changes with each batch is behind a lock of the stream's own, which is free nearly always: who looks at all
//! streams, as `/metrics` and `/v1/streams` do, holds it for some nanoseconds. Waits are counted up to the moment at
//! which they are asked for, so that a client that stalls is seen while it does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pba_types::SplitName;
use pba_wire::streams::{Stream, Transport, Waits as Who};
use prometheus::Counter;

use crate::metrics::{Metrics, Outcome, Stage};
use crate::pace::Pace;
use crate::stream::peer::Peer;
use crate::stream::waits::Waits;
use crate::sync::lock;
use crate::trace::Trace;

/// Why a stream is cut whose client does not take what it is given.
pub(crate) const STALLED: &str = "the client took nothing for stall_seconds";

/// The streams that are running.
pub(crate) struct Running {
    metrics: Metrics,
    /// By their numbers, in the order in which they began.
    streams: Arc<Mutex<BTreeMap<u64, Arc<Entry>>>>,
    /// The number of the next one.
    next: AtomicU64,
}

/// What is known of a stream before it begins.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) request_id: Arc<str>,
    pub(crate) trace: Trace,
    /// When its request came.
    pub(crate) received: Instant,
    pub(crate) peer: Peer,
    /// How its connection takes what it is given, if there is one.
    pub(crate) pace: Option<Arc<Pace>>,
    pub(crate) user_agent: Option<String>,
    /// Name of the token that it was requested with.
    pub(crate) token: Option<Arc<str>>,
    pub(crate) transport: Transport,
    pub(crate) dataset: String,
    pub(crate) split: SplitName,
    pub(crate) schedule: String,
    pub(crate) epoch: u32,
    pub(crate) epochs: Option<u32>,
    pub(crate) shard: (u32, u32),
    pub(crate) batch_size: u32,
    pub(crate) batches: u64,
    pub(crate) rows: u64,
}

/// A stream in the table.
struct Entry {
    /// Its number among all streams of this server.
    number: u64,
    about: About,
    begun: Instant,
    metrics: Metrics,
    client_wait_seconds: Counter,
    backpressure_seconds: Counter,
    bytes: AtomicU64,
    state: Mutex<State>,
}

struct State {
    waits: Waits,
    rows: u64,
    /// When the last batch was handed over.
    handed: Instant,
    end: End,
}

/// How a stream ends, as far as that is known.
enum End {
    /// The client leaves, unless something else happens.
    Open,
    /// All of it was handed over.
    Completed,
    /// The server ends it, and why.
    Cut(String),
    /// Its request is refused before the first byte; the refusal is counted where it is answered.
    Refused,
    /// It is over, and counted.
    Over,
}

impl Running {
    pub(crate) fn new(metrics: Metrics) -> Running {
        Running { metrics, streams: Arc::default(), next: AtomicU64::new(0) }
    }

    /// Adds a stream, until it is dropped.
    pub(crate) fn begin(&self, about: About) -> RunningStream {
        let now = Instant::now();
        let dataset = [about.dataset.as_str()];
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry {
            number,
            begun: now,
            client_wait_seconds: self.metrics.client_wait_seconds.with_label_values(&dataset),
            backpressure_seconds: self.metrics.backpressure_seconds.with_label_values(&dataset),
            metrics: self.metrics.clone(),
            bytes: AtomicU64::new(0),
            state: Mutex::new(State { waits: Waits::new(now), rows: 0, handed: now, end: End::Open }),
            about,
        };
        let entry = Arc::new(entry);
        lock(&self.streams).insert(number, Arc::clone(&entry));
        RunningStream { number, entry, streams: Arc::clone(&self.streams) }
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        lock(&self.streams).values().cloned().collect()
    }

    /// Every stream as it is now, in the order in which they began.
    pub(crate) fn list(&self) -> Vec<Stream> {
        self.entries().iter().filter(|entry| entry.about.is_stream()).map(|entry| entry.describe()).collect()
    }

    /// Counts the waits that are not over.
    pub(crate) fn count_waits(&self) {
        for entry in self.entries() {
            entry.counted(|_, _| ());
        }
    }

    /// Counts the waits that are not over, and the streams of each of these datasets that wait, by who does.
    pub(crate) fn count<'a>(&self, datasets: impl IntoIterator<Item = &'a str>) {
        let mut waiting: BTreeMap<(String, Who), i64> = BTreeMap::new();
        for dataset in datasets {
            for who in [Who::Client, Who::Server] {
                waiting.insert((dataset.to_owned(), who), 0);
            }
        }
        for entry in self.entries() {
            let who = entry.counted(|state, _| state.waits.recent().who());
            waiting.entry((entry.about.dataset.clone(), who)).and_modify(|count| *count += 1);
        }
        for ((dataset, who), count) in waiting {
            self.metrics.streams_waiting.with_label_values(&[dataset.as_str(), who.name()]).set(count);
        }
    }

    /// Ends all that are left because the server ends: they are counted and logged now, while that is possible.
    pub(crate) fn cut_all(&self, reason: &str) {
        for entry in self.entries() {
            entry.cut(reason);
            entry.end();
        }
    }
}

/// A stream that is running, until it is dropped.
pub(crate) struct RunningStream {
    number: u64,
    entry: Arc<Entry>,
    streams: Arc<Mutex<BTreeMap<u64, Arc<Entry>>>>,
}

impl RunningStream {
    /// One more batch is to be made; who makes it says when it is made.
    pub(crate) fn begin(&self) {
        self.entry.counted(|state, now| state.waits.begin(now));
    }

    /// Tells that a batch is made, from whichever thread.
    pub(crate) fn maker(&self, number: u64) -> Maker {
        Maker { number, entry: Arc::clone(&self.entry) }
    }

    /// The client asks for the next batch, which is not made yet.
    pub(crate) fn ask(&self) {
        self.entry.counted(|state, now| {
            if !state.waits.is_asking() {
                self.entry.asked(state, now);
                state.waits.ask(now);
            }
        });
    }

    /// The next batch, of so many images, is handed over.
    pub(crate) fn take(&self, images: usize) {
        let Entry { metrics, about, .. } = &*self.entry;
        self.entry.counted(|state, now| {
            if !state.waits.is_asking() {
                self.entry.asked(state, now);
            }
            if state.waits.taken() == 0 {
                metrics.first_batch_seconds.observe((now - about.received).as_secs_f64());
            }
            state.waits.take(images, now);
            state.handed = now;
            state.rows += images as u64;
        });
        metrics.batches_sent.inc();
    }

    /// So many bytes are handed over.
    pub(crate) fn sent(&self, bytes: u64) {
        self.entry.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.entry.metrics.stream_bytes.inc_by(bytes);
    }

    /// All of it is handed over.
    pub(crate) fn complete(&self) {
        self.entry.ends(End::Completed);
    }

    /// The server ends it before its end.
    pub(crate) fn cut(&self, reason: &str) {
        self.entry.cut(reason);
    }

    /// Its request is refused after all.
    pub(crate) fn refuse(&self) {
        self.entry.ends(End::Refused);
    }
}

impl Drop for RunningStream {
    fn drop(&mut self) {
        lock(&self.streams).remove(&self.number);
        self.entry.end();
    }
}

/// Tells that a batch is made.
pub(crate) struct Maker {
    number: u64,
    entry: Arc<Entry>,
}

impl Maker {
    /// It is made.
    pub(crate) fn made(&self) {
        self.entry.counted(|state, now| state.waits.made(self.number, now));
    }
}

impl Entry {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Looks at the state or changes it, when all waits up to now are counted.
    fn counted<T>(&self, act: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.state();
        // Under the lock, so that time does not run backwards.
        let now = Instant::now();
        let before = state.waits.total();
        state.waits.count(now);
        let after = state.waits.total();
        for (counter, time) in [
            (&self.client_wait_seconds, after.client - before.client),
            (&self.backpressure_seconds, after.server - before.server),
        ] {
            if !time.is_zero() {
                counter.inc_by(time.as_secs_f64());
            }
        }
        act(&mut state, now)
    }

    /// The network has taken the last batch.
    fn asked(&self, state: &State, now: Instant) {
        self.metrics.stage(Stage::Send).observe((now - state.handed).as_secs_f64());
    }

    /// Sets how it ends, unless that is known.
    fn ends(&self, end: End) {
        let mut state = self.state();
        if let End::Open = state.end {
            state.end = end;
        }
    }

    fn cut(&self, reason: &str) {
        self.ends(End::Cut(reason.to_owned()));
    }

    /// Counts and logs it, once.
    fn end(&self) {
        let (end, waited, sent, rows) = self.counted(|state, _| {
            let end = std::mem::replace(&mut state.end, End::Over);
            (end, state.waits.total(), state.waits.taken(), state.rows)
        });
        let (outcome, reason) = match end {
            End::Over | End::Refused => return,
            End::Completed => (Outcome::Completed, None),
            End::Cut(reason) => (Outcome::Cut, Some(reason)),
            End::Open if self.about.pace.as_ref().is_some_and(|pace| pace.has_stalled()) => {
                (Outcome::Cut, Some(STALLED.to_owned()))
            }
            End::Open => (Outcome::Left, None),
        };
        if !self.about.is_stream() {
            let About { request_id, peer, dataset, .. } = &self.about;
            let outcome = outcome.name();
            return tracing::debug!(outcome, client = %peer, request = &**request_id, dataset, "schema sent");
        }
        self.metrics.end_stream(&self.about.dataset, outcome);
        let bytes = self.bytes.load(Ordering::Relaxed);
        let About { request_id, trace, peer, token, dataset, schedule, .. } = &self.about;
        tracing::info!(
            outcome = outcome.name(),
            reason = reason.as_deref(),
            client = %peer,
            request = &**request_id,
            trace = trace.id(),
            token = token.as_deref(),
            dataset,
            split = self.about.split.name(),
            schedule,
            epoch = self.about.epoch,
            shard = self.about.shard(),
            batches_sent = sent,
            batches = self.about.batches,
            rows,
            bytes,
            seconds = rounded(self.begun.elapsed()),
            client_wait_seconds = rounded(waited.client),
            backpressure_seconds = rounded(waited.server),
            "stream ended"
        );
        let about = &self.about;
        trace.tell("pba.dataset", || about.dataset.clone());
        trace.tell("pba.split", || about.split.name());
        trace.tell("pba.schedule", || about.schedule.clone());
        trace.tell("pba.epoch", || i64::from(about.epoch));
        trace.tell("pba.shard", || about.shard());
        trace.tell("pba.outcome", || outcome.name());
        trace.tell("pba.batches", || about.batches as i64);
        trace.tell("pba.batches_sent", || sent as i64);
        trace.tell("pba.rows", || rows as i64);
        trace.tell("pba.bytes", || bytes as i64);
        trace.tell("pba.client_wait_seconds", || rounded(waited.client));
        trace.tell("pba.backpressure_seconds", || rounded(waited.server));
        if let Some(reason) = reason {
            trace.fail(reason);
        }
    }

    fn describe(&self) -> Stream {
        let (waited, recent, sent, rows) = self
            .counted(|state, _| (state.waits.total(), state.waits.recent(), state.waits.taken(), state.rows));
        let about = &self.about;
        Stream {
            id: self.number,
            request_id: about.request_id.to_string(),
            client: about.peer.to_string(),
            token: about.token.as_deref().map(str::to_owned),
            user_agent: about.user_agent.clone(),
            transport: about.transport,
            dataset: about.dataset.clone(),
            split: about.split,
            schedule: about.schedule.clone(),
            epoch: about.epoch,
            epochs: about.epochs,
            shard: about.shard(),
            batch_size: about.batch_size,
            batches: about.batches,
            batches_sent: sent,
            rows: about.rows,
            rows_sent: rows,
            bytes_sent: self.bytes.load(Ordering::Relaxed),
            seconds: self.begun.elapsed().as_secs_f64(),
            images_per_second: recent.images_per_second,
            client_wait_ratio: recent.client,
            backpressure_ratio: recent.server,
            client_wait_seconds: waited.client.as_secs_f64(),
            backpressure_seconds: waited.server.as_secs_f64(),
            waits: recent.who(),
        }
    }
}

impl About {
    /// Whether it has batches. One without only asks for the schema, as clients do that need its metadata.
    fn is_stream(&self) -> bool {
        self.batches > 0
    }

    fn shard(&self) -> String {
        format!("{}/{}", self.shard.0, self.shard.1)
    }
}

/// Seconds, to the millisecond.
fn rounded(time: Duration) -> f64 {
    time.as_millis() as f64 / 1e3
}
