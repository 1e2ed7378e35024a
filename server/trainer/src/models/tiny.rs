//! `tiny`: four convolutions, for CPUs and tests.

use tch::Tensor;

use crate::network::layers::{Builder, Conv, Head, Norm, Pass};
use crate::network::model::Forward;

/// Four times 3x3 convolution, batch normalisation, ReLU; 2x2 maxima between them; average, head.
#[derive(Debug)]
pub(super) struct Tiny {
    stages: [(Conv, Norm); 4],
    head: Head,
}

impl Tiny {
    pub(super) fn new(builder: &mut Builder, classes: i64) -> Tiny {
        let mut stage = |input, out, stride| (builder.conv(input, out, 3, stride), builder.norm(out));
        let stages = [stage(3, 16, 2), stage(16, 32, 1), stage(32, 64, 1), stage(64, 64, 1)];
        Tiny { stages, head: builder.head(64, classes) }
    }
}

impl Forward for Tiny {
    fn forward(&self, pass: &Pass<'_>, images: &Tensor) -> Tensor {
        let mut x = images.shallow_clone();
        for (position, (conv, norm)) in self.stages.into_iter().enumerate() {
            if position > 1 {
                x = x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false);
            }
            x = norm.forward(pass, &conv.forward(pass, &x)).relu();
        }
        self.head.forward(pass, &x)
    }
}
