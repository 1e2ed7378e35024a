//! `tiny`: four convolutions, for CPUs and tests.

use crate::network::layers::Builder;
use crate::network::model::Body;

/// Four times 3x3 convolution, batch normalisation, ReLU; 2x2 maxima between them; average, head.
pub(super) fn network(builder: &mut Builder, classes: i64) -> Body {
    let mut stage = |input, out, stride| {
        let (conv, norm) = (builder.conv(input, out, 3, stride), builder.norm(out));
        builder.fold(conv, norm);
        (conv, norm)
    };
    let stages = [stage(3, 16, 2), stage(16, 32, 1), stage(32, 64, 1), stage(64, 64, 1)];
    let head = builder.head(64, classes);
    Box::new(move |pass, images| {
        let mut x = images.shallow_clone();
        for (position, (conv, norm)) in stages.into_iter().enumerate() {
            if position > 1 {
                x = x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false);
            }
            x = conv.normed(norm, pass, &x).relu();
        }
        head.forward(pass, &x)
    })
}
