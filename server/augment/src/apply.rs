//! One op on one image: where data meets kernels.

use pba_schedules::Op;

use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::{magnitude, ops};

/// Direction of an op that has one: Rotate, TranslateX, TranslateY, ShearX and ShearY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sign {
    /// As the magnitude says.
    Plus,
    /// The other way.
    Minus,
}

impl Sign {
    pub(crate) fn of(self, value: i32) -> i32 {
        match self {
            Sign::Plus => value,
            Sign::Minus => -value,
        }
    }
}

/// An op with everything that fixes what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpCall {
    /// Which op.
    pub op: Op,
    /// Magnitude level: 0..=9. [`magnitude`] says what it means.
    pub magnitude: u8,
    /// Direction, for the ops that have one; the others ignore it.
    pub sign: Sign,
    /// Column and row about which Cutout erases; the other ops ignore it.
    pub centre: (u32, u32),
}

/// Applies one op to an image, exactly as Pillow does: all four channels, at any size.
///
/// # Panics
/// When the magnitude is over 9.
///
/// ```
/// use pba_augment::{ImageShape, OpCall, Rgba, Scratch, Sign, apply};
/// use pba_schedules::Op;
///
/// let mut image = Rgba::from_rgb(ImageShape { height: 1, width: 3 }, &[1, 1, 1, 2, 2, 2, 3, 3, 3])?;
/// let call = OpCall { op: Op::TranslateX, magnitude: 1, sign: Sign::Plus, centre: (0, 0) };
/// apply(&call, &mut image, &mut Scratch::new());
/// assert_eq!(image.pixels(), [[2, 2, 2, 255], [3, 3, 3, 255], [0, 0, 0, 0]]);
/// # Ok::<(), pba_augment::ShapeError>(())
/// ```
pub fn apply(call: &OpCall, image: &mut Rgba, scratch: &mut Scratch) {
    let &OpCall { op, magnitude: level, sign, centre } = call;
    match op {
        Op::Rotate => ops::rotate(image, magnitude::rotate_degrees(level, sign), scratch),
        Op::TranslateX => ops::translate_x(image, magnitude::translate_pixels(level, sign), scratch),
        Op::TranslateY => ops::translate_y(image, magnitude::translate_pixels(level, sign)),
        Op::Brightness => ops::brightness(image, magnitude::enhance_factor(level), scratch),
        Op::Color => ops::color(image, magnitude::enhance_factor(level), scratch),
        Op::Invert => ops::invert(image, scratch),
        Op::Sharpness => ops::sharpness(image, magnitude::enhance_factor(level), scratch),
        Op::Posterize => ops::posterize(image, magnitude::posterize_bits(level), scratch),
        Op::ShearX => ops::shear_x(image, magnitude::shear_slope(level, sign), scratch),
        Op::Solarize => ops::solarize(image, magnitude::solarize_threshold(level), scratch),
        Op::ShearY => ops::shear_y(image, magnitude::shear_slope(level, sign), scratch),
        Op::Equalize => ops::equalize(image, scratch),
        Op::AutoContrast => ops::auto_contrast(image, scratch),
        Op::Cutout => ops::cutout(image, magnitude::cutout_size(level), centre),
        Op::Contrast => ops::contrast(image, magnitude::enhance_factor(level), scratch),
    }
}
