//! Layers over flat buffers, for one member or for many at once.
//!
//! The members of a network stand side by side in the channels: an activation is
//! `[images, members * channels, height, width]`, a convolution has one group (or set of groups)
//! per member. With one member that is the ordinary network, so every model is written once.
//!
//! All parameters lie in one buffer, entry by entry, in each entry member by member:
//!
//! ```text
//! entry 0: member 0, member 1 ... | entry 1: member 0, member 1 ... | ...
//! ```
//!
//! Each member's part is padded to whole blocks of [`BLOCK`] numbers, so that what is done per
//! member to the whole buffer (its norm, copying it) is done per block by a handful of kernels.

use std::cell::Cell;

use tch::{Kind, Tensor};

use crate::network::shake::Shake;

/// Numbers in a block.
pub(crate) const BLOCK: i64 = 16;
/// Share of the new statistics in the running ones.
const BN_MOMENTUM: f64 = 0.1;
const BN_EPSILON: f64 = 1e-5;
/// Channels of what the first convolution reads.
const PIXEL_CHANNELS: i64 = 3;

/// The shape of an entry of a buffer; [`Layout::views`] says how the members stand in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    /// `[out, in, side, side]`, stored with `in` last, as channels-last kernels want it.
    Conv { out: i64, input: i64, side: i64 },
    /// One number per channel.
    Channels(i64),
    /// `[out, in]` of the last layer, or its bias `[1, out]`.
    Matrix { out: i64, input: i64 },
}

/// The initial values of a member's part of an entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// The same number throughout.
    Constant(f64),
}

/// One entry of a buffer.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) shape: Shape,
    pub(crate) init: Init,
    /// Numbers of a member before it, padding included.
    pub(crate) offset: i64,
}

impl Entry {
    /// Numbers of a member.
    pub(crate) fn len(&self) -> i64 {
        match self.shape {
            Shape::Conv { out, input, side } => out * input * side * side,
            Shape::Channels(channels) => channels,
            Shape::Matrix { out, input } => out * input,
        }
    }

    /// Numbers of a member with its padding.
    fn pitch(&self) -> i64 {
        (self.len() + BLOCK - 1) / BLOCK * BLOCK
    }

    /// Whether padding lies between the members, so that no view puts them side by side.
    fn is_apart(&self, members: i64) -> bool {
        members > 1 && self.len() != self.pitch()
    }
}

/// The entries of a buffer, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    pub(crate) entries: Vec<Entry>,
    /// Numbers of a member, with padding.
    pub(crate) len: i64,
}

impl Layout {
    fn push(&mut self, shape: Shape, init: Init) -> usize {
        let entry = Entry { shape, init, offset: self.len };
        self.len += entry.pitch();
        self.entries.push(entry);
        self.entries.len() - 1
    }

    /// Numbers of a member, without padding.
    #[cfg(test)]
    pub(crate) fn parameters(&self) -> i64 {
        self.entries.iter().map(Entry::len).sum()
    }

    /// Each entry of the buffer in the shape that its layer takes, members side by side in the channels.
    /// Where padding lies between them, they are apart in a dimension of their own, before the others.
    pub(crate) fn views(&self, buffer: &Tensor, members: i64) -> Vec<Tensor> {
        let view = |entry: &Entry| {
            let part = buffer.narrow(0, entry.offset * members, entry.pitch() * members);
            let part = part.view([members, entry.pitch()]).narrow(1, 0, entry.len());
            match entry.shape {
                Shape::Conv { out, input, side } if entry.is_apart(members) => {
                    part.view([members, out, side, side, input]).permute([0, 1, 4, 2, 3])
                }
                Shape::Conv { out, input, side } => {
                    part.view([members * out, side, side, input]).permute([0, 3, 1, 2])
                }
                Shape::Channels(_) if entry.is_apart(members) => part,
                Shape::Channels(channels) => part.view([members * channels]),
                Shape::Matrix { out, input } => part.view([members, out, input]),
            }
        };
        self.entries.iter().map(view).collect()
    }

    /// The inverse of [`Layout::views`]: the numbers of each entry in the buffer's order.
    pub(crate) fn flatten(&self, views: &[Tensor], members: i64) -> Vec<Tensor> {
        let flat = |(entry, view): (&Entry, &Tensor)| {
            let in_order = match entry.shape {
                Shape::Conv { .. } if entry.is_apart(members) => view.permute([0, 1, 3, 4, 2]),
                Shape::Conv { .. } => view.permute([0, 2, 3, 1]),
                Shape::Channels(_) | Shape::Matrix { .. } => view.shallow_clone(),
            };
            match entry.pitch() - entry.len() {
                0 => in_order.reshape([-1]),
                padding => {
                    let rows = in_order.reshape([members, entry.len()]);
                    rows.constant_pad_nd([0, padding]).reshape([-1])
                }
            }
        };
        self.entries.iter().zip(views).map(flat).collect()
    }
}

/// Numbers of the blocks of member 0, then those of member 1, and so on: the order that turns buffers
/// that lie one after another into rows, one per member.
pub(crate) fn blocks_by_member(layouts: &[&Layout], members: i64) -> Vec<i64> {
    let mut blocks = Vec::new();
    for member in 0..members {
        let mut first = 0;
        for entry in layouts.iter().flat_map(|layout| &layout.entries) {
            let count = entry.pitch() / BLOCK;
            blocks.extend(first + member * count..first + (member + 1) * count);
            first += members * count;
        }
    }
    blocks
}

/// Declares the layers of a network. Convolutions and the head's matrix go first in the buffer:
/// they are what is cast to a shorter type on a GPU.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    pub(crate) matrices: Layout,
    pub(crate) vectors: Layout,
    pub(crate) statistics: Layout,
    /// What happens at random in each block of a network that shakes its blocks.
    pub(crate) shakes: Vec<Shake>,
    /// The normalisations of what a convolution gives, with it.
    pub(crate) folds: Vec<(Conv, Norm)>,
}

/// A square convolution without bias, padded to keep the size (before the stride).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conv {
    matrix: usize,
    stride: i64,
    padding: i64,
}

/// Batch normalisation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    /// Scale; the shift is the next one.
    vector: usize,
    /// Running mean; the running variance is the next one.
    statistic: usize,
}

/// The last layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    matrix: usize,
    vector: usize,
}

impl Builder {
    pub(crate) fn conv(&mut self, input: i64, out: i64, side: i64, stride: i64) -> Conv {
        let std = (2.0 / (side * side * out) as f64).sqrt();
        let matrix = self.matrices.push(Shape::Conv { out, input, side }, Init::Normal(std));
        Conv { matrix, stride, padding: side / 2 }
    }

    pub(crate) fn norm(&mut self, channels: i64) -> Norm {
        let vector = self.vectors.push(Shape::Channels(channels), Init::Constant(1.0));
        self.vectors.push(Shape::Channels(channels), Init::Constant(0.0));
        let statistic = self.statistics.push(Shape::Channels(channels), Init::Constant(0.0));
        self.statistics.push(Shape::Channels(channels), Init::Constant(1.0));
        Norm { vector, statistic }
    }

    /// Declares that nothing but `norm` reads what `conv` gives: [`Conv::normed`].
    pub(crate) fn fold(&mut self, conv: Conv, norm: Norm) {
        self.folds.push((conv, norm));
    }

    pub(crate) fn head(&mut self, input: i64, classes: i64) -> Head {
        let std = (1.0 / input as f64).sqrt();
        let matrix = self.matrices.push(Shape::Matrix { out: classes, input }, Init::Normal(std));
        let vector = self.vectors.push(Shape::Matrix { out: 1, input: classes }, Init::Constant(0.0));
        Head { matrix, vector }
    }

    pub(crate) fn shaken(&mut self, shake: Shake) -> Shaken {
        self.shakes.push(shake);
        Shaken { position: self.shakes.len() as i64 - 1, shake }
    }
}

/// What the layers read while a batch goes through: their parts of the buffers, and how to use them.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) members: i64,
    pub(crate) matrices: Vec<Tensor>,
    pub(crate) vectors: Vec<Tensor>,
    pub(crate) statistics: Vec<Tensor>,
    /// The weights of shaken branches in this step, `[blocks, 2, images, members]`: backward, and forward less
    /// backward.
    pub(crate) shakes: Tensor,
    /// Normalise by the batch and update the running statistics, or normalise by these.
    pub(crate) training: bool,
    /// By the number of a convolution's matrix: matrix and bias with its normalisation in them.
    pub(crate) folded: Vec<Option<Folded>>,
    /// Whether to use them.
    pub(crate) is_folded: bool,
    /// Whether the convolution of pixels, with its 3 channels a member, is a product of matrices.
    pub(crate) stem_as_product: bool,
    /// Multiply-adds of the convolutions so far, where they are counted.
    pub(crate) multiply_adds: Option<Cell<u64>>,
}

/// A convolution with the normalisation of what it gives: `x * matrix + bias`.
#[derive(Debug)]
pub(crate) struct Folded {
    matrix: Tensor,
    bias: Tensor,
}

impl Conv {
    /// What it gives, normalised.
    pub(crate) fn normed(self, norm: Norm, pass: &Pass, x: &Tensor) -> Tensor {
        let folded = pass.folded.get(self.matrix).filter(|_| pass.is_folded);
        match folded.and_then(Option::as_ref) {
            Some(Folded { matrix, bias }) => self.apply(pass, x, matrix, Some(bias)),
            None => norm.forward(pass, &self.forward(pass, x)),
        }
    }

    /// Puts a normalisation by running statistics into the convolution, whose matrix is `matrix`, in the type
    /// of the computation. In place, where it was done before: captured graphs stay valid.
    ///
    /// ```text
    /// scale = weight / sqrt(variance + epsilon)
    /// (x * m - mean) * scale + shift  =  x * (m * scale) + (shift - mean * scale)
    /// ```
    pub(crate) fn fold(self, norm: Norm, pass: &mut Pass, matrix: &Tensor) {
        let vectors = [0, 1].map(|at| side_by_side(&pass.vectors[norm.vector + at], 1));
        let statistics = [0, 1].map(|at| side_by_side(&pass.statistics[norm.statistic + at], 1));
        let scale = &vectors[0] * (&statistics[1] + BN_EPSILON).rsqrt();
        let bias = &vectors[1] - &statistics[0] * &scale;
        let matrix = side_by_side(matrix, 4) * scale.view([-1, 1, 1, 1]);
        let kind = pass.matrices[self.matrix].kind();
        if pass.folded.len() <= self.matrix {
            pass.folded.resize_with(self.matrix + 1, || None);
        }
        match &mut pass.folded[self.matrix] {
            Some(folded) => {
                folded.matrix.copy_(&matrix);
                folded.bias.copy_(&bias);
            }
            none => *none = Some(Folded { matrix: matrix.to_kind(kind), bias: bias.to_kind(kind) }),
        }
    }

    /// The number of its matrix.
    pub(crate) fn matrix(self) -> usize {
        self.matrix
    }

    pub(crate) fn forward(self, pass: &Pass, x: &Tensor) -> Tensor {
        self.apply(pass, x, &side_by_side(&pass.matrices[self.matrix], 4), None)
    }

    fn apply(self, pass: &Pass, x: &Tensor, matrix: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        let y = match pass.stem_as_product && matrix.size()[1] == PIXEL_CHANNELS {
            true => self.product(pass, x, matrix, bias),
            false => x.conv2d(matrix, bias, stride, padding, [1, 1], pass.members),
        };
        if let Some(count) = &pass.multiply_adds {
            let per_output: i64 = matrix.size()[1..].iter().product();
            count.set(count.get() + (y.numel() as i64 * per_output) as u64);
        }
        y
    }

    /// The same convolution as one product of matrices for each member: each pixel of what it gives is a row
    /// of what it reads times the matrix.
    fn product(self, pass: &Pass, x: &Tensor, matrix: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let [out, input, side, _] = matrix.size()[..] else { unreachable!("a convolution has four sides") };
        let (images, members) = (x.size()[0], pass.members);
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        let [height, width] = [2, 3].map(|axis| (x.size()[axis] + 2 * self.padding - side) / self.stride + 1);
        let rows = x.reshape([images * members, input, x.size()[2], x.size()[3]]);
        let rows = rows.im2col([side; 2], [1, 1], padding, stride);
        let rows = rows.view([images, members, -1, height * width]).permute([1, 0, 3, 2]);
        let rows = rows.reshape([members, images * height * width, -1]);
        let y = rows.matmul(&matrix.reshape([members, out / members, -1]).transpose(1, 2));
        let y = y.view([members, images, height, width, -1]).permute([1, 2, 3, 0, 4]).flatten(3, 4);
        let y = bias.map_or_else(|| y.shallow_clone(), |bias| &y + bias);
        y.permute([0, 3, 1, 2])
    }
}

impl Norm {
    pub(crate) fn forward(self, pass: &Pass, x: &Tensor) -> Tensor {
        let vectors = [0, 1].map(|at| side_by_side(&pass.vectors[self.vector + at], 1));
        let own = [0, 1].map(|at| &pass.statistics[self.statistic + at]);
        let statistics = own.map(|own| side_by_side(own, 1));
        let normal = x.batch_norm(
            Some(&vectors[0]),
            Some(&vectors[1]),
            Some(&statistics[0]),
            Some(&statistics[1]),
            pass.training,
            BN_MOMENTUM,
            BN_EPSILON,
            true,
        );
        if pass.training {
            // Members that are apart were updated in a copy. As data, past autograd's count of changes to the whole
            // buffer, of which other layers have kept their parts.
            for (own, updated) in own.into_iter().zip(&statistics).filter(|(own, _)| own.dim() > 1) {
                own.data().copy_(&updated.view_as(own));
            }
        }
        normal
    }
}

/// The members of an entry side by side, where they are apart: as a tensor of `dimensions`.
fn side_by_side(view: &Tensor, dimensions: usize) -> Tensor {
    if view.dim() > dimensions { view.flatten(0, 1) } else { view.shallow_clone() }
}

/// Each member's channels with `added` channels of zeros after them.
pub(crate) fn with_zeros(pass: &Pass, x: &Tensor, added: i64) -> Tensor {
    if added == 0 {
        return x.shallow_clone();
    }
    let by_member = x.permute([0, 2, 3, 1]).unflatten(3, [pass.members, -1]);
    by_member.constant_pad_nd([0, added]).flatten(3, 4).permute([0, 3, 1, 2])
}

/// A branch of a block whose weight is random while the network is trained.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shaken {
    position: i64,
    shake: Shake,
}

impl Shaken {
    /// `base + weight * branch`, with a weight for each image: one when values go forward, another one when
    /// gradients come back. In evaluation the weight is the one to be expected.
    pub(crate) fn add(self, pass: &Pass, base: &Tensor, branch: &Tensor) -> Tensor {
        if !pass.training {
            return base + branch * self.shake.expected();
        }
        let weights = pass.shakes.select(0, self.position);
        let weight = |which| {
            let by_member: Tensor = weights.select(0, which);
            let images = by_member.size()[0];
            match pass.members {
                1 => by_member.view([images, 1, 1, 1]),
                members => {
                    let channels = branch.size()[1] / members;
                    by_member.unsqueeze(2).expand([-1, -1, channels], false).reshape([images, -1, 1, 1])
                }
            }
        };
        // Gradients come back through the first product alone.
        base.addcmul(branch, &weight(0)).addcmul(&branch.detach(), &weight(1))
    }
}

impl Head {
    /// From `[images, members * channels, height, width]` to logits `[members, images, classes]`.
    pub(crate) fn forward(self, pass: &Pass, x: &Tensor) -> Tensor {
        let pooled = x.mean_dim(&[2i64, 3][..], false, None::<Kind>);
        let pooled = pooled.unflatten(1, [pass.members, -1]).permute([1, 0, 2]);
        let matrix = &pass.matrices[self.matrix];
        let bias = &pass.vectors[self.vector];
        pooled.matmul(&matrix.transpose(1, 2)).to_kind(bias.kind()) + bias
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn views_and_flatten_are_inverse() {
        let mut builder = Builder::default();
        builder.conv(3, 16, 3, 1);
        builder.conv(5, 9, 3, 1);
        builder.norm(9);
        builder.head(16, 7);
        let Builder { matrices, vectors, .. } = &builder;
        for (layout, members) in [(matrices, 1), (matrices, 3), (vectors, 3)] {
            let buffer = Tensor::arange(layout.len * members, (Kind::Float, Device::Cpu));
            let padded = layout.flatten(&layout.views(&buffer, members), members);
            let again = Tensor::cat(&padded, 0);
            // Padding comes back as zeros; everything else as it was.
            let differs = again.ne_tensor(&buffer).logical_and(&again.ne(0.0));
            assert_eq!(differs.sum(Kind::Int64).int64_value(&[]), 0);
            let mut blocks = blocks_by_member(&[layout], members);
            blocks.sort_unstable();
            assert!(blocks.into_iter().eq(0..layout.len * members / BLOCK));
        }
    }
}
