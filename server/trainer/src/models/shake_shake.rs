//! `shake-shake-D-2xWd`: two branches in each block, mixed at random (Gastaldi 2017).

use tch::Tensor;

use crate::network::layers::{Builder, Conv, Norm, Pass, Shaken};
use crate::network::model::Body;
use crate::network::shake::Shake;

/// Conv16-BN, then three stages of (D - 2) / 6 blocks with W, 2W and 4W channels, ReLU, average, head.
pub(super) fn network(builder: &mut Builder, depth: i64, width: i64, classes: i64) -> Body {
    let (conv, norm) = (builder.conv(3, 16, 3, 1), builder.norm(16));
    let mut blocks = Vec::new();
    let mut input = 16;
    for (out, stride) in [(width, 1), (2 * width, 2), (4 * width, 2)] {
        for position in 0..(depth - 2) / 6 {
            let stride = if position == 0 { stride } else { 1 };
            blocks.push(Block::new(builder, input, out, stride));
            input = out;
        }
    }
    let head = builder.head(input, classes);
    Box::new(move |pass, images| {
        let x = norm.forward(pass, &conv.forward(pass, images));
        let x = blocks.iter().fold(x, |x, block| block.forward(pass, &x));
        head.forward(pass, &x.relu())
    })
}

/// Two branches of ReLU-conv3-BN-ReLU-conv3-BN, mixed, plus the shortcut.
struct Block {
    branches: [[(Conv, Norm); 2]; 2],
    mixed: Shaken,
    shortcut: Option<Shortcut>,
}

impl Block {
    fn new(builder: &mut Builder, input: i64, out: i64, stride: i64) -> Block {
        let branch = |builder: &mut Builder| {
            let layers = [(input, stride), (out, 1)];
            layers.map(|(input, stride)| (builder.conv(input, out, 3, stride), builder.norm(out)))
        };
        Block {
            branches: [branch(builder), branch(builder)],
            mixed: builder.shaken(Shake::Branches),
            shortcut: (input != out).then(|| Shortcut {
                straight: builder.conv(input, out / 2, 1, stride),
                shifted: builder.conv(input, out / 2, 1, stride),
                norm: builder.norm(out),
            }),
        }
    }

    fn forward(&self, pass: &Pass, x: &Tensor) -> Tensor {
        let active = x.relu();
        let [one, two] = self.branches.map(|[first, second]| {
            let (conv, norm) = first;
            let x = norm.forward(pass, &conv.forward(pass, &active)).relu();
            let (conv, norm) = second;
            norm.forward(pass, &conv.forward(pass, &x))
        });
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.forward(pass, x),
            None => x.shallow_clone(),
        };
        // weight * one + (1 - weight) * two
        self.mixed.add(pass, &(shortcut + &two), &(one - &two))
    }
}

/// Where the channels change: two 1x1 convolutions side by side, each of half the channels, then BN. The
/// second sees the image moved by a pixel to the left and up, so that together they miss fewer pixels.
struct Shortcut {
    straight: Conv,
    shifted: Conv,
    norm: Norm,
}

impl Shortcut {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Tensor {
        let moved = x.slice(2, 1, None::<i64>, 1).slice(3, 1, None::<i64>, 1).constant_pad_nd([0, 1, 0, 1]);
        let halves = [self.straight.forward(pass, x), self.shifted.forward(pass, &moved)];
        let both = Tensor::cat(&halves.map(|half| half.unflatten(1, [pass.members, -1])), 2);
        self.norm.forward(pass, &both.flatten(1, 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::plain::{Plain, check};

    /// The network as section 3 of the paper has it, for one image after the other.
    fn plain(plain: &mut Plain, images: usize, depth: usize, width: usize) -> usize {
        let mut x = plain.conv(images, 16, 3, 1);
        x = plain.norm(x);
        let mut block = 0;
        for (stage, out) in [width, 2 * width, 4 * width].into_iter().enumerate() {
            for position in 0..(depth - 2) / 6 {
                let stride = if stage > 0 && position == 0 { 2 } else { 1 };
                let branches = [0, 1].map(|branch| {
                    let mut y = plain.relu(x);
                    y = plain.conv(y, out, 3, stride);
                    y = plain.norm(y);
                    y = plain.relu(y);
                    y = plain.conv(y, out, 3, 1);
                    y = plain.norm(y);
                    // The first branch has the weight, the second the rest.
                    plain.weighted(
                        y,
                        block,
                        0.5,
                        move |weight| if branch == 0 { weight } else { 1.0 - weight },
                    )
                });
                let mixed = plain.add(branches[0], branches[1]);
                if plain.channels(x) != out {
                    let straight = plain.conv(x, out / 2, 1, stride);
                    let channels = plain.channels(x);
                    let moved =
                        plain.pick(x, channels, |channel, row, column| (channel, row + 1, column + 1));
                    let shifted = plain.conv(moved, out / 2, 1, stride);
                    let both = plain.cat(straight, shifted);
                    x = plain.norm(both);
                }
                x = plain.add(mixed, x);
                block += 1;
            }
        }
        plain.relu(x)
    }

    #[test]
    fn steps_and_evaluates_as_a_plain_implementation() {
        for (depth, width, side) in [(8, 16, 8), (14, 4, 9)] {
            check(
                |builder| network(builder, depth, width, 5),
                side,
                |tape, images| plain(tape, images, depth as usize, width as usize),
            );
        }
    }
}
