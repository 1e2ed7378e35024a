//! The one list of operations.

use std::fmt;
use std::str::FromStr;

/// An augmentation operation, in the order in which the reference implementation lists them.
///
/// Policies are stored by op *name*: a list by position changes its meaning silently when the
/// list changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Op {
    /// Turn about the centre.
    Rotate,
    /// Shift along x.
    TranslateX,
    /// Shift along y.
    TranslateY,
    /// Blend with black.
    Brightness,
    /// Blend with the grayscale image.
    Color,
    /// Replace v by 255 - v.
    Invert,
    /// Blend with a smoothed image.
    Sharpness,
    /// Keep the high bits.
    Posterize,
    /// Slant along x.
    ShearX,
    /// Invert values at or above a threshold.
    Solarize,
    /// Slant along y.
    ShearY,
    /// Flatten the histogram of each channel.
    Equalize,
    /// Stretch the histogram of each channel.
    AutoContrast,
    /// Erase a square.
    Cutout,
    /// Blend with the mean gray.
    Contrast,
}

impl Op {
    /// Every op, in declaration order.
    pub const ALL: [Op; 15] = [
        Op::Rotate,
        Op::TranslateX,
        Op::TranslateY,
        Op::Brightness,
        Op::Color,
        Op::Invert,
        Op::Sharpness,
        Op::Posterize,
        Op::ShearX,
        Op::Solarize,
        Op::ShearY,
        Op::Equalize,
        Op::AutoContrast,
        Op::Cutout,
        Op::Contrast,
    ];

    /// The name used in files, requests and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Op::Rotate => "Rotate",
            Op::TranslateX => "TranslateX",
            Op::TranslateY => "TranslateY",
            Op::Brightness => "Brightness",
            Op::Color => "Color",
            Op::Invert => "Invert",
            Op::Sharpness => "Sharpness",
            Op::Posterize => "Posterize",
            Op::ShearX => "ShearX",
            Op::Solarize => "Solarize",
            Op::ShearY => "ShearY",
            Op::Equalize => "Equalize",
            Op::AutoContrast => "AutoContrast",
            Op::Cutout => "Cutout",
            Op::Contrast => "Contrast",
        }
    }

    /// Every op name, comma-separated: for error messages and help texts.
    pub fn names() -> String {
        Op::ALL.map(Op::name).join(", ")
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is not an op's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown op {name:?}; the ops are {}", Op::names())]
pub struct UnknownOp {
    /// The name that was given.
    pub name: String,
}

impl FromStr for Op {
    type Err = UnknownOp;

    fn from_str(name: &str) -> Result<Op, UnknownOp> {
        Op::ALL.into_iter().find(|op| op.name() == name).ok_or_else(|| UnknownOp { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_positions_match() {
        for (position, op) in Op::ALL.into_iter().enumerate() {
            assert_eq!(op.name().parse(), Ok(op));
            assert_eq!(op as usize, position);
        }
        assert!("rotate".parse::<Op>().is_err(), "names are case-sensitive");
    }
}
