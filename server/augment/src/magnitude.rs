//! What a magnitude level of the paper's means: its table from levels to physical parameters. That of
//! torchvision's bins is [`bins`](crate::bins).
//!
//! Every function takes a level in 0..=9 and panics on another; a checked
//! [`Pairs`](pba_schedules::Pairs) hold no other. The formulas are the reference's, with its
//! `PARAMETER_MAX` of 10 and in its order of operations, so that each number is the same to the
//! last bit.

use pba_schedules::{MAGNITUDE_MAX, Op};

use crate::call::{Action, OpCall, Sign};

impl From<&OpCall> for Action {
    /// # Panics
    /// When the magnitude is over 9.
    fn from(&OpCall { op, magnitude, sign, centre }: &OpCall) -> Action {
        Action { op, parameter: parameter(op, magnitude, sign), centre }
    }
}

/// The parameter of an op at a level, as [`Action::parameter`] has it.
pub(crate) fn parameter(op: Op, level: u8, sign: Sign) -> f64 {
    match op {
        Op::Rotate => rotate_degrees(level, sign).into(),
        Op::TranslateX | Op::TranslateY => translate_pixels(level, sign).into(),
        Op::ShearX | Op::ShearY => shear_slope(level, sign),
        Op::Brightness | Op::Color | Op::Contrast | Op::Sharpness => enhance_factor(level).into(),
        Op::Posterize => posterize_bits(level).into(),
        Op::Solarize => solarize_threshold(level).into(),
        Op::Cutout => cutout_size(level).into(),
        Op::Invert | Op::Equalize | Op::AutoContrast => 0.0,
    }
}

#[track_caller]
fn checked(level: u8) -> u8 {
    assert!(level <= MAGNITUDE_MAX, "magnitude {level}; allowed are 0..={MAGNITUDE_MAX}");
    level
}

/// Angle of Rotate in degrees, counter-clockwise: 0, 3, 6 ... 27.
pub fn rotate_degrees(level: u8, sign: Sign) -> i32 {
    sign.of(i32::from(checked(level)) * 30 / 10)
}

/// Shift of TranslateX and TranslateY in pixels, to the left or up: 0, 1, 2 ... 9.
pub fn translate_pixels(level: u8, sign: Sign) -> i32 {
    sign.of(i32::from(checked(level)))
}

/// Slope of ShearX and ShearY, in pixels per pixel: 0, 0.03, 0.06 ... 0.27.
pub fn shear_slope(level: u8, sign: Sign) -> f64 {
    f64::from(sign.of(1)) * (f64::from(checked(level)) * 0.3 / 10.0)
}

/// Factor of Brightness, Color, Contrast and Sharpness: 0.1, 0.28, 0.46 ... 1.72. At 1, which is
/// level 5, nothing changes.
///
/// Computed in double precision, as Python does, then rounded to Pillow's single precision.
pub fn enhance_factor(level: u8) -> f32 {
    (f64::from(checked(level)) * 1.8 / 10.0 + 0.1) as f32
}

/// Bits that Posterize keeps: 4 down to 1.
pub fn posterize_bits(level: u8) -> u32 {
    4 - u32::from(checked(level)) * 4 / 10
}

/// Least value that Solarize inverts: 256 (none) down to 26.
pub fn solarize_threshold(level: u8) -> u32 {
    256 - u32::from(checked(level)) * 256 / 10
}

/// Side of Cutout's square in pixels: 0, 2, 4 ... 18.
pub fn cutout_size(level: u8) -> u32 {
    u32::from(checked(level)) * 20 / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: PartialEq + std::fmt::Debug>(of: impl Fn(u8) -> T, expected: [T; 10]) {
        assert_eq!(std::array::from_fn::<T, 10, _>(|level| of(level as u8)), expected);
    }

    /// Printed by Python from the reference's formulas.
    #[test]
    fn levels_mean_what_the_reference_says() {
        check(|level| rotate_degrees(level, Sign::Plus), [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]);
        check(|level| rotate_degrees(level, Sign::Minus), [0, -3, -6, -9, -12, -15, -18, -21, -24, -27]);
        check(|level| translate_pixels(level, Sign::Minus), [0, -1, -2, -3, -4, -5, -6, -7, -8, -9]);
        check(
            |level| shear_slope(level, Sign::Plus),
            [0.0, 0.03, 0.06, 0.09, 0.12, 0.15, 0.18, 0.21000000000000002, 0.24, 0.26999999999999996],
        );
        check(posterize_bits, [4, 4, 4, 3, 3, 2, 2, 2, 1, 1]);
        check(solarize_threshold, [256, 231, 205, 180, 154, 128, 103, 77, 52, 26]);
        check(cutout_size, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
        check(enhance_factor, [0.1, 0.28, 0.46, 0.64, 0.82, 1.0, 1.18, 1.36, 1.54, 1.72]);
    }

    #[test]
    #[should_panic(expected = "magnitude 10; allowed are 0..=9")]
    fn there_is_no_level_10() {
        translate_pixels(10, Sign::Plus);
    }
}
