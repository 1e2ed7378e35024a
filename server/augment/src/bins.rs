//! What a bin of magnitude means: torchvision's table from bins to physical parameters.
//!
//! `AutoAugment` has 10 bins, `RandAugment` and `TrivialAugmentWide` have 31. They divide the range of
//! an op evenly, as `torch.linspace` does, in single precision; parameters are the same to the last bit
//! as with torchvision on a processor with AVX2. Positive magnitudes shift to the right or down there,
//! which is a negative parameter here.

use pba_schedules::{BIN_MAX, MAGNITUDE_MAX, Op};
use pba_types::ImageShape;

use crate::call::{Action, Sign};

/// Ranges of magnitude, and how many bins they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bins {
    /// 10 bins of the usual ranges.
    AutoAugment,
    /// 31 bins of the usual ranges.
    RandAugment,
    /// 31 bins of the wide ranges.
    TrivialAugmentWide,
}

impl Bins {
    /// An op at a bin, for images of a shape.
    ///
    /// # Panics
    /// When there is no such bin; and for Cutout, of which there are none.
    pub fn action(self, op: Op, bin: u8, sign: Sign, shape: ImageShape) -> Action {
        Action { op, parameter: sign.select(&self.parameters(op, bin, shape)), centre: (0, 0) }
    }

    /// The greatest bin.
    pub fn last(self) -> u8 {
        match self {
            Bins::AutoAugment => MAGNITUDE_MAX,
            Bins::RandAugment | Bins::TrivialAugmentWide => BIN_MAX,
        }
    }

    /// The parameters of [`Bins::action`], with plus and with minus.
    pub(crate) fn parameters(self, op: Op, bin: u8, shape: ImageShape) -> [f64; 2] {
        let last = self.last();
        assert!(bin <= last, "magnitude {bin}; allowed are 0..={last}");
        let wide = self == Bins::TrivialAugmentWide;
        let up_to = |usual: f64, of_wide: f64| linspace(0.0, if wide { of_wide } else { usual }, bin, last);
        // `+ 0.0` makes zero of minus zero.
        let signed = |magnitude: f64| [magnitude, -magnitude].map(|magnitude| magnitude + 0.0);
        let shifted = |side: u32| {
            let pixels = up_to(150.0 / 331.0 * f64::from(side), 32.0).trunc();
            signed(-pixels)
        };
        match op {
            Op::ShearX | Op::ShearY => signed(up_to(0.3, 0.99)),
            Op::TranslateX => shifted(shape.width),
            Op::TranslateY => shifted(shape.height),
            Op::Rotate => signed(up_to(30.0, 135.0)),
            Op::Brightness | Op::Color | Op::Contrast | Op::Sharpness => {
                signed(up_to(0.9, 0.99)).map(|magnitude| f64::from((1.0 + magnitude) as f32))
            }
            Op::Posterize => {
                let (bin, last) = (u32::from(bin), u32::from(last));
                // Rounded; no bin lies halfway.
                let fewer = (2 * bin * if wide { 6 } else { 4 } + last) / (2 * last);
                [f64::from(8 - fewer); 2]
            }
            // Values are whole, so that a threshold between two of them is as good as the upper one.
            Op::Solarize => [linspace(255.0, 0.0, bin, last).ceil(); 2],
            Op::AutoContrast | Op::Equalize | Op::Invert => [0.0; 2],
            Op::Cutout => panic!("Cutout has no bins"),
        }
    }
}

/// `torch.linspace(start, end, last + 1)[bin]` in single precision, with the fused multiplication and
/// addition of its vectors: from whichever end is nearer.
fn linspace(start: f64, end: f64, bin: u8, last: u8) -> f64 {
    let (start, end) = (start as f32, end as f32);
    let step = f64::from((end - start) / f32::from(last));
    // Exact in double precision, so that there is one rounding, as in a fused operation.
    let value = match bin <= (last - 1) / 2 {
        true => f64::from(start) + step * f64::from(bin),
        false => f64::from(end) - step * f64::from(last - bin),
    };
    f64::from(value as f32)
}
