//! Invert: replaces each value by 255 minus it.
//!
//! `ImageOps.invert` on RGB; alpha becomes 255.

use super::face::{Effect, Face};
use super::table::map_opaque;
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::level::per_level;
use crate::simd::lookup::portable::table;

pub(super) const FACE: Face = Face {
    apply: |_, image, scratch| invert(image, scratch),
    effect: |_| Effect::Tables(|_, _, _| [table(|value| !value); 3]),
    caption: |_| String::new(),
};

/// Replaces red, green and blue by 255 minus them.
pub fn invert(image: &mut Rgba, scratch: &mut Scratch) {
    invert_pixels(scratch.level(), image.pixels_mut());
}

per_level! {
    fn invert_pixels(pixels: &mut [[u8; 4]]) {
        map_opaque(pixels, |value| 255 - value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::one_pixel;

    #[test]
    fn values_are_inverted_and_holes_exposed() {
        assert_eq!(
            one_pixel([0, 100, 255, 0], |image| invert(image, &mut Scratch::new())),
            [255, 155, 0, 255]
        );
    }
}
