//! A member's step as a CUDA graph on a stream of its own.
//!
//! Not yet run on a GPU.

use crate::cuda::Graph;
use crate::data::Batch;
use crate::native::Stream;
use crate::net::Net;

/// Steps that run before the capture, so that cuDNN has chosen its kernels and libtorch holds its
/// workspaces. They are undone.
const WARM_UP_STEPS: usize = 3;

/// The step of one network, ready to replay.
#[derive(Debug)]
pub(crate) struct GraphedStep {
    stream: Stream,
    graph: Graph,
    /// What the graph reads; every batch is copied into it.
    input: Input,
}

#[derive(Debug)]
struct Input {
    images: tch::Tensor,
    labels: tch::Tensor,
}

impl GraphedStep {
    /// Records the step of `net` on batches like `batch`.
    pub(crate) fn capture(net: &mut Net, batch: &Batch, device: usize) -> anyhow::Result<GraphedStep> {
        let stream = Stream::new(device)?;
        let batch = batch.to_device(tch::Device::Cuda(device));
        let input = Input { images: batch.images.copy(), labels: batch.labels.copy() };
        let before = net.rows();
        net.set_lr(0.0);
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
    pub(crate) fn step(
        &mut self,
        net: &mut Net,
        batch: &Batch,
        lr: f64,
        device: usize,
    ) -> anyhow::Result<()> {
        self.stream.run(|| {
            net.set_lr(lr);
            // Made and used on this stream, so the memory is not reused too early.
            let batch = batch.to_device(tch::Device::Cuda(device));
            self.input.images.copy_(&batch.images);
            self.input.labels.copy_(&batch.labels);
            self.graph.replay()
        })
    }

    /// Lets the current stream wait for the steps so far.
    pub(crate) fn join(&self) -> anyhow::Result<()> {
        self.stream.join()
    }
}
