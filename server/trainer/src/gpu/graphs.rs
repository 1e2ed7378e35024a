//! One CUDA graph per member, each on a stream of its own.

use tch::Device;

use crate::data::Batch;
use crate::gpu::prefetch::feed;
use crate::gpu::shim::Graph;
use crate::gpu::stream::Stream;
use crate::members::{EpochWork, Train};
use crate::network::net::Net;

/// Steps that run before the capture, so that cuDNN has chosen its kernels and libtorch holds its
/// workspaces. They are undone.
const WARM_UP_STEPS: usize = 3;

/// The members take turns step by step, so that their streams overlap.
#[derive(Default)]
pub(super) struct Graphs {
    /// A graph for each network, captured at its first step.
    graphs: Vec<GraphedStep>,
}

impl Train for Graphs {
    fn train(&mut self, nets: &mut [Net], work: &EpochWork<'_>) -> anyhow::Result<()> {
        let (graphs, count) = (&mut self.graphs, nets.len());
        feed(
            work,
            |item| (item % count, item / count),
            |position, step, batch| {
                let net = &mut nets[position];
                if graphs.len() <= position {
                    graphs.push(GraphedStep::capture(net, batch)?);
                }
                graphs[position].step(net, batch, work.rates[step])
            },
        )?;
        graphs.iter().try_for_each(|graph| graph.stream.join())
    }
}

/// The step of one network, ready to replay.
struct GraphedStep {
    stream: Stream,
    graph: Graph,
    /// What the graph reads; every batch is copied into it.
    input: Batch,
}

impl GraphedStep {
    /// Records the step of `net` on batches like `batch`.
    fn capture(net: &mut Net, batch: &Batch) -> anyhow::Result<GraphedStep> {
        let Device::Cuda(device) = net.device() else { unreachable!("graphs are a strategy of GPUs") };
        let stream = Stream::new(device)?;
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
        let graph = stream.run(|| Graph::capture(|| net.step(&input.images, &input.labels)))?;
        stream.join()?;
        net.set_rows(&before);
        net.take_loss_sums();
        Ok(GraphedStep { stream, graph, input })
    }

    /// One step of `net`, beside the other streams.
    fn step(&mut self, net: &mut Net, batch: &Batch, lr: f64) -> anyhow::Result<()> {
        self.stream.run(|| {
            net.set_lr(lr);
            // Made and used on this stream, so the memory is not reused too early.
            let batch = batch.to_device(net.device());
            self.input.images.copy_(&batch.images);
            self.input.labels.copy_(&batch.labels);
            net.set_shakes(&batch.shakes);
            self.graph.replay()
        })
    }
}
