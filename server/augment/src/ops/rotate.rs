//! Rotate: turns the image about its centre.
//!
//! `Image.rotate(degrees)`: nearest neighbour, exposed pixels (0, 0, 0, 0).

use super::affine::transform;
use super::angles::cos_sin;
use super::face::{Effect, Face};
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::gather::portable::FixedAffine;

pub(super) const FACE: Face = Face {
    apply: |action, image, scratch| rotate(image, action.parameter, scratch),
    effect: |action| Effect::Pixels.unless(action.parameter == 0.0),
    caption: |action| ((action.parameter * 10.0).round() / 10.0).to_string(),
};

/// Turns the image counter-clockwise by `degrees`, which are those of a policy: whole ones in -30..=30,
/// multiples of 4.5 in -135..=135, and the angles of AutoAugment's bins.
///
/// # Panics
/// When it is another angle.
pub fn rotate(image: &mut Rgba, degrees: impl Into<f64>, scratch: &mut Scratch) {
    let degrees = degrees.into();
    if degrees == 0.0 {
        return;
    }
    let (cos, sin) =
        cos_sin(degrees).unwrap_or_else(|| panic!("{degrees} degrees; no policy has such an angle"));
    let shape = image.shape();
    // Pillow's order of operations, so that every rounding is its own.
    let (centre_x, centre_y) = (f64::from(shape.width) / 2.0, f64::from(shape.height) / 2.0);
    let c = cos * -centre_x + sin * -centre_y + 0.0 + centre_x;
    let f = -sin * -centre_x + cos * -centre_y + 0.0 + centre_y;
    transform(&FixedAffine::new([cos, sin, c, -sin, cos, f]), image, scratch);
}

#[cfg(test)]
mod tests {
    use super::*;
    use pba_types::ImageShape;

    #[test]
    fn turns_counter_clockwise() {
        let shape = ImageShape { height: 9, width: 9 };
        let mut rgb = vec![0; shape.rgb_bytes()];
        // A white pixel at the right end of the middle row.
        rgb[3 * (4 * 9 + 8)] = 255;
        let mut image = Rgba::from_rgb(shape, &rgb).unwrap();
        rotate(&mut image, 30, &mut Scratch::new());
        let white = image.pixels().iter().position(|pixel| pixel[0] == 255);
        // It is now up, by half of its distance from the centre: 2 of 4 rows.
        assert_eq!(white.map(|at| (at / 9, at % 9)), Some((2, 7)));
        assert_eq!(image.pixels()[0], [0; 4], "the corner is exposed");
    }
}
