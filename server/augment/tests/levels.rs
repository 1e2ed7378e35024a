//! Every level against plain Rust: all ops, at sizes that leave tails of every length.

use pba_augment::rng::{Address, Purpose, Stream, below};
use pba_augment::{ImageShape, Level, OpCall, Rgba, Scratch, Sign, apply, ops};
use pba_schedules::Op;
use rand::Rng;

/// Random pixels; `kind` says which alphas: 0 for opaque, 1 for holes, 2 for any.
fn draw(shape: ImageShape, kind: u32, rng: &mut Stream) -> Rgba {
    let mut rgba = vec![0; 4 * shape.pixels()];
    for pixel in rgba.as_chunks_mut::<4>().0 {
        let [r, g, b, a] = rng.next_u32().to_le_bytes();
        let alpha = match kind {
            0 => 255,
            1 => (a >> 6 != 0) as u8 * 255,
            _ => a,
        };
        *pixel = [r, g, b, alpha];
    }
    Rgba::from_rgba(shape, &rgba).unwrap()
}

/// Runs something at every level and holds it against the portable one, pixel by pixel.
#[track_caller]
fn check(what: &str, image: &Rgba, op: impl Fn(&mut Rgba, &mut Scratch)) {
    let of = |level| {
        let mut image = image.clone();
        op(&mut image, &mut Scratch::with_level(level));
        image
    };
    let expected = of(Level::PORTABLE);
    for level in Level::available() {
        let actual = of(level);
        let ImageShape { height, width } = image.shape();
        for (i, (expected, actual)) in expected.pixels().iter().zip(actual.pixels()).enumerate() {
            let (row, column) = (i / width as usize, i % width as usize);
            assert_eq!(
                expected,
                actual,
                "{what} at {level}, {height}x{width}, row {row}, column {column}, from {:?}",
                image.pixels()[i]
            );
        }
    }
}

fn check_every_op(shape: ImageShape, rng: &mut Stream) {
    for op in Op::ALL {
        for magnitude in 0..=9 {
            for sign in [Sign::Plus, Sign::Minus] {
                let centre = (below(rng.next_u32(), shape.width), below(rng.next_u32(), shape.height));
                let image = draw(shape, below(rng.next_u32(), 3), rng);
                let call = OpCall { op, magnitude, sign, centre };
                check(&format!("{call:?}"), &image, |image, scratch| apply(&call, image, scratch));
            }
        }
    }
}

fn stream(item: u64) -> Stream {
    Address { seed: 9, purpose: Purpose::Dataset, epoch: 0, item }.stream()
}

#[test]
fn every_width() {
    for width in 1..=70 {
        let mut rng = stream(width.into());
        let height = 1 + below(rng.next_u32(), 9);
        check_every_op(ImageShape { height, width }, &mut rng);
    }
}

#[test]
fn square_and_odd_shapes() {
    for (height, width) in [(1, 1), (3, 5), (31, 33), (32, 32), (33, 31), (63, 65), (64, 64), (224, 224)] {
        check_every_op(ImageShape { height, width }, &mut stream(1000 + u64::from(height)));
    }
}

/// Parameters that no magnitude gives, but that the ops take.
#[test]
fn parameters_between_and_beyond_the_levels() {
    for (height, width) in [(7, 21), (40, 17), (33, 64), (3, 300)] {
        let mut rng = stream(2000 + u64::from(width));
        let mut image = |kind| draw(ImageShape { height, width }, kind, &mut rng);
        for factor in [0.0, 0.5, 1.0, 1.0 / 3.0, 2.0, 100.0, -1.0] {
            let what = format!("factor {factor}");
            check(&what, &image(1), |image, scratch| ops::brightness(image, factor, scratch));
            check(&what, &image(2), |image, scratch| ops::color(image, factor, scratch));
            check(&what, &image(1), |image, scratch| ops::contrast(image, factor, scratch));
            check(&what, &image(2), |image, scratch| ops::sharpness(image, factor, scratch));
        }
        for degrees in -30..=30 {
            check(&format!("{degrees} degrees"), &image(1), |image, s| ops::rotate(image, degrees, s));
        }
        for slope in [1e-9, -1e-9, 0.07, -0.45, 0.9, -0.9] {
            check(&format!("slope {slope}"), &image(1), |image, s| ops::shear_x(image, slope, s));
            check(&format!("slope {slope}"), &image(1), |image, s| ops::shear_y(image, slope, s));
        }
        for pixels in [16, -16, 17, -63, 299, -300, 301, 70_000, i32::MAX, i32::MIN] {
            check(&format!("{pixels} pixels"), &image(1), |image, s| ops::translate_x(image, pixels, s));
        }
        for threshold in 0..=256 {
            check(&format!("threshold {threshold}"), &image(1), |image, s| {
                ops::solarize(image, threshold, s)
            });
        }
        for bits in 1..=8 {
            check(&format!("{bits} bits"), &image(1), |image, scratch| ops::posterize(image, bits, scratch));
        }
    }
}
