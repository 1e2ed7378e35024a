//! Networks that take turns on a GPU, their operators called one by one.

use crate::data::Epoch;
use crate::gpu::feed::feed;
use crate::members::Members;
use crate::network::net::Net;
use crate::report::Meter;

/// Each network trains its epoch in one go.
pub(super) struct Eager {
    nets: Vec<Net>,
}

impl Eager {
    pub(super) fn new(nets: Vec<Net>) -> Eager {
        Eager { nets }
    }
}

impl Members for Eager {
    fn nets(&self) -> &[Net] {
        &self.nets
    }

    fn nets_mut(&mut self) -> &mut [Net] {
        &mut self.nets
    }

    fn train_epoch(&mut self, epochs: &[Epoch<'_>], rates: &[f64], meter: &Meter) -> anyhow::Result<()> {
        let (nets, steps) = (&mut self.nets, rates.len());
        let epochs: Vec<&[Epoch<'_>]> = epochs.chunks(epochs.len() / nets.len()).collect();
        let order = |item| (item / steps, item % steps);
        feed(&epochs, steps, order, |position, step, batch| {
            let net = &mut nets[position];
            let batch = batch.to_device(net.device());
            net.set_lr(rates[step]);
            net.step(&batch.images, &batch.labels);
            meter.trained(batch.labels.numel());
            Ok(())
        })
    }
}
