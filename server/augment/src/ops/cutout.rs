//! Cutout: erases a square.
//!
//! The reference's own op: no Pillow function, but Pillow pixels. A square of `size` pixels about
//! a centre, as far as it lies in the image, becomes gray (125, 122, 113) with alpha 0. The base
//! augmentation erases the same square, to the mean colour.

use std::ops::Range;

use super::face::{Effect, Face};
use crate::call::Action;
use crate::image::Rgba;

/// What the square becomes.
const ERASED: [u8; 4] = [125, 122, 113, 0];

pub(super) const FACE: Face = Face {
    apply: |action, image, _| cutout(image, size(action), action.centre),
    effect: |action| Effect::Pixels.unless(size(action) == 0),
    caption: |action| format!("{}px", size(action)),
};

fn size(action: &Action) -> u32 {
    action.parameter as u32
}

/// Erases `size` columns and rows, from `centre - floor(size / 2)` on; `centre` is a column and a
/// row. A size of 0 does nothing.
pub fn cutout(image: &mut Rgba, size: u32, centre: (u32, u32)) {
    let shape = image.shape();
    let (columns, rows) = (span(centre.0, size, shape.width), span(centre.1, size, shape.height));
    for y in rows {
        image.pixels_mut()[y * shape.width as usize..][columns.clone()].fill(ERASED);
    }
}

/// The part inside `0..len` of `size` pixels about `centre`.
pub(crate) fn span(centre: u32, size: u32, len: u32) -> Range<usize> {
    let half = size / 2;
    let end = centre.saturating_add(size - half).min(len);
    centre.saturating_sub(half).min(end) as usize..end as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::{HOLE, ramp, reds};

    #[test]
    fn the_square_is_clipped() {
        let of = |size, centre| {
            let mut image = ramp(3, 3);
            cutout(&mut image, size, centre);
            assert!(image.pixels().iter().all(|&pixel| pixel[3] == 255 || pixel == ERASED));
            reds(&image)
        };
        assert_eq!(of(0, (1, 1)), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(of(2, (0, 2)), [0, 1, 2, HOLE, 4, 5, HOLE, 7, 8]);
        assert_eq!(of(2, (2, 1)), [0, HOLE, HOLE, 3, HOLE, HOLE, 6, 7, 8]);
        assert_eq!(of(1, (1, 1)), [0, 1, 2, 3, HOLE, 5, 6, 7, 8]);
        assert_eq!(of(100, (1, 1)), [HOLE; 9]);
    }
}
