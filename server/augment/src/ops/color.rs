//! Color: blends with the grayscale image.
//!
//! `ImageEnhance.Color(image).enhance(factor)`; alpha is kept.

use super::blend::factor;
use super::face::{Effect, Face};
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::blend::blend_with_gray;

pub(super) const FACE: Face = Face {
    apply: |action, image, scratch| color(image, factor(action), scratch),
    effect: |action| Effect::Pixels.unless(factor(action) == 1.0),
    caption: |action| format!("x{:.2}", factor(action)),
};

/// Moves red, green and blue away from the pixel's gray, to `factor` times the distance: 0 is
/// gray, 1 is the image, more is more colourful.
pub fn color(image: &mut Rgba, factor: f32, scratch: &mut Scratch) {
    if factor != 1.0 {
        blend_with_gray(scratch.level(), image.pixels_mut(), factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::one_pixel;

    #[test]
    fn values_move_away_from_gray() {
        let of = |factor| one_pixel([200, 100, 50, 3], |image| color(image, factor, &mut Scratch::new()));
        // 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
        assert_eq!(of(0.0), [124, 124, 124, 3]);
        assert_eq!(of(0.1), [131, 121, 116, 3]);
        assert_eq!(of(1.0), [200, 100, 50, 3]);
        assert_eq!(of(1.72), [254, 82, 0, 3]);
        assert_eq!(of(2.0), [255, 76, 0, 3]);
    }
}
