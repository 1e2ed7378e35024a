//! Networks that take turns on a GPU, their operators called one by one.

use crate::data::Epoch;
use crate::gpu::feed::feed;
use crate::members::Train;
use crate::network::net::Net;
use crate::report::Meter;

/// Each network trains its epoch in one go.
pub(super) struct Eager;

impl Train for Eager {
    fn train(
        &mut self,
        nets: &mut [Net],
        epochs: &[&[Epoch<'_>]],
        rates: &[f64],
        meter: &Meter,
    ) -> anyhow::Result<()> {
        let steps = rates.len();
        feed(
            epochs,
            steps,
            |item| (item / steps, item % steps),
            |position, step, batch| {
                let net = &mut nets[position];
                let batch = batch.to_device(net.device());
                net.set_lr(rates[step]);
                net.step(&batch.images, &batch.labels);
                meter.trained(batch.labels.numel());
                Ok(())
            },
        )
    }
}
