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

use super::blend::factor;
use super::face::{Effect, Face};
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::blend::portable::{ShortBlend, blend};
use crate::simd::level::per_level;

pub(super) const FACE: Face = Face {
    apply: |action, image, scratch| sharpness(image, factor(action), scratch),
    effect: |action| Effect::Pixels.unless(factor(action) == 1.0),
    caption: |action| format!("x{:.2}", factor(action)),
};

/// Moves red, green and blue away from the smoothed image, to `factor` times the distance: 0 is
/// smooth, 1 is the image, more is sharper.
pub fn sharpness(image: &mut Rgba, factor: f32, scratch: &mut Scratch) {
    let shape = image.shape();
    if factor == 1.0 || shape.width < 3 || shape.height < 3 {
        return;
    }
    let (level, width) = (scratch.level(), shape.width as usize);
    image.rewrite(&mut scratch.pixels, |pixels, out| match ShortBlend::of(factor) {
        Some(short) => sharpen_shortly(level, pixels, out, width, short),
        None => sharpen(level, pixels, out, width, factor),
    });
}

per_level! {
    fn sharpen(pixels: &[[u8; 4]], out: &mut [[u8; 4]], width: usize, factor: f32) {
        sharpen_inner(pixels, out, width, |dull, value| blend(dull as u8, value, factor));
    }
}

per_level! {
    fn sharpen_shortly(pixels: &[[u8; 4]], out: &mut [[u8; 4]], width: usize, short: ShortBlend) {
        sharpen_inner(pixels, out, width, |dull, value| short.blend(dull as i16, value.into()) as u8);
    }
}

/// Sharpens an image of at least three rows and columns.
#[inline(always)]
fn sharpen_inner(pixels: &[[u8; 4]], out: &mut [[u8; 4]], width: usize, blend: impl Fn(u16, u8) -> u8) {
    /// Bytes that are done at a time: long loops make good vectors.
    const CHUNK: usize = 1024;
    let (row, margin) = (4 * width, 4 * width + 4);
    let (bytes, inner) = (pixels.as_flattened(), 4 * pixels.len() - 2 * margin);
    // From the first inner pixel to the last, as if rows were one long one: a byte's neighbours are
    // four bytes and a row away. What that makes of the border is replaced afterwards.
    let mut sums = [0u16; CHUNK + 8];
    for (i, out) in out.as_flattened_mut()[margin..][..inner].chunks_mut(CHUNK).enumerate() {
        let (first, len) = (i * CHUNK, out.len());
        let wide = |start: usize| &bytes[first + start..][..len + 8];
        let sums = &mut sums[..len + 8];
        for (((sum, above), value), below) in sums.iter_mut().zip(wide(0)).zip(wide(row)).zip(wide(2 * row)) {
            *sum = u16::from(*above) + u16::from(*value) + u16::from(*below);
        }
        let (left, middle, right) = (&sums[..len], &sums[4..][..len], &sums[8..][..len]);
        let values = &bytes[margin + first..][..len];
        for i in 0..len {
            let sum = left[i] + middle[i] + right[i] + 4 * u16::from(values[i]);
            out[i] = blend(thirteenth(sum), values[i]);
        }
        for (out, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values.as_chunks::<4>().0) {
            let (blended, value) = (u32::from_le_bytes(*out), u32::from_le_bytes(*value));
            *out = (blended & 0x00FF_FFFF | value & 0xFF00_0000).to_le_bytes();
        }
    }
    let last = pixels.len() - width;
    out[..width].copy_from_slice(&pixels[..width]);
    out[last..].copy_from_slice(&pixels[last..]);
    for (out, pixels) in out.chunks_exact_mut(width).zip(pixels.chunks_exact(width)) {
        out[0] = pixels[0];
        out[width - 1] = pixels[width - 1];
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
