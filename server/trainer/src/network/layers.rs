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

use tch::{Kind, Tensor};

/// Numbers in a block. The channels of every layer but the head are multiples of it.
pub(crate) const BLOCK: i64 = 16;
/// Share of the new statistics in the running ones.
const BN_MOMENTUM: f64 = 0.1;
const BN_EPSILON: f64 = 1e-5;

/// The shape of an entry of a buffer.
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

    /// Each entry of the buffer in the shape that its layer takes.
    pub(crate) fn views(&self, buffer: &Tensor, members: i64) -> Vec<Tensor> {
        let view = |entry: &Entry| {
            let part = buffer.narrow(0, entry.offset * members, entry.pitch() * members);
            match entry.shape {
                Shape::Conv { out, input, side } => {
                    part.view([members * out, side, side, input]).permute([0, 3, 1, 2])
                }
                Shape::Channels(_) => part,
                Shape::Matrix { out, input } => {
                    part.view([members, entry.pitch()]).narrow(1, 0, entry.len()).view([members, out, input])
                }
            }
        };
        self.entries.iter().map(view).collect()
    }

    /// The inverse of [`Layout::views`]: the numbers of each entry in the buffer's order.
    pub(crate) fn flatten(&self, views: &[Tensor], members: i64) -> Vec<Tensor> {
        let flat = |(entry, view): (&Entry, &Tensor)| match entry.shape {
            Shape::Conv { .. } => view.permute([0, 2, 3, 1]).reshape([-1]),
            Shape::Channels(_) => view.reshape([-1]),
            Shape::Matrix { .. } => {
                let rows = view.reshape([members, entry.len()]);
                rows.constant_pad_nd([0, entry.pitch() - entry.len()]).reshape([-1])
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
        assert_eq!(out % BLOCK, 0, "channels come in blocks");
        let std = (2.0 / (side * side * out) as f64).sqrt();
        let matrix = self.matrices.push(Shape::Conv { out, input, side }, Init::Normal(std));
        Conv { matrix, stride, padding: side / 2 }
    }

    pub(crate) fn norm(&mut self, channels: i64) -> Norm {
        assert_eq!(channels % BLOCK, 0, "channels come in blocks");
        let vector = self.vectors.push(Shape::Channels(channels), Init::Constant(1.0));
        self.vectors.push(Shape::Channels(channels), Init::Constant(0.0));
        let statistic = self.statistics.push(Shape::Channels(channels), Init::Constant(0.0));
        self.statistics.push(Shape::Channels(channels), Init::Constant(1.0));
        Norm { vector, statistic }
    }

    pub(crate) fn head(&mut self, input: i64, classes: i64) -> Head {
        let std = (1.0 / input as f64).sqrt();
        let matrix = self.matrices.push(Shape::Matrix { out: classes, input }, Init::Normal(std));
        let vector = self.vectors.push(Shape::Matrix { out: 1, input: classes }, Init::Constant(0.0));
        Head { matrix, vector }
    }
}

/// What the layers read while a batch goes through: their parts of the buffers, and how to use them.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) members: i64,
    pub(crate) matrices: Vec<Tensor>,
    pub(crate) vectors: Vec<Tensor>,
    pub(crate) statistics: Vec<Tensor>,
    /// Normalise by the batch and update the running statistics, or normalise by these.
    pub(crate) training: bool,
}

impl Conv {
    pub(crate) fn forward(self, pass: &Pass, x: &Tensor) -> Tensor {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        x.conv2d(&pass.matrices[self.matrix], None::<&Tensor>, stride, padding, [1, 1], pass.members)
    }
}

impl Norm {
    pub(crate) fn forward(self, pass: &Pass, x: &Tensor) -> Tensor {
        let (vectors, statistics) = (&pass.vectors[self.vector..], &pass.statistics[self.statistic..]);
        x.batch_norm(
            Some(&vectors[0]),
            Some(&vectors[1]),
            Some(&statistics[0]),
            Some(&statistics[1]),
            pass.training,
            BN_MOMENTUM,
            BN_EPSILON,
            true,
        )
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
