//! TranslateX: shifts the image along x.
//!
//! `Image.transform(size, AFFINE, (1, 0, pixels, 0, 1, 0))`: nearest neighbour, exposed pixels
//! (0, 0, 0, 0).

use super::affine::shift_row;
use crate::image::Rgba;

/// Shifts the image to the left by `pixels`; to the right when negative.
pub fn translate_x(image: &mut Rgba, pixels: i32) {
    if pixels == 0 {
        return;
    }
    let width = image.shape().width as usize;
    for row in image.pixels_mut().chunks_exact_mut(width) {
        shift_row(row, pixels.into());
    }
    image.set_opaque(false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::{HOLE, ramp, reds};

    #[test]
    fn rows_move_and_expose_holes() {
        let moved = |pixels| {
            let mut image = ramp(2, 3);
            translate_x(&mut image, pixels);
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
