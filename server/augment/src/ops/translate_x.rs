//! TranslateX: shifts the image along x.
//!
//! `Image.transform(size, AFFINE, (1, 0, pixels, 0, 1, 0))`: nearest neighbour, exposed pixels
//! (0, 0, 0, 0).

use super::affine::{pixels, shift_rows};
use super::face::{Effect, Face};
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::gather::portable::FixedAffine;
use pba_types::limits::SIDE_MAX;

pub(super) const FACE: Face = Face {
    apply: |action, image, scratch| translate_x(image, pixels(action), scratch),
    effect: |action| Effect::Pixels.unless(pixels(action) == 0),
    caption: |action| format!("{}px", pixels(action)),
};

/// Shifts the image to the left by `pixels`; to the right when negative.
pub fn translate_x(image: &mut Rgba, pixels: i32, scratch: &mut Scratch) {
    if pixels == 0 {
        return;
    }
    // No image is wider, and further than out nothing goes.
    let pixels = pixels.clamp(-(SIDE_MAX as i32), SIDE_MAX as i32);
    shift_rows(&FixedAffine::new([1.0, 0.0, pixels.into(), 0.0, 1.0, 0.0]), image, scratch);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::{HOLE, ramp, reds};

    #[test]
    fn rows_move_and_expose_holes() {
        let moved = |pixels| {
            let mut image = ramp(2, 3);
            translate_x(&mut image, pixels, &mut Scratch::new());
            reds(&image)
        };
        assert_eq!(moved(1), [[1, 2, HOLE], [4, 5, HOLE]].as_flattened());
        assert_eq!(moved(-2), [[HOLE, HOLE, 0], [HOLE, HOLE, 3]].as_flattened());
        assert_eq!(moved(0), [0, 1, 2, 3, 4, 5]);
        for all in [3, -3, 4, i32::MAX, i32::MIN] {
            assert_eq!(moved(all), [HOLE; 6], "{all}");
        }
    }
}
