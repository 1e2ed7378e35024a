//! Members trained on a CPU: networks that share its cores.

use std::sync::Mutex;
use std::thread;

use pba_augment::Scratch;
use pba_search::Strategy;

use crate::data::{Batch, ScoreSet};
use crate::members::{self, EpochWork, Train, Way};
use crate::network::net::Net;
use crate::{signals, torch};

/// What the strategies are on a CPU; the first is what `auto` means.
pub(crate) const WAYS: &[Way] = &[
    Way { strategy: Strategy::Sequential, is_stacked: false, train: |_| Box::new(OnCores) },
    Way { strategy: Strategy::Stacked, is_stacked: true, train: |_| Box::new(OnCores) },
];

/// CPU threads to work with.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A thread per core. Each takes the next network and trains its members' epochs, rendering the
/// batches as it goes: on a CPU that is a small part of the work.
struct OnCores;

impl Train for OnCores {
    fn train(&mut self, nets: &mut [Net], work: &EpochWork<'_>) -> anyhow::Result<()> {
        over_cores(nets.iter_mut().zip(&work.epochs).collect(), |(net, epochs)| {
            let mut scratch = Scratch::new();
            for (step, &lr) in work.rates.iter().enumerate() {
                signals::check()?;
                let batch = Batch::render(epochs, step, &mut scratch)?;
                net.set_lr(lr);
                net.set_shakes(&batch.shakes);
                net.step(&batch.images, &batch.labels);
                work.meter.trained(batch.labels.numel());
            }
            Ok(())
        })?;
        Ok(())
    }

    fn scores(&mut self, nets: &mut [Net], set: &ScoreSet) -> anyhow::Result<Vec<Vec<f64>>> {
        let work = nets.iter_mut().map(|net| (net, set.handle())).collect();
        over_cores(work, |(net, set)| members::scores(net, &set))
    }
}

/// Does all the work, each item on one core, and returns the results in the order of the items.
fn over_cores<W: Send, R: Send>(
    work: Vec<W>,
    body: impl Fn(W) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let threads = threads().min(work.len());
    let mut results: Vec<Option<R>> = work.iter().map(|_| None).collect();
    let queue = Mutex::new(work.into_iter().zip(&mut results));
    thread::scope(|scope| {
        let worker = || -> anyhow::Result<()> {
            tch::set_num_threads(1);
            torch::backward_on_caller()?;
            loop {
                let next = queue.lock().expect("no worker panics while it takes work").next();
                let Some((item, result)) = next else { return Ok(()) };
                *result = Some(body(item)?);
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    drop(queue);
    Ok(results.into_iter().flatten().collect())
}
