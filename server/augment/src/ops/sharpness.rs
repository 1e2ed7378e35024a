//! Sharpness: blends with a smoothed image.
//!
//! `ImageEnhance.Sharpness(image).enhance(factor)`; alpha is kept. The smoothed image is
//! `ImageFilter.SMOOTH`: the mean of a pixel's 3x3 neighbourhood in which it counts five times,
//! rounded. Pixels at the border, and whole images with a side below 3, are their own smoothed
//! image, so they never change.
//!
//! Pillow adds the nine products up in single precision. With integers the sum is exact, and
//! rounds the same: a thirteenth is never halfway between two integers, and the nearest it comes
//! to halfway, 1/26, is far more than the rounding errors of the sum.

use super::blend::blend;
use crate::image::Rgba;
use crate::scratch::Scratch;

/// Moves red, green and blue away from the smoothed image, to `factor` times the distance: 0 is
/// smooth, 1 is the image, more is sharper.
pub fn sharpness(image: &mut Rgba, factor: f32, scratch: &mut Scratch) {
    let shape = image.shape();
    if factor == 1.0 || shape.width < 3 || shape.height < 3 {
        return;
    }
    let out = scratch.pixels(shape.pixels());
    let (pixels, width) = (image.pixels(), shape.width as usize);
    let rows = pixels.len() / width;
    out[..width].copy_from_slice(&pixels[..width]);
    out[(rows - 1) * width..].copy_from_slice(&pixels[(rows - 1) * width..]);
    for y in 1..rows - 1 {
        let row = |y: usize| &pixels[y * width..][..width];
        sharpen_row([row(y - 1), row(y), row(y + 1)], &mut out[y * width..][..width], factor);
    }
    image.swap_pixels(out);
}

/// The middle one of three rows.
fn sharpen_row(rows: [&[[u8; 4]]; 3], out: &mut [[u8; 4]], factor: f32) {
    let width = out.len();
    out[0] = rows[1][0];
    out[width - 1] = rows[1][width - 1];
    let inner = 4 * (width - 2);
    let [above, row, below] = rows.map(<[_]>::as_flattened);
    // The neighbours of a byte in its channel are four bytes away.
    let (a0, a1, a2) = (&above[..inner], &above[4..][..inner], &above[8..][..inner]);
    let (r0, r1, r2) = (&row[..inner], &row[4..][..inner], &row[8..][..inner]);
    let (b0, b1, b2) = (&below[..inner], &below[4..][..inner], &below[8..][..inner]);
    let bytes = &mut out.as_flattened_mut()[4..][..inner];
    for i in 0..inner {
        let around = [a0[i], a1[i], a2[i], r0[i], r2[i], b0[i], b1[i], b2[i]];
        let sum = around.iter().fold(5 * u16::from(r1[i]), |sum, &value| sum + u16::from(value));
        bytes[i] = blend(thirteenth(sum), r1[i], factor);
    }
    for (out, pixel) in out.iter_mut().zip(rows[1]) {
        out[3] = pixel[3];
    }
}

/// A thirteenth of a sum of thirteen bytes, rounded.
#[inline]
fn thirteenth(sum: u16) -> u8 {
    // floor((sum + 6) / 13), by a multiplication that is exact over this range.
    ((u32::from(sum + 6) * 5042) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::{ramp, reds};

    #[test]
    fn thirteenths_are_exact() {
        for sum in 0..=13 * 255u16 {
            assert_eq!(f64::from(thirteenth(sum)), (f64::from(sum) / 13.0).round(), "{sum}");
        }
    }

    #[test]
    fn only_inner_pixels_change() {
        let mut image = ramp(3, 4);
        image.pixels_mut()[5][0] = 70;
        sharpness(&mut image, 0.0, &mut Scratch::new());
        // Pixel 5: (0+1+2 + 4+5*70+6 + 8+9+10) / 13 = 30; pixel 6: (1+2+3 + 70+5*6+7 + 9+10+11) / 13.
        assert_eq!(reds(&image), [0, 1, 2, 3, 4, 30, 11, 7, 8, 9, 10, 11]);
        for (height, width) in [(2, 9), (9, 2), (1, 1)] {
            let mut image = ramp(height, width);
            sharpness(&mut image, 0.0, &mut Scratch::new());
            assert_eq!(image, ramp(height, width));
        }
    }
}
