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

use super::blend::{ShortBlend, blend};
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
    match ShortBlend::of(factor) {
        Some(short) => sharpen_shortly(level, pixels, out, width, sums, short),
        None => sharpen(level, pixels, out, width, sums, factor),
    }
    image.swap_pixels(out);
}

per_level! {
    fn sharpen(pixels: &[[u8; 4]], out: &mut [[u8; 4]], width: usize, sums: &mut [u16], factor: f32) {
        sharpen_rows(pixels, out, width, sums, |dull, value| blend(dull as u8, value, factor));
    }
}

per_level! {
    fn sharpen_shortly(
        pixels: &[[u8; 4]],
        out: &mut [[u8; 4]],
        width: usize,
        sums: &mut [u16],
        short: ShortBlend,
    ) {
        sharpen_rows(pixels, out, width, sums, |dull, value| short.blend(dull as i16, value.into()) as u8);
    }
}

/// An image of at least three rows and columns. `sums` has room for a row's bytes.
#[inline(always)]
fn sharpen_rows(
    pixels: &[[u8; 4]],
    out: &mut [[u8; 4]],
    width: usize,
    sums: &mut [u16],
    blend: impl Fn(u16, u8) -> u8,
) {
    let last = pixels.len() - width;
    out[..width].copy_from_slice(&pixels[..width]);
    out[last..].copy_from_slice(&pixels[last..]);
    let rows = pixels.windows(3 * width).step_by(width);
    for (rows, out) in rows.zip(out[width..].chunks_exact_mut(width)) {
        let (above, rows) = rows.as_flattened().split_at(4 * width);
        let (row, below) = rows.split_at(4 * width);
        for (((sum, above), value), below) in sums.iter_mut().zip(above).zip(row).zip(below) {
            *sum = u16::from(*above) + u16::from(*value) + u16::from(*below);
        }
        // The neighbours of a byte in its channel are four bytes away.
        let inner = 4 * (width - 2);
        let (left, middle, right) = (&sums[..inner], &sums[4..][..inner], &sums[8..][..inner]);
        let values = &row[4..][..inner];
        let (first, bytes) = out.as_flattened_mut().split_at_mut(4);
        let (bytes, end) = bytes.split_at_mut(inner);
        for i in 0..inner {
            let sum = left[i] + middle[i] + right[i] + 4 * u16::from(values[i]);
            bytes[i] = blend(thirteenth(sum), values[i]);
        }
        for (out, pixel) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values.as_chunks::<4>().0) {
            out[3] = pixel[3];
        }
        first.copy_from_slice(&row[..4]);
        end.copy_from_slice(&row[4 + inner..]);
    }
}

/// A thirteenth of a sum of thirteen bytes, rounded.
#[inline(always)]
fn thirteenth(sum: u16) -> u16 {
    // floor((sum + 6) / 13), by a multiplication that is exact over this range.
    ((u32::from(sum + 6) * 5042) >> 16) as u16
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
