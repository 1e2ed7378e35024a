//! Posterize: keeps the high bits of each value.
//!
//! `ImageOps.posterize(image, bits)` on RGB; alpha becomes 255.

use super::face::{Effect, Face};
use super::table::map_opaque;
use crate::call::Action;
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::level::per_level;
use crate::simd::lookup::portable::table;

pub(super) const FACE: Face = Face {
    apply: |action, image, scratch| posterize(image, bits(action), scratch),
    effect: |action| {
        let effect = Effect::Tables(|action, _, _| {
            let mask = mask(bits(action));
            [table(|value| value & mask); 3]
        });
        effect.unless(bits(action) == 8)
    },
    caption: |action| format!("{} bits", bits(action)),
};

fn bits(action: &Action) -> u32 {
    action.parameter as u32
}

fn mask(bits: u32) -> u8 {
    0xFF << (8 - bits)
}

/// Keeps the `bits` high bits of red, green and blue, 1..=8, and clears the others.
///
/// # Panics
/// When `bits` is out of range.
pub fn posterize(image: &mut Rgba, bits: u32, scratch: &mut Scratch) {
    assert!((1..=8).contains(&bits), "{bits} bits; allowed are 1..=8");
    mask_pixels(scratch.level(), image.pixels_mut(), mask(bits));
}

per_level! {
    fn mask_pixels(pixels: &mut [[u8; 4]], mask: u8) {
        map_opaque(pixels, |value| value & mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::one_pixel;

    #[test]
    fn high_bits_stay() {
        let of = |bits| one_pixel([255, 130, 15, 0], |image| posterize(image, bits, &mut Scratch::new()));
        assert_eq!(of(4), [240, 128, 0, 255]);
        assert_eq!(of(1), [128, 128, 0, 255]);
        assert_eq!(of(8), [255, 130, 15, 255]);
    }
}
