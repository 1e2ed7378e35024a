//! `resnet-20`: the residual network for 32x32 images (He et al. 2016, section 4.2).

use tch::Tensor;

use crate::network::layers::{Builder, Conv, Head, Norm, Pass};
use crate::network::model::Forward;

const BLOCKS_PER_STAGE: usize = 3;

/// Conv16-BN-ReLU, then three stages of three blocks with 16, 32 and 64 channels, average, head.
#[derive(Debug)]
pub(super) struct ResNet20 {
    stem: (Conv, Norm),
    blocks: Vec<Block>,
    head: Head,
}

/// Conv3-BN-ReLU-conv3-BN, plus the shortcut, then ReLU. Where the channels double, the shortcut
/// takes every second pixel and zeros for the new channels, so it has no parameters.
#[derive(Debug)]
struct Block {
    first: (Conv, Norm),
    second: (Conv, Norm),
    channels_added: i64,
}

impl ResNet20 {
    pub(super) fn new(builder: &mut Builder, classes: i64) -> ResNet20 {
        let stem = (builder.conv(3, 16, 3, 1), builder.norm(16));
        let mut blocks = Vec::new();
        let mut input = 16;
        for out in [16, 32, 64] {
            for _ in 0..BLOCKS_PER_STAGE {
                let stride = if input == out { 1 } else { 2 };
                blocks.push(Block {
                    first: (builder.conv(input, out, 3, stride), builder.norm(out)),
                    second: (builder.conv(out, out, 3, 1), builder.norm(out)),
                    channels_added: out - input,
                });
                input = out;
            }
        }
        ResNet20 { stem, blocks, head: builder.head(64, classes) }
    }
}

impl Block {
    fn forward(&self, pass: &Pass<'_>, x: &Tensor) -> Tensor {
        let shortcut = match self.channels_added {
            0 => x.shallow_clone(),
            added => {
                let halved = x.slice(2, 0, None::<i64>, 2).slice(3, 0, None::<i64>, 2).permute([0, 2, 3, 1]);
                let [images, height, width, channels] = halved.size()[..] else { unreachable!("four axes") };
                let by_member =
                    halved.reshape([images, height, width, pass.members, channels / pass.members]);
                by_member
                    .constant_pad_nd([0, added])
                    .view([images, height, width, channels + pass.members * added])
                    .permute([0, 3, 1, 2])
            }
        };
        let (conv, norm) = self.first;
        let x = norm.forward(pass, &conv.forward(pass, x)).relu();
        let (conv, norm) = self.second;
        (norm.forward(pass, &conv.forward(pass, &x)) + shortcut).relu()
    }
}

impl Forward for ResNet20 {
    fn forward(&self, pass: &Pass<'_>, images: &Tensor) -> Tensor {
        let (conv, norm) = self.stem;
        let mut x = norm.forward(pass, &conv.forward(pass, images)).relu();
        for block in &self.blocks {
            x = block.forward(pass, &x);
        }
        self.head.forward(pass, &x)
    }
}
