//! The one list of operations, and the levels at which policies apply them.

use serde::Serialize;

/// Probability levels are 0..=10, in tenths.
pub const PROBABILITY_MAX: u8 = 10;
/// Magnitude levels are 0..=9; what a level means in degrees, pixels or factors is the op's.
pub const MAGNITUDE_MAX: u8 = 9;

/// How often and how strongly a policy applies an op: for people, not for pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpOdds {
    /// How often the policy chooses the op, 0..=1.
    pub probability: f64,
    /// Its mean magnitude level when it does, 0..=9; 0 when it never does, or has no magnitude.
    pub magnitude: f64,
}

pba_types::named! {
    /// An augmentation operation.
    ///
    /// Policies are stored by op *name*: a list by position changes its meaning silently when the
    /// list changes. The first fifteen are the paper's, in the order in which its reference
    /// implementation lists them; others follow them.
    #[derive(Serialize)]
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
}

impl Op {
    /// The ops of the paper (Ho et al. 2019), for ever: what 60 integers without names are about,
    /// and what a search explores unless it is told otherwise.
    pub const PAPER: [Op; 15] = *Op::ALL.first_chunk().expect("the paper's ops are declared first");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_positions_match() {
        for (position, op) in Op::ALL.into_iter().enumerate() {
            assert_eq!(Op::named(op.name()), Some(op));
            assert_eq!(op as usize, position);
        }
        assert!(Op::named("rotate").is_none(), "names are case-sensitive");
    }

    #[test]
    fn the_papers_ops_stay_as_they_are() {
        let names = "Rotate TranslateX TranslateY Brightness Color Invert Sharpness Posterize ShearX Solarize ShearY \
                     Equalize AutoContrast Cutout Contrast";
        assert_eq!(Op::PAPER.map(Op::name).join(" "), names);
    }
}
