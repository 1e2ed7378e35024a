//! TranslateY: shifts the image along y.
//!
//! `Image.transform(size, AFFINE, (1, 0, 0, 0, 1, pixels))`: nearest neighbour, exposed pixels
//! (0, 0, 0, 0).

use super::affine::{pixels, shift_row};
use super::face::{Effect, Face};
use crate::image::Rgba;

pub(super) const FACE: Face = Face {
    apply: |action, image, _| translate_y(image, pixels(action)),
    effect: |action| Effect::Pixels.unless(pixels(action) == 0),
    caption: |action| format!("{}px", pixels(action)),
};

/// Shifts the image up by `pixels`; down when negative.
pub fn translate_y(image: &mut Rgba, pixels: i32) {
    if pixels == 0 {
        return;
    }
    // Rows follow one another, so the whole image shifts like one row.
    let distance = i64::from(pixels) * i64::from(image.shape().width);
    shift_row(image.pixels_mut(), distance);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::{HOLE, ramp, reds};

    #[test]
    fn columns_move_and_expose_holes() {
        let moved = |pixels| {
            let mut image = ramp(3, 2);
            translate_y(&mut image, pixels);
            reds(&image)
        };
        assert_eq!(moved(1), [2, 3, 4, 5, HOLE, HOLE]);
        assert_eq!(moved(-2), [HOLE, HOLE, HOLE, HOLE, 0, 1]);
        assert_eq!(moved(0), [0, 1, 2, 3, 4, 5]);
        for all in [3, -3, 4, i32::MAX, i32::MIN] {
            assert_eq!(moved(all), [HOLE; 6], "{all}");
        }
    }
}
