//! Batches for a GPU, rendered ahead of it.

use std::thread;

use crossbeam::channel::bounded;
use pba_augment::Scratch;
use tch::Device;

use crate::cpu::threads;
use crate::data::Batch;
use crate::members::EpochWork;
use crate::signals;

/// Items that a thread has ready before it waits: enough to bridge a short delay, few enough to
/// keep memory small.
const AHEAD_PER_THREAD: usize = 2;

/// Gives `train` every batch, as (net, step, batch), in the order that `order` says: a function
/// from 0, 1 ... to (net, step). `train` runs on the calling thread, which feeds the GPU; the other
/// cores render ahead of it, into memory that `device` can copy from by itself.
///
/// # Errors
/// [`signals::Interrupted`] when told to stop; when an image is damaged; else the first of `train`.
pub(super) fn feed(
    work: &EpochWork<'_>,
    device: Device,
    order: impl Fn(usize) -> (usize, usize) + Sync,
    mut train: impl FnMut(usize, usize, &Batch) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let EpochWork { epochs, rates, meter } = work;
    let renderer = || {
        tch::set_num_threads(1);
        let (mut scratch, order) = (Scratch::new(), &order);
        move |item| {
            let (net, step) = order(item);
            anyhow::Ok(Batch::render(epochs[net], step, &mut scratch)?.pinned(device))
        }
    };
    in_order(epochs.len() * rates.len(), threads() - 1, renderer, |item, batch| {
        signals::check()?;
        let (net, step) = order(item);
        let batch = batch?;
        train(net, step, &batch)?;
        meter.trained(batch.labels.numel());
        Ok(())
    })
}

/// Makes the items `0..count` on `threads` threads, each with a `maker` of its own, and gives them to
/// `take` in order, on the calling thread. Ends early when `take` fails.
///
/// Thread t makes the items t, t + threads, t + 2 threads ..., so no item waits for another
/// thread's.
///
/// # Errors
/// The first of `take`.
fn in_order<T: Send, M: FnMut(usize) -> T, E>(
    count: usize,
    threads: usize,
    maker: impl Fn() -> M + Sync,
    mut take: impl FnMut(usize, T) -> Result<(), E>,
) -> Result<(), E> {
    let threads = threads.max(1);
    thread::scope(|scope| {
        let receivers: Vec<_> = (0..threads)
            .map(|first| {
                let (sender, receiver) = bounded(AHEAD_PER_THREAD);
                let maker = &maker;
                scope.spawn(move || {
                    let mut make = maker();
                    for item in (first..count).step_by(threads) {
                        // The receiver is gone: the rest is not needed.
                        if sender.send(make(item)).is_err() {
                            return;
                        }
                    }
                });
                receiver
            })
            .collect();
        for item in 0..count {
            let made = receivers[item % threads].recv().expect("the thread makes all its items");
            take(item, made)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_for_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            for count in [0, 1, 7, 64] {
                let mut taken = Vec::new();
                let result: Result<(), ()> = in_order(
                    count,
                    threads,
                    || |item| item * item,
                    |item, square| {
                        taken.push((item, square));
                        Ok(())
                    },
                );
                assert_eq!(result, Ok(()));
                assert!(taken.into_iter().eq((0..count).map(|item| (item, item * item))));
            }
        }
    }

    #[test]
    fn a_failure_ends_it() {
        let take = |item, _| if item == 3 { Err(item) } else { Ok(()) };
        assert_eq!(in_order(1000, 2, || |_| (), take), Err(3));
    }
}
