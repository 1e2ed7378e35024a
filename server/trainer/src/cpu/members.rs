//! Networks that share the cores of a CPU.

use pba_augment::Scratch;

use crate::cpu::cores::over_cores;
use crate::data::{Batch, Epoch, ScoreSet};
use crate::members::{self, Members};
use crate::network::net::Net;
use crate::report::Meter;
use crate::signals;

/// A thread per core. Each takes the next network and trains its members' epochs, rendering the
/// batches as it goes: on a CPU that is a small part of the work.
pub(super) struct OnCores {
    nets: Vec<Net>,
}

impl OnCores {
    pub(super) fn new(nets: Vec<Net>) -> OnCores {
        OnCores { nets }
    }
}

impl Members for OnCores {
    fn nets(&self) -> &[Net] {
        &self.nets
    }

    fn nets_mut(&mut self) -> &mut [Net] {
        &mut self.nets
    }

    fn train_epoch(&mut self, epochs: &[Epoch<'_>], rates: &[f64], meter: &Meter) -> anyhow::Result<()> {
        let per_net = epochs.len() / self.nets.len();
        over_cores(self.nets.iter_mut().zip(epochs.chunks(per_net)).collect(), |(net, epochs)| {
            let mut scratch = Scratch::new();
            for (step, &lr) in rates.iter().enumerate() {
                signals::check()?;
                let batch = Batch::render(epochs, step, &mut scratch);
                net.set_lr(lr);
                net.step(&batch.images, &batch.labels);
                meter.trained(batch.labels.numel());
            }
            Ok(())
        })?;
        Ok(())
    }

    fn scores(&mut self, set: &ScoreSet) -> anyhow::Result<Vec<f64>> {
        let work = self.nets.iter_mut().map(|net| (net, set.handle())).collect();
        Ok(over_cores(work, |(net, set)| members::scores(net, &set))?.concat())
    }
}
