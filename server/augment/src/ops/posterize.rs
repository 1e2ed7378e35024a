//! Posterize: keeps the high bits of each value.
//!
//! `ImageOps.posterize(image, bits)` on RGB; alpha becomes 255.

use super::table::map_opaque;
use crate::image::Rgba;

/// Keeps the `bits` high bits of red, green and blue, 1..=8, and clears the others.
///
/// # Panics
/// When `bits` is out of range.
pub fn posterize(image: &mut Rgba, bits: u32) {
    assert!((1..=8).contains(&bits), "{bits} bits; allowed are 1..=8");
    let mask = 0xFFu8 << (8 - bits);
    map_opaque(image, |value| value & mask);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::one_pixel;

    #[test]
    fn high_bits_stay() {
        let of = |bits| one_pixel([255, 130, 15, 0], |image| posterize(image, bits));
        assert_eq!(of(4), [240, 128, 0, 255]);
        assert_eq!(of(1), [128, 128, 0, 255]);
        assert_eq!(of(8), [255, 130, 15, 255]);
    }
}
