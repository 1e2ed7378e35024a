//! Networks that take turns on a GPU, their operators called one by one.

use crate::gpu::prefetch::feed;
use crate::members::{EpochWork, Train};
use crate::network::net::Net;

/// Each network trains its epoch in one go.
pub(super) struct Eager;

impl Train for Eager {
    fn train(&mut self, nets: &mut [Net], work: &EpochWork<'_>) -> anyhow::Result<()> {
        let steps = work.rates.len();
        feed(
            work,
            nets[0].device(),
            |item| (item / steps, item % steps),
            |position, step, batch| {
                let net = &mut nets[position];
                let batch = batch.to_device(net.device());
                net.set_lr(work.rates[step]);
                net.set_shakes(&batch.shakes);
                net.step(&batch.images, &batch.labels);
                Ok(())
            },
        )
    }
}
