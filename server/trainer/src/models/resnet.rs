//! `resnet-20`: the residual network for 32x32 images (He et al. 2016, section 4.2).

use tch::Tensor;

use crate::network::layers::{Builder, Conv, Norm, Pass, with_zeros};
use crate::network::model::Body;

const BLOCKS_PER_STAGE: usize = 3;

/// Conv16-BN-ReLU, then three stages of three blocks with 16, 32 and 64 channels, average, head.
pub(super) fn network(builder: &mut Builder, classes: i64) -> Body {
    let layer = |builder: &mut Builder, input, out, stride| {
        let (conv, norm) = (builder.conv(input, out, 3, stride), builder.norm(out));
        builder.fold(conv, norm);
        (conv, norm)
    };
    let (conv, norm) = layer(builder, 3, 16, 1);
    let mut blocks = Vec::new();
    let mut input = 16;
    for out in [16, 32, 64] {
        for _ in 0..BLOCKS_PER_STAGE {
            let stride = if input == out { 1 } else { 2 };
            blocks.push(Block {
                first: layer(builder, input, out, stride),
                second: layer(builder, out, out, 1),
                channels_added: out - input,
            });
            input = out;
        }
    }
    let head = builder.head(64, classes);
    Box::new(move |pass, images| {
        let x = conv.normed(norm, pass, images).relu();
        head.forward(pass, &blocks.iter().fold(x, |x, block| block.forward(pass, &x)))
    })
}

/// Conv3-BN-ReLU-conv3-BN, plus the shortcut, then ReLU. Where the channels double, the shortcut
/// takes every second pixel and zeros for the new channels, so it has no parameters.
struct Block {
    first: (Conv, Norm),
    second: (Conv, Norm),
    channels_added: i64,
}

impl Block {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Tensor {
        let shortcut = match self.channels_added {
            0 => x.shallow_clone(),
            added => {
                let halved = x.slice(2, 0, None::<i64>, 2).slice(3, 0, None::<i64>, 2);
                with_zeros(pass, &halved, added)
            }
        };
        let (conv, norm) = self.first;
        let x = conv.normed(norm, pass, x).relu();
        let (conv, norm) = self.second;
        (conv.normed(norm, pass, &x) + shortcut).relu()
    }
}
