//! Invert: replaces each value by 255 minus it.
//!
//! `ImageOps.invert` on RGB; alpha becomes 255.

use super::table::map_opaque;
use crate::image::Rgba;

/// Replaces red, green and blue by 255 minus them.
pub fn invert(image: &mut Rgba) {
    map_opaque(image, |value| 255 - value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::one_pixel;

    #[test]
    fn values_are_inverted_and_holes_exposed() {
        assert_eq!(one_pixel([0, 100, 255, 0], invert), [255, 155, 0, 255]);
    }
}
