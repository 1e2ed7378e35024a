//! Brightness: blends with black.
//!
//! `ImageEnhance.Brightness(image).enhance(factor)`; alpha is kept.

use super::blend::{blend_with, factor};
use super::face::{Effect, Face};
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::blend::portable::blend_table;

pub(super) const FACE: Face = Face {
    apply: |action, image, scratch| brightness(image, factor(action), scratch),
    effect: |action| {
        Effect::Tables(|action, level, _| [blend_table(level, 0, factor(action)); 3])
            .unless(factor(action) == 1.0)
    },
    caption: |action| format!("x{:.2}", factor(action)),
};

/// Multiplies red, green and blue by `factor`: 0 is black, 1 is the image, more is brighter.
pub fn brightness(image: &mut Rgba, factor: f32, scratch: &mut Scratch) {
    if factor != 1.0 {
        blend_with(image, 0, factor, scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::one_pixel;

    #[test]
    fn values_are_multiplied_cut_and_clipped() {
        let of = |pixel, factor| one_pixel(pixel, |image| brightness(image, factor, &mut Scratch::new()));
        assert_eq!(of([200, 101, 0, 7], 0.46), [92, 46, 0, 7]);
        assert_eq!(of([200, 101, 1, 0], 1.54), [255, 155, 1, 0]);
        assert_eq!(of([200, 101, 1, 9], 1.0), [200, 101, 1, 9]);
        assert_eq!(of([200, 101, 1, 9], 0.0), [0, 0, 0, 9]);
    }
}
