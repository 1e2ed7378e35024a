//! Blending with a duller image: Pillow's blend, and its gray.
//!
//! `dull + factor * (value - dull)`: a factor below 1 goes towards the dull one, 1 changes nothing, and
//! above 1 goes away from it.

#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod portable;

use portable::ShortBlend;

use crate::simd::level::{Instructions, Level};

/// Blends red, green and blue with the gray of their pixel.
#[allow(unsafe_code)]
pub(crate) fn blend_with_gray(level: Level, pixels: &mut [[u8; 4]], factor: f32) {
    match (level.instructions(), ShortBlend::of(factor)) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level that exists was detected.
        (Instructions::Avx512, Some(short)) => unsafe { avx512::blend_with_gray(pixels, short) },
        _ => portable::blend_with_gray(level, pixels, factor),
    }
}

/// The sum of the grays of up to 2^16 pixels.
#[allow(unsafe_code)]
pub(crate) fn gray_sum_of_rgb(level: Level, rgb: &[[u8; 3]]) -> u32 {
    match level.instructions() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level that exists was detected.
        Instructions::Avx512 => unsafe { avx512::gray_sum(rgb) },
        _ => portable::gray_sum_of_rgb(rgb),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::magnitude::enhance_factor;
    use crate::simd::level::at_each_level;
    use crate::simd::level::tests::noise;

    at_each_level! {
        fn grays(level: Level) {
            for width in 1..=70 {
                let pixels = noise(width);
                let rgb: Vec<_> = pixels.iter().map(|&[r, g, b, _]| [r, g, b]).collect();
                assert_eq!(gray_sum_of_rgb(level, &rgb), portable::gray_sum_of_rgb(&rgb), "{width} pixels");
                for factor in (0..=9).map(enhance_factor) {
                    let (mut out, mut expected) = (pixels.clone(), pixels.clone());
                    blend_with_gray(level, &mut out, factor);
                    portable::blend_with_gray(Level::PORTABLE, &mut expected, factor);
                    assert_eq!(out, expected, "{width} pixels, {factor}");
                }
            }
        }
    }
}
