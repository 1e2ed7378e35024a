//! `pyramidnet-D-aA-shakedrop`: bottlenecks that widen from block to block (Han et al. 2017), each weakened
//! at random (ShakeDrop, Yamada et al. 2018).

use tch::Tensor;

use crate::network::layers::{Builder, Conv, Norm, Pass, Shaken, with_zeros};
use crate::network::model::Body;
use crate::network::shake::Shake;

/// Channels of a block's output for each channel of its bottleneck.
const EXPANSION: i64 = 4;
/// Probability that the last block is dropped. It grows linearly from block to block.
const LAST_DROPPED: f64 = 0.5;

/// Conv16-BN, then three stages of (D - 2) / 9 blocks, whose bottlenecks widen evenly from 16 to 16 + A
/// channels, BN-ReLU, average, head.
pub(crate) fn network(builder: &mut Builder, depth: i64, alpha: i64, classes: i64) -> Body {
    let stem = (builder.conv(3, 16, 3, 1), builder.norm(16));
    let per_stage = (depth - 2) / 9;
    let count = 3 * per_stage;
    let mut blocks = Vec::new();
    let mut input = 16;
    for number in 1..=count {
        // 16 + A * number / count, rounded.
        let width = (32 * count + 2 * alpha * number + count) / (2 * count);
        let out = EXPANSION * width;
        let stride = if number > 1 && (number - 1) % per_stage == 0 { 2 } else { 1 };
        let keep = 1.0 - LAST_DROPPED * number as f64 / count as f64;
        blocks.push(Block {
            before: builder.norm(input),
            layers: [(input, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)].map(
                |(input, out, side, stride)| (builder.conv(input, out, side, stride), builder.norm(out)),
            ),
            shaken: builder.shaken(Shake::Drop { keep }),
            halves: stride == 2,
            channels_added: out - input,
        });
        input = out;
    }
    let (norm, head) = (builder.norm(input), builder.head(input, classes));
    Box::new(move |pass, images| {
        let (conv, first) = stem;
        let x = first.forward(pass, &conv.forward(pass, images));
        let x = blocks.iter().fold(x, |x, block| block.forward(pass, &x));
        head.forward(pass, &norm.forward(pass, &x).relu())
    })
}

/// BN-conv1-BN-ReLU-conv3-BN-ReLU-conv1-BN, weakened at random, plus the shortcut: the mean of 2x2 pixels where
/// the size is halved, and zeros for the new channels.
struct Block {
    before: Norm,
    layers: [(Conv, Norm); 3],
    shaken: Shaken,
    halves: bool,
    channels_added: i64,
}

impl Block {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Tensor {
        let [first, second, third] = self.layers;
        let layer = |(conv, norm): (Conv, Norm), x: &Tensor| norm.forward(pass, &conv.forward(pass, x));
        let branch = layer(first, &self.before.forward(pass, x)).relu();
        let branch = layer(third, &layer(second, &branch).relu());
        let halved = match self.halves {
            // An odd last row or column has a mean of its own, as the convolution has a pixel for it.
            true => x.avg_pool2d([2, 2], [2, 2], [0, 0], true, false, None::<i64>),
            false => x.shallow_clone(),
        };
        self.shaken.add(pass, &with_zeros(pass, &halved, self.channels_added), &branch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::plain::{Plain, check};

    /// The network as the papers have it.
    fn plain(plain: &mut Plain, images: usize, depth: usize, alpha: usize) -> usize {
        let mut x = plain.conv(images, 16, 3, 1);
        x = plain.norm(x);
        let count = (depth - 2) / 3;
        for block in 0..count {
            let share = (block + 1) as f64 / count as f64;
            let width = (16.0 + share * alpha as f64 + 0.5).floor() as usize;
            let stride = if [count / 3, 2 * count / 3].contains(&block) { 2 } else { 1 };
            let mut y = plain.norm(x);
            y = plain.conv(y, width, 1, 1);
            y = plain.norm(y);
            y = plain.relu(y);
            y = plain.conv(y, width, 3, stride);
            y = plain.norm(y);
            y = plain.relu(y);
            y = plain.conv(y, 4 * width, 1, 1);
            y = plain.norm(y);
            y = plain.weighted(y, block, 1.0 - share * 0.5, |weight| weight);
            if stride == 2 {
                x = plain.mean_of_pairs(x);
            }
            let widened = plain.pick(x, 4 * width, |channel, row, column| (channel, row, column));
            x = plain.add(y, widened);
        }
        x = plain.norm(x);
        plain.relu(x)
    }

    #[test]
    fn steps_and_evaluates_as_a_plain_implementation() {
        for (depth, alpha, side) in [(11, 7, 8), (20, 12, 7)] {
            check(
                |builder| network(builder, depth, alpha, 5),
                side,
                |tape, images| plain(tape, images, depth as usize, alpha as usize),
            );
        }
    }
}
