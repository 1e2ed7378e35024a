//! CUDA graphs: a step, or a scoring, of a member is recorded once and replayed by one call. The members share
//! some streams.

use tch::{Device, Kind, Tensor};

use crate::data::{Batch, ScoreSet};
use crate::gpu::prefetch::feed;
use crate::gpu::shim::{self, Graph};
use crate::gpu::stream::{Event, Stream};
use crate::members::{EpochWork, Train, shares};
use crate::network::net::Net;
use crate::{signals, torch};

/// Steps that run before the capture, so that cuDNN has chosen its kernels and libtorch holds its
/// workspaces. They are undone.
const WARM_UP_STEPS: usize = 3;

/// The members take turns step by step, so that their streams overlap.
pub(super) struct Graphs {
    streams_max: usize,
    /// What the members' work is queued on, by turns.
    streams: Vec<Stream>,
    /// What their batches are copied on.
    copies: Option<Stream>,
    /// A step for each network, captured when it is first needed; likewise below.
    steps: Vec<GraphedStep>,
    scorings: Vec<GraphedScoring>,
}

impl Graphs {
    pub(super) fn new(streams_max: usize) -> Graphs {
        let (streams, copies, steps, scorings) = (Vec::new(), None, Vec::new(), Vec::new());
        Graphs { streams_max, streams, copies, steps, scorings }
    }

    /// Makes the streams, once.
    fn prepare(&mut self, nets: &[Net]) -> anyhow::Result<Stream> {
        let Device::Cuda(device) = nets[0].device() else { unreachable!("graphs are a strategy of GPUs") };
        shim::use_device(device)?;
        while self.streams.len() < self.streams_max.min(nets.len()) {
            self.streams.push(Stream::new(device)?);
        }
        if self.copies.is_none() {
            self.copies = Some(Stream::new(device)?);
        }
        Ok(self.copies.expect("it was made above"))
    }

    /// Makes the current stream wait for all.
    fn join(&self) -> anyhow::Result<()> {
        self.streams.iter().try_for_each(|stream| stream.join())
    }
}

impl Train for Graphs {
    fn train(&mut self, nets: &mut [Net], work: &EpochWork<'_>) -> anyhow::Result<()> {
        let copies = self.prepare(nets)?;
        let (streams, steps, count) = (&self.streams, &mut self.steps, nets.len());
        feed(
            work,
            nets[0].device(),
            |item| (item % count, item / count),
            |position, step, batch| {
                let net = &mut nets[position];
                if steps.len() <= position {
                    // The graphs of one stream follow one another, so they share their memory.
                    let beside = position.checked_sub(streams.len()).map(|beside| &steps[beside].graph);
                    let captured =
                        GraphedStep::capture(net, batch, streams[position % streams.len()], beside)?;
                    steps.push(captured);
                }
                steps[position].step(net, batch, work.rates[step], copies)
            },
        )?;
        self.join()
    }

    fn scores(&mut self, nets: &mut [Net], set: &ScoreSet) -> anyhow::Result<Vec<Vec<f64>>> {
        self.prepare(nets)?;
        for (position, net) in nets.iter_mut().enumerate() {
            signals::check()?;
            let stream = self.streams[position % self.streams.len()];
            if self.scorings.len() <= position {
                let beside = position.checked_sub(self.streams.len());
                let beside = beside.map(|beside| &self.scorings[beside].graph);
                let beside = beside.or(self.steps.get(position).map(|step| &step.graph));
                self.scorings.push(GraphedScoring::capture(net, set, stream, beside)?);
            }
            stream.run(|| self.scorings[position].graph.replay())?;
        }
        self.join()?;
        nets.iter().zip(&self.scorings).map(|(net, scoring)| shares(net, set, &scoring.correct)).collect()
    }
}

/// The step of one network, ready to replay.
struct GraphedStep {
    stream: Stream,
    graph: Graph,
    /// What the graph reads; every batch is copied into it.
    input: Batch,
    /// The end of the last step, and of the last copy.
    done: Event,
    copied: Event,
}

impl GraphedStep {
    /// Records the step of `net` on batches like `batch`.
    fn capture(
        net: &mut Net,
        batch: &Batch,
        stream: Stream,
        beside: Option<&Graph>,
    ) -> anyhow::Result<GraphedStep> {
        let batch = batch.to_device(net.device());
        let input = batch.copy();
        let before = net.rows();
        net.set_lr(0.0);
        net.set_shakes(&batch.shakes);
        stream.run(|| {
            (0..WARM_UP_STEPS).for_each(|_| net.step(&input.images, &input.labels));
            Ok(())
        })?;
        stream.join()?;
        let graph = stream.run(|| Graph::capture(beside, || net.step(&input.images, &input.labels)))?;
        stream.join()?;
        net.set_rows(&before);
        net.take_loss_sums();
        Ok(GraphedStep { stream, graph, input, done: Event::new()?, copied: Event::new()? })
    }

    /// One step of `net`, beside the other streams. The batch is copied as soon as the last step, which reads
    /// what it overwrites, is done.
    fn step(&mut self, net: &mut Net, batch: &Batch, lr: f64, copies: Stream) -> anyhow::Result<()> {
        self.done.block(copies)?;
        copies.run(|| {
            torch::copy_async(&mut self.input.images, &batch.images)?;
            torch::copy_async(&mut self.input.labels, &batch.labels)
        })?;
        self.copied.record(copies)?;
        self.copied.block(self.stream)?;
        self.stream.run(|| {
            net.set_lr(lr);
            net.set_shakes(&batch.shakes);
            self.graph.replay()
        })?;
        self.done.record(self.stream)
    }
}

/// The scoring of one network on the images of a run, ready to replay.
struct GraphedScoring {
    graph: Graph,
    /// How many of the images each member gets right: int64 `[members]`.
    correct: Tensor,
}

impl GraphedScoring {
    /// Records the scoring of `net` on `set`, which must outlive it, with every batch normalisation that can be
    /// folded into a convolution.
    fn capture(
        net: &mut Net,
        set: &ScoreSet,
        stream: Stream,
        beside: Option<&Graph>,
    ) -> anyhow::Result<GraphedScoring> {
        // Outside of the graph's memory, which other graphs may use.
        let mut correct = Tensor::zeros([net.members()], (Kind::Int64, net.device()));
        let mut score = |batches: &[&Batch]| {
            net.fold();
            let all: Vec<Tensor> =
                batches.iter().map(|batch| net.correct_folded(&batch.images, &batch.labels)).collect();
            correct.copy_(&Tensor::stack(&all, 0).sum_dim_intlist(0, false, Kind::Int64));
        };
        // The last batch may be smaller than the others.
        let all: Vec<&Batch> = set.batches.iter().collect();
        let ends: Vec<&Batch> = set.batches.first().into_iter().chain(set.batches.last()).collect();
        stream.run(|| {
            score(&ends);
            Ok(())
        })?;
        stream.join()?;
        let graph = stream.run(|| Graph::capture(beside, || score(&all)))?;
        stream.join()?;
        Ok(GraphedScoring { graph, correct })
    }
}
