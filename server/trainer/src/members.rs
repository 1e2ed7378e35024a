//! What a way to train the members of a population is.

use pba_search::Strategy;
use tch::{Kind, Tensor};

use crate::data::{Batch, Epoch, ScoreSet};
use crate::network::net::Net;
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

/// A way to train networks: those for a CPU lie in `cpu.rs`, those for a GPU in `gpu/`.
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

/// What a strategy is on a kind of device: a line of the tables in `cpu.rs` and `gpu/`.
pub(crate) struct Way {
    pub(crate) strategy: Strategy,
    /// Whether all members are in one network.
    pub(crate) is_stacked: bool,
    /// Made for a number of streams, which the way need not have.
    pub(crate) train: fn(usize) -> Box<dyn Train>,
}

/// The scores of the members of a network.
///
/// # Errors
/// [`signals::Interrupted`] when told to stop.
pub(crate) fn scores(net: &mut Net, set: &ScoreSet) -> anyhow::Result<Vec<f64>> {
    let mut correct = Vec::new();
    for Batch { images, labels, .. } in &set.batches {
        signals::check()?;
        correct.push(net.correct(images, labels));
    }
    shares(net, set, &Tensor::stack(&correct, 0).sum_dim_intlist(0, false, Kind::Int64))
}

/// The scores of the members of a network that get `correct` of the images right: int64 `[members]`. Waits for
/// the device.
pub(crate) fn shares(net: &Net, set: &ScoreSet, correct: &Tensor) -> anyhow::Result<Vec<f64>> {
    let score = |(correct, finite): (i64, bool)| match finite {
        true => correct as f64 / set.images as f64,
        false => f64::NAN,
    };
    Ok(Vec::try_from(correct)?.into_iter().zip(net.finite()).map(score).collect())
}
