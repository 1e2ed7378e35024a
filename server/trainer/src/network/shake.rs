//! Random weights of residual branches, drawn by their addresses.

use pba_schedules::rng::Address;

/// What happens at random in a block while the network is trained. Each image has weights of its own, in
/// each block and each epoch: one for values that go forward, one for gradients that come back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shake {
    /// Two branches are mixed (Shake-Shake, Gastaldi 2017): the weight is that of the first, `u / (u + v)` for two
    /// uniform numbers, and the second has the rest. So does the code that the paper of PBA trains with; Gastaldi
    /// takes one uniform number.
    Branches,
    /// The only branch is kept with probability `keep`; otherwise its weight is uniform in -1..1 forward, and in
    /// 0..1 backward (ShakeDrop, Yamada et al. 2018).
    Drop {
        /// 0..=1.
        keep: f64,
    },
}

impl Shake {
    /// The weight to be expected, which is that of evaluation.
    pub(crate) fn expected(self) -> f64 {
        match self {
            Shake::Branches => 0.5,
            Shake::Drop { keep } => keep,
        }
    }

    /// The weights that four uniform words give: forward, and backward.
    fn weights(self, words: [u32; 4]) -> [f32; 2] {
        let [one, two, three, four] = words.map(uniform);
        match self {
            Shake::Branches => [one / (one + two), three / (three + four)],
            Shake::Drop { keep } if f64::from(one) < keep => [1.0, 1.0],
            Shake::Drop { .. } => [2.0 * two - 1.0, three],
        }
    }

    /// The weights of an image in every block, block after block: [forward, backward] of each. They are
    /// functions of the address, whose n-th block of words is the network's n-th block's.
    pub(crate) fn draw(shakes: &[Shake], address: Address) -> impl Iterator<Item = f32> {
        let block = move |(block, shake): (u32, &Shake)| shake.weights(address.block(block));
        (0..).zip(shakes).flat_map(block)
    }
}

/// A number above 0 and below 1, exact in single precision.
fn uniform(word: u32) -> f32 {
    ((word >> 9) as f32 + 0.5) / (1u32 << 23) as f32
}

#[cfg(test)]
mod tests {
    use pba_schedules::rng::Purpose;

    use super::*;

    /// Mean and variance of the forward and of the backward weights, and how often both are 1.
    fn moments(shake: Shake) -> ([f64; 2], [f64; 2], f64) {
        let draws = 100_000;
        let (mut sums, mut squares, mut kept) = ([0.0; 2], [0.0; 2], 0);
        for item in 0..draws {
            let address = Address { seed: 5, purpose: Purpose::Shake, epoch: 3, item };
            let weights: Vec<f32> = Shake::draw(&[shake], address).collect();
            for (which, &weight) in weights.iter().enumerate() {
                assert!((-1.0..=1.0).contains(&weight) && weight != 0.0);
                sums[which] += f64::from(weight);
                squares[which] += f64::from(weight).powi(2);
            }
            kept += u32::from(weights == [1.0, 1.0]);
        }
        let mean = |sum: f64| sum / draws as f64;
        let means = sums.map(mean);
        let variances = [0, 1].map(|which| mean(squares[which]) - means[which] * means[which]);
        (means, variances, f64::from(kept) / draws as f64)
    }

    #[track_caller]
    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 0.01, "{found}, not {expected}");
    }

    #[test]
    fn weights_have_the_moments_of_the_papers() {
        let (means, variances, _) = moments(Shake::Branches);
        for (mean, variance) in means.into_iter().zip(variances) {
            near(mean, 0.5);
            // The integral of (x - 1/2)^2 / (2 max(x, 1 - x)^2) over 0..1: 3/4 - ln 2.
            near(variance, 0.75 - 2.0_f64.ln());
        }
        let keep = 0.75;
        let (means, variances, kept) = moments(Shake::Drop { keep });
        near(kept, keep);
        near(means[0], keep);
        near(means[1], keep + (1.0 - keep) / 2.0);
        near(variances[0], keep + (1.0 - keep) / 3.0 - means[0] * means[0]);
        near(variances[1], keep + (1.0 - keep) / 3.0 - means[1] * means[1]);
        assert_eq!(moments(Shake::Drop { keep: 1.0 }).2, 1.0);
    }

    #[test]
    fn forward_and_backward_and_the_blocks_are_independent() {
        let address = Address { seed: 5, purpose: Purpose::Shake, epoch: 3, item: 8 };
        let shakes = [Shake::Branches, Shake::Branches, Shake::Drop { keep: 0.0 }];
        let weights: Vec<f32> = Shake::draw(&shakes, address).collect();
        let mut distinct = weights.clone();
        distinct.sort_by(f32::total_cmp);
        distinct.dedup();
        assert_eq!((weights.len(), distinct.len()), (6, 6), "{weights:?}");
        assert!(Shake::draw(&shakes[..2], address).eq(weights[..4].iter().copied()), "blocks have places");
    }

    /// A run that is resumed draws what it would have drawn, so these must never change.
    #[test]
    fn weights_are_pinned() {
        let address = Address { seed: 1 << 40 | 7, purpose: Purpose::Shake, epoch: 2, item: 49_999 };
        let shakes = [Shake::Branches, Shake::Drop { keep: 0.5 }, Shake::Drop { keep: 0.5 }];
        let weights: Vec<f32> = Shake::draw(&shakes, address).collect();
        assert_eq!(weights, [0.48426145, 0.79840696, -0.42549336, 0.7236609, 1.0, 1.0_f32]);
    }
}
