//! Color: blends with the grayscale image.
//!
//! `ImageEnhance.Color(image).enhance(factor)`; alpha is kept.

use super::blend::{ShortBlend, blend_words, gray};
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::per_level;
#[cfg(target_arch = "x86_64")]
use crate::simd::{self, Kind};

/// Moves red, green and blue away from the pixel's gray, to `factor` times the distance: 0 is
/// gray, 1 is the image, more is more colourful.
#[allow(unsafe_code)]
pub fn color(image: &mut Rgba, factor: f32, scratch: &mut Scratch) {
    if factor == 1.0 {
        return;
    }
    let level = scratch.level();
    match (level.kind(), ShortBlend::of(factor)) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level that exists was detected.
        (Kind::Avx512, Some(short)) => unsafe { simd::avx512::blend_with_gray(image.pixels_mut(), short) },
        _ => blend_with_gray(level, image.pixels_mut(), factor),
    }
}

per_level! {
    fn blend_with_gray(pixels: &mut [[u8; 4]], factor: f32) {
        for pixel in pixels {
            let word = u32::from_le_bytes(*pixel);
            let gray = gray(word);
            let channel = |shift: u32| blend_words(gray, word >> shift & 0xFF, factor) << shift;
            *pixel = (channel(0) | channel(8) | channel(16) | word & 0xFF00_0000).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::one_pixel;

    #[test]
    fn values_move_away_from_gray() {
        let of = |factor| one_pixel([200, 100, 50, 3], |image| color(image, factor, &mut Scratch::new()));
        // 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
        assert_eq!(of(0.0), [124, 124, 124, 3]);
        assert_eq!(of(0.1), [131, 121, 116, 3]);
        assert_eq!(of(1.0), [200, 100, 50, 3]);
        assert_eq!(of(1.72), [254, 82, 0, 3]);
        assert_eq!(of(2.0), [255, 76, 0, 3]);
    }
}
