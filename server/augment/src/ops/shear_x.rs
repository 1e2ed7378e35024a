//! ShearX: slants the image along x.
//!
//! `Image.transform(size, AFFINE, (1, slope, 0, 0, 1, 0))`: nearest neighbour, exposed pixels
//! (0, 0, 0, 0). A row's pixels all move by the same whole number: the source column is
//! `x + floor(slope (y + 1/2) + 1/2)` in Pillow's fixed-point numbers.

use super::affine::{shift_rows, slope};
use super::face::{Effect, Face};
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::gather::portable::FixedAffine;

/// Largest slope, either way: images stay inside Pillow's fixed-point coordinates.
pub const SLOPE_MAX: f64 = 0.999;

pub(super) const FACE: Face = Face {
    apply: |action, image, scratch| shear_x(image, slope(action), scratch),
    effect: |action| Effect::Pixels.unless(slope(action) == 0.0),
    caption: |action| format!("{:.2}", slope(action)),
};

/// Moves each row to the left by `slope` times its distance from the top; to the right when
/// negative.
///
/// # Panics
/// When the slope is not in -0.999..=0.999.
pub fn shear_x(image: &mut Rgba, slope: f64, scratch: &mut Scratch) {
    assert!(slope.abs() <= SLOPE_MAX, "slope {slope}; allowed are -{SLOPE_MAX}..={SLOPE_MAX}");
    if slope != 0.0 {
        shift_rows(&FixedAffine::new([1.0, slope, 0.0, 0.0, 1.0, 0.0]), image, scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::{HOLE, ramp, reds};
    use crate::simd::gather::gather;
    use crate::simd::level::Level;

    #[test]
    fn rows_slant() {
        let mut image = ramp(4, 2);
        shear_x(&mut image, 0.5, &mut Scratch::new());
        // Distances 0.25, 0.75, 1.25 and 1.75, rounded.
        assert_eq!(reds(&image), [0, 1, 3, HOLE, 5, HOLE, HOLE, HOLE]);
    }

    #[test]
    fn shifting_rows_is_the_general_transform() {
        for (height, width) in [(1, 1), (7, 5), (32, 32), (90, 3)] {
            for slope in [0.03, 0.27, -0.15, 0.9, -0.9, 0.999, -0.999, 1e-9] {
                for level in Level::available() {
                    let image = ramp(height, width);
                    let (mut out, mut sheared) = (image.pixels().to_vec(), image.clone());
                    gather(
                        Level::PORTABLE,
                        &FixedAffine::new([1.0, slope, 0.0, 0.0, 1.0, 0.0]),
                        image.pixels(),
                        &mut out,
                        width as usize,
                    );
                    shear_x(&mut sheared, slope, &mut Scratch::with_level(level));
                    assert_eq!(sheared.pixels(), out, "{level}, {height}x{width}, slope {slope}");
                }
            }
        }
    }
}
