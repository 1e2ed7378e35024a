//! A network with its numbers: one member, or several side by side.

use std::cell::Cell;
use std::sync::Arc;

use pba_datasets::Normalization;
use tch::{Device, Kind, Tensor, no_grad};

use crate::network::layers::{BLOCK, Builder, Layout, Pass, blocks_by_member};
use crate::network::model::Model;
use crate::network::optimizer::Sgd;
use crate::network::rows::Rows;

/// Some members on a device.
pub(crate) struct Net {
    model: Arc<Model>,
    /// Matrices of all members, then vectors.
    parameters: Tensor,
    gradient: Tensor,
    momentum: Tensor,
    statistics: Tensor,
    /// The matrices in the type of the computation, where it is not that of the parameters.
    cast: Option<Tensor>,
    /// Views of the buffers.
    pass: Pass,
    statistic_blocks: Tensor,
    sgd: Sgd,
    /// Sum over steps of each member's mean loss.
    loss_sums: Tensor,
    /// The network's input is pixel * scale + shift.
    scale: Tensor,
    shift: Tensor,
}

impl Net {
    /// `members` members, all zeros, on `device`, with the types of the parameters and of the computation.
    pub(crate) fn new(
        model: &Arc<Model>,
        members: i64,
        normalization: Normalization,
        weight_decay: f64,
        device: Device,
        (kind, compute): (Kind, Kind),
    ) -> Net {
        let Builder { matrices, vectors, statistics, .. } = &model.layers;
        let zeros = |len| Tensor::zeros([len], (kind, device));
        let matrices_len = matrices.len * members;
        let parameters = zeros(matrices_len + vectors.len * members);
        let (of_matrices, of_vectors) = split(&parameters, matrices_len);
        let statistics_buffer = zeros(statistics.len * members);
        let cast = (compute != kind).then(|| Tensor::zeros([matrices_len], (compute, device)));
        let leaves = |layout: &Layout, buffer: &Tensor| {
            let views = layout.views(buffer, members).into_iter();
            views.map(|view| view.detach().set_requires_grad(true)).collect()
        };
        let pass = Pass {
            members,
            matrices: leaves(matrices, cast.as_ref().unwrap_or(&of_matrices)),
            vectors: leaves(vectors, &of_vectors),
            statistics: statistics.views(&statistics_buffer, members),
            shakes: Tensor::zeros([0], (compute, device)),
            training: true,
            folded: Vec::new(),
            is_folded: false,
            stem_as_product: false,
            multiply_adds: None,
        };
        let blocks = blocks_by_member(&[matrices, vectors], members);
        let statistic_blocks = blocks_by_member(&[statistics], members);
        let Normalization { mean, std } = normalization;
        let by_channel = |values: [f64; 3]| {
            let values = values.map(|value| value as f32).repeat(members as usize);
            Tensor::from_slice(&values).to_device(device)
        };
        Net {
            gradient: parameters.zeros_like(),
            momentum: parameters.zeros_like(),
            pass,
            statistic_blocks: Tensor::from_slice(&statistic_blocks).to_device(device),
            sgd: Sgd::new(&blocks, members, weight_decay, device),
            loss_sums: zeros(members),
            scale: by_channel(std.map(|std| 1.0 / (255.0 * std))),
            shift: by_channel([0, 1, 2].map(|channel| -mean[channel] / std[channel])),
            model: model.clone(),
            parameters,
            statistics: statistics_buffer,
            cast,
        }
    }

    pub(crate) fn members(&self) -> i64 {
        self.pass.members
    }

    pub(crate) fn device(&self) -> Device {
        self.parameters.device()
    }

    /// Has the convolution of pixels done as a product of matrices: the same up to rounding.
    pub(crate) fn set_stem_as_product(&mut self, is_product: bool) {
        self.pass.stem_as_product = is_product;
    }

    pub(crate) fn set_lr(&mut self, lr: f64) {
        self.sgd.set_lr(lr);
    }

    /// Gives the next step the random weights of its images in the blocks of the network, as
    /// [`Shake::draw`](crate::network::shake::Shake::draw) gives them: `[members, images, blocks, 2]`. In place
    /// after the first call, so that a captured step can be given others.
    pub(crate) fn set_shakes(&mut self, shakes: &Tensor) {
        if self.model.layers.shakes.is_empty() {
            return;
        }
        // From pinned memory, nothing waits for the copy.
        let shakes = shakes.to_device_(self.device(), self.parameters.kind(), true, false);
        let by_block = shakes.permute([2, 3, 1, 0]);
        let (forward, backward) = (by_block.select(1, 0), by_block.select(1, 1));
        let weights = Tensor::stack(&[&backward, &(&forward - &backward)], 1);
        if self.pass.shakes.size() != weights.size() {
            let kind = self.pass.shakes.kind();
            self.pass.shakes = Tensor::zeros(weights.size(), (kind, self.device()));
        }
        self.pass.shakes.copy_(&weights);
    }

    /// One step of SGD for every member.
    ///
    /// `images` are bytes `[members, images, height, width, 3]`, `labels` int64
    /// `[members, images]`. Nothing is read back from the device.
    pub(crate) fn step(&mut self, images: &Tensor, labels: &Tensor) {
        self.refresh_cast();
        let logits = self.logits(images, true);
        let of_label = logits.log_softmax(-1, None::<Kind>).gather(-1, &labels.unsqueeze(-1), false);
        let losses = -of_label.squeeze_dim(-1).mean_dim(1, false, None::<Kind>);
        let views: Vec<&Tensor> = self.pass.matrices.iter().chain(&self.pass.vectors).collect();
        let gradients = Tensor::run_backward(&[losses.sum(None::<Kind>)], &views, false, false);
        no_grad(|| {
            let _ = self.loss_sums.g_add_(&losses.detach());
            let (matrices, vectors) = gradients.split_at(self.pass.matrices.len());
            let matrices = self.model.layers.matrices.flatten(matrices, self.members());
            let vectors = self.model.layers.vectors.flatten(vectors, self.members());
            if let Some(cast) = &self.cast {
                let (mut of_matrices, of_vectors) = split(&self.gradient, cast.size()[0]);
                of_matrices.copy_(&Tensor::cat(&matrices, 0));
                let _ = Tensor::cat_out(&of_vectors, &vectors, 0);
            } else {
                let _ =
                    Tensor::cat_out(&self.gradient, &matrices.iter().chain(&vectors).collect::<Vec<_>>(), 0);
            }
            self.sgd.step(&mut self.parameters, &mut self.gradient, &mut self.momentum);
        });
    }

    /// How many of the images each member gets right: int64 `[members]`, on the device.
    ///
    /// `images` are bytes `[images, height, width, 3]`, the same for every member.
    pub(crate) fn correct(&mut self, images: &Tensor, labels: &Tensor) -> Tensor {
        no_grad(|| {
            self.refresh_cast();
            let for_each = images.unsqueeze(0).expand([self.members(), -1, -1, -1, -1], false);
            let logits = self.logits(&for_each, false);
            logits.argmax(-1, false).eq_tensor(labels).sum_dim_intlist(1, false, Kind::Int64)
        })
    }

    /// Puts the batch normalisations into the convolutions before them, for [`Net::correct_folded`].
    pub(crate) fn fold(&mut self) {
        no_grad(|| {
            let layers = &self.model.layers;
            let of_matrices = self.parameters.narrow(0, 0, layers.matrices.len * self.pass.members);
            let matrices = layers.matrices.views(&of_matrices, self.pass.members);
            for &(conv, norm) in &layers.folds {
                conv.fold(norm, &mut self.pass, &matrices[conv.matrix()]);
            }
        });
    }

    /// As [`Net::correct`], with the members as they were at the last [`Net::fold`].
    pub(crate) fn correct_folded(&mut self, images: &Tensor, labels: &Tensor) -> Tensor {
        self.pass.is_folded = true;
        let correct = self.correct(images, labels);
        self.pass.is_folded = false;
        correct
    }

    /// Whether each member's parameters are all finite. Waits for the device.
    pub(crate) fn finite(&self) -> Vec<bool> {
        let sums = self.rows().parameters.sum_dim_intlist(1, false, Kind::Float).isfinite();
        Vec::try_from(sums).expect("a vector of truths")
    }

    /// Each member's loss summed over the steps since the last call. Waits for the device.
    pub(crate) fn take_loss_sums(&mut self) -> Vec<f32> {
        let sums = Vec::try_from(&self.loss_sums).expect("losses are a vector of floats");
        let _ = self.loss_sums.zero_();
        sums
    }

    /// What the members are now, a row each, on the device.
    pub(crate) fn rows(&self) -> Rows {
        let rows = |buffer: &Tensor, blocks: &Tensor| {
            buffer.view([-1, BLOCK]).index_select(0, blocks).view([self.members(), -1])
        };
        Rows {
            parameters: rows(&self.parameters, &self.sgd.blocks),
            momentum: rows(&self.momentum, &self.sgd.blocks),
            statistics: rows(&self.statistics, &self.statistic_blocks),
        }
    }

    /// Makes the members what the rows say. In place: views and captured graphs stay valid.
    pub(crate) fn set_rows(&mut self, rows: &Rows) {
        let set = |buffer: &Tensor, blocks: &Tensor, rows: &Tensor| {
            let rows = rows.to_device(buffer.device()).to_kind(buffer.kind()).reshape([-1, BLOCK]);
            let _ = buffer.view([-1, BLOCK]).index_copy_(0, blocks, &rows);
        };
        set(&self.parameters, &self.sgd.blocks, &rows.parameters);
        set(&self.momentum, &self.sgd.blocks, &rows.momentum);
        set(&self.statistics, &self.statistic_blocks, &rows.statistics);
    }

    fn refresh_cast(&mut self) {
        if let Some(cast) = &mut self.cast {
            let len = cast.size()[0];
            no_grad(|| cast.copy_(&self.parameters.narrow(0, 0, len)));
        }
    }

    /// The logits `[members, images, classes]` for bytes `[members, images, height, width, 3]`.
    pub(crate) fn logits(&mut self, images: &Tensor, training: bool) -> Tensor {
        self.pass.training = training;
        let side_by_side = images.permute([1, 2, 3, 0, 4]).flatten(3, 4);
        let (kind, compute) = (self.parameters.kind(), self.pass.matrices[0].kind());
        let pixels = (side_by_side.to_kind(kind) * &self.scale + &self.shift).to_kind(compute);
        // Channels last in memory, channels second in name.
        (self.model.body)(&self.pass, &pixels.permute([0, 3, 1, 2]))
    }
}

/// Multiply-adds of the convolutions of a model for one image of this size, forward.
pub(crate) fn multiply_adds(model: &Arc<Model>, height: u32, width: u32) -> u64 {
    let normalization = Normalization { mean: [0.0; 3], std: [1.0; 3] };
    let mut net = Net::new(model, 1, normalization, 0.0, Device::Cpu, (Kind::Float, Kind::Float));
    net.pass.multiply_adds = Some(Cell::new(0));
    let image = Tensor::zeros([1, 1, height.into(), width.into(), 3], (Kind::Uint8, Device::Cpu));
    let _ = no_grad(|| net.logits(&image, false));
    net.pass.multiply_adds.take().map_or(0, Cell::into_inner)
}

/// The first `len` numbers of a buffer, and the rest.
fn split(buffer: &Tensor, len: i64) -> (Tensor, Tensor) {
    (buffer.narrow(0, 0, len), buffer.narrow(0, len, buffer.size()[0] - len))
}

#[cfg(test)]
mod tests {
    use pba_schedules::rng::{Address, Purpose};

    use super::*;
    use crate::models;
    use crate::network::shake::Shake;

    const NORMALIZATION: Normalization = Normalization { mean: [0.5; 3], std: [0.25; 3] };

    /// Members that start differently, as one network or as many.
    fn nets(model: &Arc<Model>, members: i64, per_net: i64, kind: Kind) -> Vec<Net> {
        let rows: Vec<Rows> = (0..members as u64).map(|member| model.initial_rows(member)).collect();
        rows.chunks(per_net as usize)
            .map(|rows| {
                let mut net = Net::new(model, per_net, NORMALIZATION, 5e-4, Device::Cpu, (kind, kind));
                net.set_rows(&Rows::cat(rows));
                net
            })
            .collect()
    }

    /// The random weights of a step, other ones for each member.
    fn shakes(model: &Model, members: u64, images: u64, epoch: u32) -> Tensor {
        let shakes = &model.layers.shakes;
        let address = |seed, item| Address { seed, purpose: Purpose::Shake, epoch, item };
        let addresses = (0..members).flat_map(|seed| (0..images).map(move |item| address(seed, item)));
        let weights: Vec<f32> = addresses.flat_map(|address| Shake::draw(shakes, address)).collect();
        Tensor::from_slice(&weights).view([members as i64, images as i64, shakes.len() as i64, 2])
    }

    #[track_caller]
    fn stacked_equals_sequential(name: &str, images: i64, kind: Kind, steps: u32, bound: f64) {
        let model = models::build(name.parse().unwrap(), 7);
        stacked_equals_sequential_of(name, model, images, kind, steps, bound);
    }

    #[track_caller]
    fn stacked_equals_sequential_of(
        name: &str,
        model: Model,
        images: i64,
        kind: Kind,
        steps: u32,
        bound: f64,
    ) {
        tch::set_num_threads(1);
        tch::manual_seed(5);
        let members = 3;
        let model = Arc::new(model);
        let mut stacked = nets(&model, members, members, kind).remove(0);
        let mut sequential = nets(&model, members, 1, kind);
        for step in 0..steps {
            let batch = Tensor::randint(256, [members, images, 32, 32, 3], (Kind::Uint8, Device::Cpu));
            let labels = Tensor::randint(7, [members, images], (Kind::Int64, Device::Cpu));
            let lr = 0.01 / f64::from(1 + step);
            let shakes = shakes(&model, members as u64, images as u64, step);
            stacked.set_lr(lr);
            stacked.set_shakes(&shakes);
            stacked.step(&batch, &labels);
            for (member, net) in (0..).zip(&mut sequential) {
                net.set_lr(lr);
                net.set_shakes(&shakes.narrow(0, member, 1));
                net.step(&batch.narrow(0, member, 1), &labels.narrow(0, member, 1));
            }
        }
        let stacked_rows = stacked.rows();
        for (member, net) in (0..).zip(&sequential) {
            let rows = net.rows();
            for (one, other) in [
                (&stacked_rows.parameters, &rows.parameters),
                (&stacked_rows.momentum, &rows.momentum),
                (&stacked_rows.statistics, &rows.statistics),
            ] {
                let difference = (one.narrow(0, member, 1) - other).abs().max().double_value(&[]);
                println!("{name}, member {member}: {difference:.1e}");
                assert!(difference < bound, "{name}, member {member}: {difference:.1e}");
            }
            let initial = model.initial_rows(member as u64).parameters.to_kind(kind);
            let moved = (rows.parameters - initial).abs().max().double_value(&[]);
            assert!(moved > 1e-3, "{name}, member {member} stands still");
        }
        let images = Tensor::randint(256, [20, 32, 32, 3], (Kind::Uint8, Device::Cpu));
        let labels = Tensor::randint(7, [20], (Kind::Int64, Device::Cpu));
        let correct: Vec<i64> = Vec::try_from(stacked.correct(&images, &labels)).unwrap();
        let one_by_one: Vec<i64> =
            sequential.iter_mut().map(|net| net.correct(&images, &labels).int64_value(&[0])).collect();
        assert_eq!(correct, one_by_one);
    }

    #[test]
    fn stacked_equals_sequential_for_every_family() {
        for (name, images) in [("tiny", 16), ("resnet-20", 4), ("wrn-10-1", 4)] {
            stacked_equals_sequential(name, images, Kind::Double, 10, 1e-12);
        }
        stacked_equals_sequential("shake-shake-8-2x16d", 4, Kind::Double, 3, 1e-12);
        // In single precision a sum that is next to zero lands on the other side of a ReLU before long, on
        // some processors at the third step, which is worth 1e-3 at the tenth. The others stay below 1e-6.
        stacked_equals_sequential("tiny", 16, Kind::Float, 2, 1e-6);
    }

    /// Members that have trained a little, so that their running statistics are not those of the start.
    fn trained(name: &str, members: i64) -> Net {
        tch::manual_seed(5);
        let model = Arc::new(models::build(name.parse().unwrap(), 7));
        let mut net = nets(&model, members, members, Kind::Double).remove(0);
        net.set_lr(0.05);
        for _ in 0..3 {
            let images = Tensor::randint(256, [members, 4, 32, 32, 3], (Kind::Uint8, Device::Cpu));
            net.step(&images, &Tensor::randint(7, [members, 4], (Kind::Int64, Device::Cpu)));
        }
        net
    }

    #[test]
    fn folded_normalisations_change_nothing() {
        for (name, members, folds) in [("tiny", 2, 4), ("resnet-20", 1, 19), ("wrn-16-1", 2, 6)] {
            let mut net = trained(name, members);
            assert_eq!(net.model.layers.folds.len(), folds, "{name}");
            let images = Tensor::randint(256, [members, 5, 32, 32, 3], (Kind::Uint8, Device::Cpu));
            for again in [false, true] {
                let plain = no_grad(|| net.logits(&images, false));
                net.fold();
                net.pass.is_folded = true;
                let folded = no_grad(|| net.logits(&images, false));
                net.pass.is_folded = false;
                let difference = (&plain - folded).abs().max().double_value(&[]);
                assert!(difference < 1e-9, "{name}, again {again}: {difference:.1e}");
                // What was folded before the next step is not what counts after it.
                net.step(&images, &Tensor::zeros([members, 5], (Kind::Int64, Device::Cpu)));
                let moved = (plain - no_grad(|| net.logits(&images, false))).abs().max().double_value(&[]);
                assert!(moved > 1e-6, "{name} stands still");
            }
            let (images, labels) = (images.get(0), Tensor::zeros([5], (Kind::Int64, Device::Cpu)));
            net.fold();
            assert_eq!(net.correct_folded(&images, &labels), net.correct(&images, &labels));
        }
    }

    #[test]
    fn a_stem_as_a_product_trains_alike() {
        for (name, members) in [("tiny", 3), ("wrn-10-1", 2), ("resnet-20", 1)] {
            // Drawn once: other tests draw from the same generator.
            let batch = |_| {
                let images = Tensor::randint(256, [members, 5, 32, 32, 3], (Kind::Uint8, Device::Cpu));
                (images, Tensor::randint(7, [members, 5], (Kind::Int64, Device::Cpu)))
            };
            let batches: Vec<_> = (0..3).map(batch).collect();
            let model = Arc::new(models::build(name.parse().unwrap(), 7));
            let run = |is_product| {
                let mut net = nets(&model, members, members, Kind::Double).remove(0);
                net.set_stem_as_product(is_product);
                net.set_lr(0.05);
                batches.iter().for_each(|(images, labels)| net.step(images, labels));
                net.rows()
            };
            let (one, other) = (run(false), run(true));
            let difference = (one.parameters - other.parameters).abs().max().double_value(&[]);
            assert!(difference < 1e-9, "{name}: {difference:.1e}");
        }
    }

    #[test]
    fn multiply_adds_by_hand() {
        let count = |name: &str| multiply_adds(&Arc::new(models::build(name.parse().unwrap(), 10)), 32, 32);
        // Stride 2 first, then maxima before the third and the fourth convolution.
        let tiny = 256 * 27 * 16 + 256 * 144 * 32 + 64 * 288 * 64 + 16 * 576 * 64;
        assert_eq!(count("tiny"), tiny);
        // 327.6 M are those of the paper's network, its last layer included.
        assert_eq!(count("wrn-40-2") / 100_000, 3_276 - 1);
    }

    #[test]
    fn stacked_equals_sequential_with_padding_between_the_members() {
        // Bottlenecks of 23, 31 and 38 channels.
        let network = |builder: &mut Builder| models::pyramid_net::network(builder, 11, 22, 7);
        stacked_equals_sequential_of("pyramidnet", Model::new(network), 4, Kind::Double, 3, 1e-12);
    }

    #[test]
    fn a_small_net_learns_its_batch() {
        let model = Arc::new(models::build("tiny".parse().unwrap(), 4));
        let mut net = nets(&model, 1, 1, Kind::Float).remove(0);
        tch::manual_seed(5);
        let images = Tensor::randint(256, [16, 32, 32, 3], (Kind::Uint8, Device::Cpu));
        let labels = Tensor::randint(4, [16], (Kind::Int64, Device::Cpu));
        net.set_lr(0.05);
        for _ in 0..60 {
            net.step(&images.unsqueeze(0), &labels.unsqueeze(0));
        }
        assert_eq!(net.correct(&images, &labels).int64_value(&[0]), 16);
    }

    #[test]
    fn rows_can_be_taken_and_given() {
        let model = Arc::new(models::build("tiny".parse().unwrap(), 10));
        let mut stacked = nets(&model, 2, 2, Kind::Float).remove(0);
        let rows = stacked.rows();
        let first = model.initial_rows(0);
        assert_eq!(rows.parameters.narrow(0, 0, 1), first.parameters);
        assert_eq!(rows.statistics.narrow(0, 1, 1), first.statistics);
        let swapped = Rows { parameters: rows.parameters.flip([0]), ..rows };
        stacked.set_rows(&swapped);
        assert_eq!(stacked.rows().parameters, swapped.parameters);
    }
}
