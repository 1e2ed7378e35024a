//! What the enhancing ops share: Pillow's blend, and its gray.
//!
//! An enhancing op blends a duller image with the image itself, `dull + factor * (image - dull)`:
//! a factor below 1 goes towards the dull one, 1 changes nothing, and above 1 goes away from it.

use super::table::Table;
use crate::simd::per_level;

/// Blends one byte in single precision, then cuts the fraction off and clips to 0..=255, as
/// `Image.blend` does. The alpha channel of the dull image is the image's own, so it stays.
#[inline(always)]
pub(super) fn blend(dull: u8, value: u8, factor: f32) -> u8 {
    blend_words(dull.into(), value.into(), factor) as u8
}

/// [`blend`] on bytes that stand in words: the form that the compiler makes vectors of.
#[inline(always)]
pub(super) fn blend_words(dull: u32, value: u32, factor: f32) -> u32 {
    let (dull, value) = (dull as i32, value as i32);
    let blended = dull as f32 + factor * (value - dull) as f32;
    // Pillow clips for factors outside of 0..=1 only; within, nothing is ever out of range.
    let blended = if blended > 0.0 { blended } else { 0.0 };
    let blended = if blended < 255.0 { blended } else { 255.0 };
    // Cuts the fraction off. A conversion with `as` would do, but its care for values that are no
    // integer's keeps the loop from becoming vectors. Next to 2^23 a float has no fraction: the
    // sum is rounded, its low bits are the integer, and where rounding went up, one is too many.
    const ANCHOR: f32 = 8_388_608.0;
    let rounded = blended + ANCHOR;
    let went_up = rounded - ANCHOR > blended;
    (rounded.to_bits() & 0x1FF) - u32::from(went_up)
}

per_level! {
    /// What each value becomes when it is blended with `dull`.
    pub(super) fn blend_table(dull: u8, factor: f32) -> Table {
        let mut table = [0; 256];
        for (value, out) in (0..=255).zip(&mut table) {
            *out = blend(dull, value, factor);
        }
        table
    }
}

/// Pillow's gray of a pixel: ITU-R 601-2 luma in 16 fractional bits, rounded.
#[inline(always)]
pub(super) fn gray(pixel: u32) -> u32 {
    let (red, green, blue) = (pixel & 0xFF, pixel >> 8 & 0xFF, pixel >> 16 & 0xFF);
    (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::magnitude::enhance_factor;

    /// Pillow's C, with conversions.
    fn blend_plain(dull: u8, value: u8, factor: f32) -> u8 {
        let blended = f32::from(dull) + factor * (i32::from(value) - i32::from(dull)) as f32;
        if blended <= 0.0 {
            0
        } else if blended >= 255.0 {
            255
        } else {
            blended as u8
        }
    }

    #[test]
    fn every_pair_of_bytes_at_every_level() {
        let factors = (0..=9).map(enhance_factor).chain([0.0, 0.5, 1.0 / 3.0, 2.0, 1000.0, -1.0]);
        for factor in factors {
            for (dull, value) in (0..=255).flat_map(|dull| (0..=255).map(move |value| (dull, value))) {
                let expected = blend_plain(dull, value, factor);
                assert_eq!(blend(dull, value, factor), expected, "{dull}, {value}, {factor}");
            }
        }
    }
}
