//! What policies by bins of magnitude draw from: the ops of torchvision's `RandAugment` and
//! `TrivialAugmentWide`, in its order.

use crate::op::{MAGNITUDE_MAX, Op};

/// Bins of magnitude of RandAugment and TrivialAugmentWide are 0..=30.
pub const BIN_MAX: u8 = 30;

/// Most ops that RandAugment draws for one image.
pub const RAND_AUGMENT_OPS_MAX: u8 = 8;

/// The ops, of which each is as likely as any other; none is `Identity`, which leaves an image alone.
pub const SPACE: [Option<Op>; 14] = [
    None,
    Some(Op::ShearX),
    Some(Op::ShearY),
    Some(Op::TranslateX),
    Some(Op::TranslateY),
    Some(Op::Rotate),
    Some(Op::Brightness),
    Some(Op::Color),
    Some(Op::Contrast),
    Some(Op::Sharpness),
    Some(Op::Posterize),
    Some(Op::Solarize),
    Some(Op::AutoContrast),
    Some(Op::Equalize),
];

/// The ops of [`SPACE`] that do something.
pub(super) fn ops() -> impl Iterator<Item = Op> {
    SPACE.into_iter().flatten()
}

/// Whether an op has a magnitude: the others do the same at every bin.
pub(super) fn has_magnitude(op: Op) -> bool {
    !matches!(op, Op::AutoContrast | Op::Equalize | Op::Invert)
}

/// A bin, or a mean of bins, as a magnitude level, 0..=9; 0 for an op without magnitude.
pub(super) fn level(op: Op, bin: f64) -> f64 {
    if has_magnitude(op) { bin * f64::from(MAGNITUDE_MAX) / f64::from(BIN_MAX) } else { 0.0 }
}
