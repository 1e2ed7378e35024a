//! Networks that share the cores of a CPU.

use pba_augment::Scratch;

use crate::cpu::cores::over_cores;
use crate::data::{Batch, ScoreSet};
use crate::members::{self, EpochWork, Train};
use crate::network::net::Net;
use crate::signals;

/// A thread per core. Each takes the next network and trains its members' epochs, rendering the
/// batches as it goes: on a CPU that is a small part of the work.
pub(super) struct OnCores;

impl Train for OnCores {
    fn train(&mut self, nets: &mut [Net], work: &EpochWork<'_>) -> anyhow::Result<()> {
        over_cores(nets.iter_mut().zip(&work.epochs).collect(), |(net, epochs)| {
            let mut scratch = Scratch::new();
            for (step, &lr) in work.rates.iter().enumerate() {
                signals::check()?;
                let batch = Batch::render(epochs, step, &mut scratch);
                net.set_lr(lr);
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
