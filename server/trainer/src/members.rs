//! The members of a population on a device, and what a way to train them is.

use pba_search::Strategy;
use tch::Tensor;

use crate::data::{Epoch, ScoreSet};
use crate::network::net::Net;
use crate::network::rows::Rows;
use crate::report::Meter;
use crate::signals;

/// An epoch to train.
pub(crate) struct EpochWork<'a> {
    /// The epochs of the members of each network.
    pub(crate) epochs: Vec<&'a [Epoch<'a>]>,
    /// The learning rate of each step.
    pub(crate) rates: Vec<f64>,
    pub(crate) meter: &'a Meter,
}

/// A way to train networks: those for a CPU lie in `cpu/`, those for a GPU in `gpu/`.
///
/// All give the same result, up to rounding, and each repeats its own exactly.
pub(crate) trait Train {
    /// Trains every member through its epoch.
    ///
    /// # Errors
    /// [`signals::Interrupted`] when told to stop; others when the device fails.
    fn train(&mut self, nets: &mut [Net], work: &EpochWork<'_>) -> anyhow::Result<()>;

    /// Accuracy of the members of each network, 0..1; NaN for one that diverged.
    ///
    /// # Errors
    /// As [`Train::train`].
    fn scores(&mut self, nets: &mut [Net], set: &ScoreSet) -> anyhow::Result<Vec<Vec<f64>>> {
        nets.iter_mut().map(|net| scores(net, set)).collect()
    }
}

/// The members of a population, in networks of as many each.
pub(crate) struct Members {
    nets: Vec<Net>,
    way: Box<dyn Train>,
}

impl Members {
    /// The members of some networks, in their order.
    pub(crate) fn new(nets: Vec<Net>, way: Box<dyn Train>) -> Members {
        Members { nets, way }
    }

    /// Trains every member through its epoch; errors as [`Train::train`].
    pub(crate) fn train(
        &mut self,
        epochs: &[Epoch<'_>],
        rates: Vec<f64>,
        meter: &Meter,
    ) -> anyhow::Result<()> {
        let epochs = epochs.chunks(epochs.len() / self.nets.len()).collect();
        self.way.train(&mut self.nets, &EpochWork { epochs, rates, meter })
    }

    /// The score of every member; errors as [`Train::scores`].
    pub(crate) fn scores(&mut self, set: &ScoreSet) -> anyhow::Result<Vec<f64>> {
        Ok(self.way.scores(&mut self.nets, set)?.concat())
    }

    /// A copy of what the members are now, on the device.
    pub(crate) fn snapshot(&self) -> Rows {
        Rows::cat(&self.nets.iter().map(Net::rows).collect::<Vec<_>>())
    }

    /// Makes the members what the rows say.
    pub(crate) fn restore(&mut self, rows: &Rows) {
        let mut first = 0;
        for net in &mut self.nets {
            net.set_rows(&rows.narrow(first, net.members()));
            first += net.members();
        }
    }

    /// Makes member `to` what member `from` is.
    pub(crate) fn copy(&mut self, from: u32, to: u32) {
        let per_net = self.nets[0].members();
        let place = |member: u32| ((i64::from(member) / per_net) as usize, i64::from(member) % per_net);
        let ((from_net, from_row), (to_net, to_row)) = (place(from), place(to));
        let donor = self.nets[from_net].rows().narrow(from_row, 1);
        let mut rows = self.nets[to_net].rows();
        rows.set(to_row, &donor);
        self.nets[to_net].set_rows(&rows);
    }

    /// Each member's loss summed over the steps since the last call.
    pub(crate) fn take_loss_sums(&mut self) -> Vec<f32> {
        self.nets.iter_mut().flat_map(Net::take_loss_sums).collect()
    }
}

/// What a strategy is on a kind of device: a line of the tables in `cpu/` and `gpu/`.
pub(crate) struct Way {
    pub(crate) strategy: Strategy,
    /// Whether all members share one network, or have one each.
    pub(crate) is_stacked: bool,
    pub(crate) train: fn() -> Box<dyn Train>,
}

/// The scores of the members of a network.
///
/// # Errors
/// [`signals::Interrupted`] when told to stop.
pub(crate) fn scores(net: &mut Net, set: &ScoreSet) -> anyhow::Result<Vec<f64>> {
    let mut correct: Option<Tensor> = None;
    for (images, labels) in set.batches() {
        signals::check()?;
        let of_batch = net.correct(images, labels);
        correct = Some(correct.map_or_else(|| of_batch.shallow_clone(), |sum| sum + &of_batch));
    }
    let correct: Vec<i64> = correct.map_or(Ok(Vec::new()), Vec::try_from)?;
    let images = set.images() as f64;
    let score = |(correct, finite): (i64, bool)| if finite { correct as f64 / images } else { f64::NAN };
    Ok(correct.into_iter().zip(net.finite()).map(score).collect())
}
