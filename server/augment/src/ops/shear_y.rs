//! ShearY: slants the image along y.
//!
//! `Image.transform(size, AFFINE, (1, 0, 0, slope, 1, 0))`: nearest neighbour, exposed pixels
//! (0, 0, 0, 0).

use super::affine::{slope, transform};
use super::face::{Effect, Face};
use super::shear_x::SLOPE_MAX;
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::gather::portable::FixedAffine;

pub(super) const FACE: Face = Face {
    apply: |action, image, scratch| shear_y(image, slope(action), scratch),
    effect: |action| Effect::Pixels.unless(slope(action) == 0.0),
    caption: |action| format!("{:.2}", slope(action)),
};

/// Moves each column up by `slope` times its distance from the left; down when negative.
///
/// # Panics
/// When the slope is not in -0.999..=0.999.
pub fn shear_y(image: &mut Rgba, slope: f64, scratch: &mut Scratch) {
    assert!(slope.abs() <= SLOPE_MAX, "slope {slope}; allowed are -{SLOPE_MAX}..={SLOPE_MAX}");
    if slope != 0.0 {
        transform(&FixedAffine::new([1.0, 0.0, 0.0, slope, 1.0, 0.0]), image, scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::{HOLE, ramp, reds};

    #[test]
    fn columns_slant() {
        let mut image = ramp(2, 4);
        shear_y(&mut image, 0.5, &mut Scratch::new());
        // Distances 0.25, 0.75, 1.25 and 1.75, rounded.
        assert_eq!(reds(&image), [0, 5, 6, HOLE, 4, HOLE, HOLE, HOLE]);
    }
}
