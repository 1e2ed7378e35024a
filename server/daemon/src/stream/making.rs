//! A batch in the making: rendered in parts by whichever workers are free, each part into its own piece of
//! one buffer.
//!
//! ```text
//! body of the message    | rows 0..256 | rows 256..512 | ... | labels | indices |
//! written by               part 0        part 1                the last part, from what each has found
//! ```
//!
//! How a batch is cut into parts, and who renders them in which order, changes no byte of it: each sample is
//! rendered by itself.

use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::metrics::Stage;
use crate::stream::buffers::Divisible;
use crate::stream::encode::Layout;
use crate::stream::epoch::Epoch;
use crate::stream::pieces::Pieces;
use crate::stream::work::Work;
use crate::stream::workspace::Workspace;
use crate::sync::lock;

/// Where a batch is written, and what becomes of it there.
pub(crate) trait Output: Send + 'static {
    type Body: Divisible + AsMut<[u8]>;
    type Batch: Send + 'static;

    /// Memory of the length of the batch's body, of unspecified content.
    fn open(&mut self, epoch: &Epoch, len: usize) -> Self::Body;

    /// The batch, from its complete body.
    ///
    /// # Errors
    /// When it cannot be encoded.
    fn complete(
        self,
        epoch: &Epoch,
        n: u64,
        layout: &Layout,
        body: Self::Body,
    ) -> anyhow::Result<Self::Batch>;
}

/// The n-th batch of an answer, as work for the pool.
pub(crate) struct Making<O: Output> {
    epoch: Arc<Epoch>,
    n: u64,
    layout: Layout,
    /// Rows of each part but perhaps the last.
    rows_of_part: usize,
    state: Mutex<State<O>>,
}

struct State<O: Output> {
    /// Taken when the batch is complete.
    output: Option<O>,
    /// The images of each part, and what comes after them; none before the first part begins.
    pieces: Option<Pieces<O::Body>>,
    /// Index and label of each row.
    rows: Vec<(u64, i64)>,
    /// Time that all parts took.
    time: Duration,
    /// The part of it that decoded images, if they are encoded.
    decoding: Option<Duration>,
}

impl<O: Output> Making<O> {
    /// The n-th batch, in parts of [`Epoch::images_of_part`].
    pub(crate) fn new(epoch: Arc<Epoch>, n: u64, output: O) -> Making<O> {
        let rows_of_part = epoch.images_of_part(epoch.plan.len_of(n));
        Making::in_parts(epoch, n, output, rows_of_part)
    }

    fn in_parts(epoch: Arc<Epoch>, n: u64, output: O, rows_of_part: usize) -> Making<O> {
        let state = State {
            output: Some(output),
            pieces: None,
            rows: Vec::new(),
            time: Duration::ZERO,
            decoding: None,
        };
        Making { layout: epoch.layout(n), epoch, n, rows_of_part, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State<O>> {
        // A panic ends the work; nothing of it is used again.
        lock(&self.state)
    }

    fn rows(&self) -> usize {
        self.epoch.plan.len_of(self.n)
    }

    /// Rows of a part.
    fn rows_of(&self, part: usize) -> Range<usize> {
        let first = part * self.rows_of_part;
        first..(first + self.rows_of_part).min(self.rows())
    }

    /// The piece of a part, which its worker now owns.
    fn take_images(&self, part: usize) -> O::Body {
        let mut state = self.state();
        if state.pieces.is_none() {
            let output = state.output.as_mut().expect("it is there until the batch is complete");
            let body = output.open(&self.epoch, self.layout.len);
            let bytes = self.rows_of_part * self.epoch.recipe.shape().rgb_bytes();
            state.pieces = Some(Pieces::cut(body, self.layout.image.end, bytes, self.parts()));
            state.rows = vec![(0, 0); self.rows()];
        }
        state.pieces.as_mut().expect("they were cut above").take(part)
    }

    fn render(&self, part: usize, workspace: &mut Workspace) -> anyhow::Result<()> {
        let mut images = self.take_images(part);
        let start = Instant::now();
        let range = self.rows_of(part);
        // Finding a shuffled sample takes as long as copying some of its rows, so it is done once.
        let indices: Vec<u64> = self.epoch.plan.indices_of(self.n, range.clone()).collect();
        let rendered = self.epoch.render(&indices, images.as_mut(), workspace)?;
        let time = start.elapsed();

        let metrics = &self.epoch.engine.metrics;
        metrics.count_ops(rendered.ops.iter());
        let mut state = self.state();
        if let Some(decoding) = rendered.decoded {
            metrics.decoded_cache_hits.inc_by(decoding.hits);
            metrics.decoded_cache_misses.inc_by(decoding.misses);
            *state.decoding.get_or_insert_default() += decoding.time;
        }
        state.pieces.as_mut().expect("this is one of them").put(part, images);
        for (row, found) in state.rows[range].iter_mut().zip(indices.into_iter().zip(rendered.labels)) {
            *row = found;
        }
        state.time += time;
        Ok(())
    }

    /// What is left to do when all parts are done: every byte of the body is written then.
    fn complete(&self) -> anyhow::Result<O::Batch> {
        let Layout { image, label, index, .. } = &self.layout;
        let (output, mut body) = {
            let mut state = self.state();
            let mut pieces = state.pieces.take().expect("the parts have begun");
            let bytes = pieces.rest().as_mut();
            let at = |range: &Range<usize>| range.start - image.end..range.end - image.end;
            let (labels, _) = bytes[at(label)].as_chunks_mut();
            for (value, (_, label)) in labels.iter_mut().zip(&state.rows) {
                *value = label.to_le_bytes();
            }
            let (indices, _) = bytes[at(index)].as_chunks_mut();
            for (value, (index, _)) in indices.iter_mut().zip(&state.rows) {
                *value = index.to_le_bytes();
            }
            let metrics = &self.epoch.engine.metrics;
            metrics.stage(Stage::Augment).observe(state.time.as_secs_f64());
            if let Some(decoding) = state.decoding {
                metrics.stage(Stage::Decode).observe(decoding.as_secs_f64());
            }
            (state.output.take().expect("a batch is completed once"), pieces.join())
        };
        // What lies between the columns is sent too, so it must not depend on the buffer's past.
        let bytes = body.as_mut();
        for gap in [image.end..label.start, label.end..index.start, index.end..self.layout.len] {
            bytes[gap].fill(0);
        }
        let metrics = &self.epoch.engine.metrics;
        let dataset = self.epoch.dataset.as_str();
        metrics.images_augmented.with_label_values(&[dataset]).inc_by(self.rows() as u64);
        // The batch is complete: what is to be said of its bytes is said from here on.
        let start = Instant::now();
        let batch = output.complete(&self.epoch, self.n, &self.layout, body);
        metrics.stage(Stage::Encode).observe(start.elapsed().as_secs_f64());
        batch
    }
}

impl<O: Output> Work for Making<O> {
    type Output = anyhow::Result<O::Batch>;

    fn parts(&self) -> usize {
        self.rows().div_ceil(self.rows_of_part)
    }

    fn run(&self, part: usize, workspace: &mut Workspace) -> ControlFlow<Self::Output> {
        match self.render(part, workspace) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Err(error)),
        }
    }

    fn finish(&self, _: &mut Workspace) -> Self::Output {
        self.complete()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use bytes::BytesMut;
    use pba_wire::{EpochRequest, Query};

    use super::*;
    use crate::catalog::datasets::Catalog;
    use crate::catalog::schedules::{Bounds, Registry};
    use crate::config::{Config, ServeArgs};
    use crate::data_lock::DataLock;
    use crate::metrics::Metrics;
    use crate::stream::client::Client;
    use crate::stream::engine::Engine;
    use crate::stream::pool::Pool;
    use crate::stream::queue::Owner;
    use crate::stream::resolve::Resolver;

    /// Bytes of a buffer that held something else before.
    struct Whole(u8);

    impl Output for Whole {
        type Body = BytesMut;
        type Batch = BytesMut;

        fn open(&mut self, _: &Epoch, len: usize) -> BytesMut {
            BytesMut::from_iter(std::iter::repeat_n(self.0, len))
        }

        fn complete(self, _: &Epoch, _: u64, _: &Layout, body: BytesMut) -> anyhow::Result<BytesMut> {
            Ok(body)
        }
    }

    /// Every batch of some requests, cut in every way, by any number of workers.
    #[tokio::test]
    async fn however_a_batch_is_cut_and_whoever_makes_it() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::new().unwrap();
        let catalog = Catalog::new(&folder.path().join("datasets"), true, metrics.clone());
        catalog.import(&|_, _| ControlFlow::Continue(()));
        std::fs::create_dir(folder.path().join("schedules")).unwrap();
        let bounds = Bounds { count: 0, bytes: 0, bytes_total: 0 };
        let lock = DataLock::of_test(folder.path());
        let registry = Registry::open(&folder.path().join("schedules"), &lock, bounds).unwrap();
        let limits = Config::resolve(&ServeArgs::default()).unwrap().limits;
        let engine = Arc::new(Engine::start(limits, metrics.clone()).unwrap());
        let resolver = Resolver { catalog: &catalog, registry: &registry, engine: &engine };
        let pools: Vec<_> = [1, 2, 5].map(|threads| Pool::start(threads, metrics.clone()).unwrap()).into();
        let owner = Owner { client: Client::at(Ipv4Addr::LOCALHOST.into()), stream: 0 };
        for query in [
            "split=test&shuffle=true&schedule=cifar10-pba&batch_size=300&shard=1/3",
            "split=test&base=random_resized_crop:20,flip&batch_size=700&shard=0/2&schedule=trivial-augment-wide",
        ] {
            let request = EpochRequest::from_query(query).unwrap();
            let epoch = Arc::new(resolver.resolve("shapes", 150, &request, None).unwrap());
            for n in 0..epoch.plan.batches() {
                let rows = epoch.plan.len_of(n);
                let make = |pool: &Pool, rows_of_part: usize, past: u8| {
                    let making = Making::in_parts(Arc::clone(&epoch), n, Whole(past), rows_of_part);
                    pool.start_work(owner, making)
                };
                let whole = make(&pools[0], rows, 0).await.unwrap().unwrap();
                let mut answers =
                    vec![pools[0].start_work(owner, Making::new(Arc::clone(&epoch), n, Whole(1)))];
                for (past, rows_of_part) in [1, 2, 7, rows / 2, rows - 1, rows].into_iter().enumerate() {
                    answers.extend(pools.iter().map(|pool| make(pool, rows_of_part, 2 + past as u8)));
                }
                for (number, answer) in answers.into_iter().enumerate() {
                    let batch = answer.await.unwrap().unwrap();
                    assert!(batch == whole, "{query}: batch {n}, way {number}");
                }
            }
        }
    }
}
