//! `wrn-D-K`: the wide residual network (Zagoruyko and Komodakis 2016).

use tch::Tensor;

use crate::network::layers::{Builder, Conv, Norm, Pass};
use crate::network::model::Body;

/// Conv16, then three stages of (D - 4) / 6 blocks with 16K, 32K and 64K channels, BN-ReLU,
/// average, head.
pub(super) fn network(builder: &mut Builder, depth: i64, width: i64, classes: i64) -> Body {
    let stem = builder.conv(3, 16, 3, 1);
    let mut blocks = Vec::new();
    let mut input = 16;
    for (out, stride) in [(16 * width, 1), (32 * width, 2), (64 * width, 2)] {
        for position in 0..(depth - 4) / 6 {
            let stride = if position == 0 { stride } else { 1 };
            let first = (builder.norm(input), builder.conv(input, out, 3, stride));
            let second = (builder.norm(out), builder.conv(out, out, 3, 1));
            // The other one reads a sum.
            builder.fold(first.1, second.0);
            blocks.push(Block {
                first,
                second,
                shortcut: (input != out || stride != 1).then(|| builder.conv(input, out, 1, stride)),
            });
            input = out;
        }
    }
    let (norm, head) = (builder.norm(input), builder.head(input, classes));
    Box::new(move |pass, images| {
        let x = blocks.iter().fold(stem.forward(pass, images), |x, block| block.forward(pass, &x));
        head.forward(pass, &norm.forward(pass, &x).relu())
    })
}

/// BN-ReLU-conv3-BN-ReLU-conv3, plus the shortcut. Where the shape changes, the shortcut is a 1x1
/// convolution of what follows the first ReLU.
struct Block {
    first: (Norm, Conv),
    second: (Norm, Conv),
    shortcut: Option<Conv>,
}

impl Block {
    fn forward(&self, pass: &Pass, x: &Tensor) -> Tensor {
        let (norm, conv) = self.first;
        let active = norm.forward(pass, x).relu();
        let shortcut = match self.shortcut {
            Some(conv) => conv.forward(pass, &active),
            None => x.shallow_clone(),
        };
        let (next_norm, next_conv) = self.second;
        let x = conv.normed(next_norm, pass, &active).relu();
        next_conv.forward(pass, &x) + shortcut
    }
}
