//! Rotate: turns the image about its centre.
//!
//! `Image.rotate(degrees)`: nearest neighbour, exposed pixels (0, 0, 0, 0).

use super::affine::transform;
use super::face::{Effect, Face};
use crate::call::OpCall;
use crate::image::Rgba;
use crate::magnitude;
use crate::scratch::Scratch;
use crate::simd::gather::portable::FixedAffine;

/// Largest angle, in degrees, either way.
pub const DEGREES_MAX: i32 = 30;

pub(super) const FACE: Face = Face {
    apply: |call, image, scratch| rotate(image, degrees(call), scratch),
    effect: |call| Effect::Pixels.unless(degrees(call) == 0),
    caption: |call| degrees(call).to_string(),
};

fn degrees(call: &OpCall) -> i32 {
    magnitude::rotate_degrees(call.magnitude, call.sign)
}

/// Turns the image counter-clockwise by `degrees`, in -30..=30.
///
/// # Panics
/// When the angle is out of range.
pub fn rotate(image: &mut Rgba, degrees: i32, scratch: &mut Scratch) {
    assert!(degrees.abs() <= DEGREES_MAX, "{degrees} degrees; allowed are -{DEGREES_MAX}..={DEGREES_MAX}");
    if degrees == 0 {
        return;
    }
    let shape = image.shape();
    let (cos, sin) = COS_SIN[(degrees + DEGREES_MAX) as usize];
    // Pillow's order of operations, so that every rounding is its own.
    let (centre_x, centre_y) = (f64::from(shape.width) / 2.0, f64::from(shape.height) / 2.0);
    let c = cos * -centre_x + sin * -centre_y + 0.0 + centre_x;
    let f = -sin * -centre_x + cos * -centre_y + 0.0 + centre_y;
    transform(&FixedAffine::new([cos, sin, c, -sin, cos, f]), image, scratch);
}

/// Cosine and sine of `-radians(degrees mod 360)` for degrees -30, -29 ... 30, rounded to 15
/// decimals as Pillow rounds them, so that no platform's mathematical library matters. Printed by
///
/// ```python
/// for degrees in range(-30, 31):
///     angle = -math.radians(degrees % 360.0)
///     print((round(math.cos(angle), 15), round(math.sin(angle), 15)))
/// ```
///
/// The angles of -d and d differ by more than their sign: radians(360 - d) is rounded elsewhere.
#[rustfmt::skip]
const COS_SIN: [(f64, f64); 61] = [
    (0.866025403784438, 0.5), (0.874619707139396, 0.484809620246337),
    (0.882947592858927, 0.469471562785891), (0.891006524188368, 0.453990499739547),
    (0.898794046299167, 0.438371146789078), (0.90630778703665, 0.422618261740699),
    (0.913545457642601, 0.4067366430758), (0.92050485345244, 0.390731128489274),
    (0.927183854566787, 0.374606593415912), (0.933580426497202, 0.358367949545301),
    (0.939692620785908, 0.342020143325669), (0.945518575599317, 0.325568154457157),
    (0.951056516295154, 0.309016994374948), (0.956304755963035, 0.292371704722737),
    (0.961261695938319, 0.275637355816999), (0.965925826289068, 0.258819045102521),
    (0.970295726275996, 0.241921895599668), (0.974370064785235, 0.224951054343865),
    (0.978147600733806, 0.20791169081776), (0.981627183447664, 0.190808995376545),
    (0.984807753012208, 0.17364817766693), (0.987688340595138, 0.156434465040231),
    (0.99026806874157, 0.139173100960066), (0.992546151641322, 0.121869343405147),
    (0.994521895368273, 0.104528463267653), (0.996194698091746, 0.087155742747658),
    (0.997564050259824, 0.069756473744126), (0.998629534754574, 0.052335956242944),
    (0.999390827019096, 0.034899496702501), (0.999847695156391, 0.017452406437284),
    (1.0, -0.0), (0.999847695156391, -0.017452406437284),
    (0.999390827019096, -0.034899496702501), (0.998629534754574, -0.052335956242944),
    (0.997564050259824, -0.069756473744125), (0.996194698091746, -0.087155742747658),
    (0.994521895368273, -0.104528463267653), (0.992546151641322, -0.121869343405147),
    (0.99026806874157, -0.139173100960065), (0.987688340595138, -0.156434465040231),
    (0.984807753012208, -0.17364817766693), (0.981627183447664, -0.190808995376545),
    (0.978147600733806, -0.207911690817759), (0.974370064785235, -0.224951054343865),
    (0.970295726275996, -0.241921895599668), (0.965925826289068, -0.258819045102521),
    (0.961261695938319, -0.275637355816999), (0.956304755963035, -0.292371704722737),
    (0.951056516295154, -0.309016994374947), (0.945518575599317, -0.325568154457157),
    (0.939692620785908, -0.342020143325669), (0.933580426497202, -0.3583679495453),
    (0.927183854566787, -0.374606593415912), (0.92050485345244, -0.390731128489274),
    (0.913545457642601, -0.4067366430758), (0.90630778703665, -0.422618261740699),
    (0.898794046299167, -0.438371146789077), (0.891006524188368, -0.453990499739547),
    (0.882947592858927, -0.469471562785891), (0.874619707139396, -0.484809620246337),
    (0.866025403784439, -0.5),
];

#[cfg(test)]
mod tests {
    use super::*;
    use pba_types::ImageShape;

    #[test]
    fn the_table_holds_cosines_and_sines() {
        for (degrees, (cos, sin)) in (-DEGREES_MAX..).zip(COS_SIN) {
            let angle = -f64::from(degrees.rem_euclid(360)).to_radians();
            assert!((cos - angle.cos()).abs() < 1e-15 && (sin - angle.sin()).abs() < 1e-15, "{degrees}");
        }
    }

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
