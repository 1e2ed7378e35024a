//! What a population asks of its members, however they train.

use std::sync::Arc;

use pba_datasets::Normalization;
use tch::{Device, Tensor};

use crate::data::{Epoch, ScoreSet};
use crate::network::model::Model;
use crate::network::net::Net;
use crate::network::rows::Rows;
use crate::report::Meter;
use crate::signals;

/// The members of a search on a device. There is a kind of them for each way to train: those on a
/// CPU in `cpu/`, those on a GPU in `gpu/`.
///
/// Every kind gives the same result, up to rounding, and repeats its own exactly.
pub(crate) trait Members {
    /// Networks of as many members each, in the order of the members.
    fn nets(&self) -> &[Net];

    /// As [`Members::nets`].
    fn nets_mut(&mut self) -> &mut [Net];

    /// Trains every member through its epoch, with a learning rate for each step.
    ///
    /// # Errors
    /// [`signals::Interrupted`] when told to stop; others when the device fails.
    fn train_epoch(&mut self, epochs: &[Epoch<'_>], rates: &[f64], meter: &Meter) -> anyhow::Result<()>;

    /// Accuracy of every member, 0..1; NaN for one that diverged.
    ///
    /// # Errors
    /// As [`Members::train_epoch`].
    fn scores(&mut self, set: &ScoreSet) -> anyhow::Result<Vec<f64>> {
        let scores: Vec<_> =
            self.nets_mut().iter_mut().map(|net| scores(net, set)).collect::<Result<_, _>>()?;
        Ok(scores.concat())
    }

    /// A copy of what the members are now, on the device.
    fn snapshot(&self) -> Rows {
        Rows::cat(&self.nets().iter().map(Net::rows).collect::<Vec<_>>())
    }

    /// Makes the members what the rows say.
    fn restore(&mut self, rows: &Rows) {
        let mut first = 0;
        for net in self.nets_mut() {
            net.set_rows(&rows.narrow(first, net.members()));
            first += net.members();
        }
    }

    /// Makes member `to` what member `from` is.
    fn copy(&mut self, from: u32, to: u32) {
        let nets = self.nets_mut();
        let per_net = nets[0].members();
        let place = |member: u32| (i64::from(member) / per_net, i64::from(member) % per_net);
        let ((from_net, from_row), (to_net, to_row)) = (place(from), place(to));
        let donor = nets[from_net as usize].rows().narrow(from_row, 1);
        let target = &mut nets[to_net as usize];
        let mut rows = target.rows();
        rows.set(to_row, &donor);
        target.set_rows(&rows);
    }

    /// Each member's loss summed over the steps since the last call.
    fn take_loss_sums(&mut self) -> Vec<f32> {
        self.nets_mut().iter_mut().flat_map(Net::take_loss_sums).collect()
    }
}

/// What members are made of.
pub(crate) struct Blueprint<'a> {
    pub(crate) model: &'a Arc<Model>,
    pub(crate) members: u32,
    pub(crate) normalization: Normalization,
    pub(crate) weight_decay: f64,
    pub(crate) device: Device,
}

/// Makes members of one kind, without weights: [`Members::restore`] gives them.
pub(crate) type MakeMembers = fn(&Blueprint<'_>) -> Box<dyn Members>;

impl Blueprint<'_> {
    /// A network for each member.
    pub(crate) fn one_net_each(&self) -> Vec<Net> {
        (0..self.members).map(|_| self.net(1)).collect()
    }

    /// One network of all members.
    pub(crate) fn one_net(&self) -> Vec<Net> {
        vec![self.net(self.members.into())]
    }

    fn net(&self, members: i64) -> Net {
        Net::new(self.model, members, self.normalization, self.weight_decay, self.device)
    }
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
