//! Blending with a duller image: Pillow's blend, and its gray.
//!
//! `dull + factor * (value - dull)`: a factor below 1 goes towards the dull one, 1 changes nothing, and
//! above 1 goes away from it.

#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod portable;

use portable::ShortBlend;

use crate::simd::level::{Level, at_level};

/// Blends red, green and blue with the gray of their pixel.
pub(crate) fn blend_with_gray(level: Level, pixels: &mut [[u8; 4]], factor: f32) {
    let Some(short) = ShortBlend::of(factor) else {
        return portable::blend_with_gray(level, pixels, factor);
    };
    at_level!(level, {
        avx512 => avx512::blend_with_gray(pixels, short),
        _ => portable::blend_with_gray(level, pixels, factor),
    })
}

/// The sum of the grays of up to 2^16 pixels.
pub(crate) fn gray_sum_of_rgb(level: Level, rgb: &[[u8; 3]]) -> u32 {
    at_level!(level, {
        avx512 => avx512::gray_sum_of_rgb(rgb),
        _ => portable::gray_sum_of_rgb(rgb),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::magnitude::enhance_factor;
    use crate::simd::level::tests::{at_each_level, noise};

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
