//! Batches for a GPU, rendered ahead of it.

use pba_augment::Scratch;

use crate::cpu::cores::threads;
use crate::data::Batch;
use crate::gpu::prefetch;
use crate::members::EpochWork;
use crate::signals;

/// Gives `train` every batch, as (net, step, batch), in the order that `order` says: a function
/// from 0, 1 ... to (net, step). `train` runs on the calling thread, which feeds the GPU; the other
/// cores render ahead of it.
///
/// # Errors
/// [`signals::Interrupted`] when told to stop; else the first of `train`.
pub(super) fn feed(
    work: &EpochWork<'_>,
    order: impl Fn(usize) -> (usize, usize) + Sync,
    mut train: impl FnMut(usize, usize, &Batch) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let EpochWork { epochs, rates, meter } = work;
    let state = || {
        tch::set_num_threads(1);
        Scratch::new()
    };
    let render = |scratch: &mut Scratch, item| {
        let (net, step) = order(item);
        Batch::render(epochs[net], step, scratch)
    };
    prefetch::in_order(epochs.len() * rates.len(), threads() - 1, state, render, |item, batch| {
        signals::check()?;
        let (net, step) = order(item);
        train(net, step, &batch)?;
        meter.trained(batch.labels.numel());
        Ok(())
    })
}
