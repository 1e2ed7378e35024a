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
use crate::simd::per_level;

/// Moves red, green and blue away from the smoothed image, to `factor` times the distance: 0 is
/// smooth, 1 is the image, more is sharper.
pub fn sharpness(image: &mut Rgba, factor: f32, scratch: &mut Scratch) {
    let shape = image.shape();
    if factor == 1.0 || shape.width < 3 || shape.height < 3 {
        return;
    }
    let level = scratch.level();
    scratch.pixels.resize(shape.pixels(), [0; 4]);
    scratch.sums.resize(4 * shape.width as usize, 0);
    let Scratch { pixels: out, sums, .. } = scratch;
    let (pixels, width) = (image.pixels(), shape.width as usize);
    let rows = shape.height as usize;
    out[..width].copy_from_slice(&pixels[..width]);
    out[(rows - 1) * width..].copy_from_slice(&pixels[(rows - 1) * width..]);
    for y in 1..rows - 1 {
        let row = |y: usize| &pixels[y * width..][..width];
        sharpen_row(level, [row(y - 1), row(y), row(y + 1)], &mut out[y * width..][..width], sums, factor);
    }
    image.swap_pixels(out);
}

per_level! {
/// The middle one of three rows. `sums` has room for a row's bytes.
fn sharpen_row(rows: [&[[u8; 4]]; 3], out: &mut [[u8; 4]], sums: &mut [u16], factor: f32) {
    let width = out.len();
    let [above, row, below] = rows.map(<[_]>::as_flattened);
    for (((sum, above), row), below) in sums.iter_mut().zip(above).zip(row).zip(below) {
        *sum = u16::from(*above) + u16::from(*row) + u16::from(*below);
    }
    // The neighbours of a byte in its channel are four bytes away.
    let inner = 4 * (width - 2);
    let (left, middle, right) = (&sums[..inner], &sums[4..][..inner], &sums[8..][..inner]);
    let values = &row[4..][..inner];
    let bytes = &mut out.as_flattened_mut()[4..][..inner];
    for i in 0..inner {
        let sum = left[i] + middle[i] + right[i] + 4 * u16::from(values[i]);
        bytes[i] = blend(thirteenth(sum), values[i], factor);
    }
    for (out, pixel) in out.iter_mut().zip(rows[1]) {
        out[3] = pixel[3];
    }
    out[0] = rows[1][0];
    out[width - 1] = rows[1][width - 1];
}
}

/// A thirteenth of a sum of thirteen bytes, rounded.
#[inline(always)]
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
