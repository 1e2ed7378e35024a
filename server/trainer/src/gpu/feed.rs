//! Batches for a GPU, rendered ahead of it.

use pba_augment::Scratch;

use crate::cpu::cores::threads;
use crate::data::{Batch, Epoch};
use crate::gpu::prefetch;
use crate::signals;

/// Gives `train` every batch of an epoch of `steps` steps, as (net, step, batch) in the order that
/// `order` says: a function from 0, 1 ... to (net, step). `epochs` are those of each net's members.
///
/// `train` runs on the calling thread, which feeds the GPU; the other cores render ahead of it.
///
/// # Errors
/// [`signals::Interrupted`] when told to stop; else the first of `train`.
pub(super) fn feed(
    epochs: &[&[Epoch<'_>]],
    steps: usize,
    order: impl Fn(usize) -> (usize, usize) + Sync,
    mut train: impl FnMut(usize, usize, &Batch) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    prefetch::in_order(
        epochs.len() * steps,
        threads().saturating_sub(1).max(1),
        || {
            tch::set_num_threads(1);
            Scratch::new()
        },
        |scratch, item| {
            let (net, step) = order(item);
            Batch::render(epochs[net], step, scratch)
        },
        |item, batch| {
            signals::check()?;
            let (net, step) = order(item);
            train(net, step, &batch)
        },
    )
}
