//! AutoContrast: stretches each channel to the full range.
//!
//! `ImageOps.autocontrast` on RGB; alpha becomes 255. For each channel, with `lo` and `hi` its
//! least and greatest value and `scale = 255 / (hi - lo)` in double precision:
//! `value * scale - lo * scale`, fraction cut off. A channel of one value stays.

use super::table::{Alpha, IDENTITY, Table, look_up};
use crate::image::Rgba;
use crate::scratch::Scratch;
#[cfg(target_arch = "x86_64")]
use crate::simd;
use crate::simd::{Kind, Level, per_level};

/// Stretches red, green and blue, each so that it spans 0..=255.
pub fn auto_contrast(image: &mut Rgba, scratch: &mut Scratch) {
    let (lo, hi) = extremes(scratch.level(), image.pixels());
    let tables: [Table; 3] =
        std::array::from_fn(|channel| stretch(scratch.level(), lo[channel], hi[channel]));
    look_up(scratch.level(), image, tables.each_ref(), Alpha::Opaque);
}

/// The table that stretches `lo..=hi`; what it makes of other values does not matter.
#[allow(unsafe_code)]
fn stretch(level: Level, lo: u8, hi: u8) -> Table {
    if hi <= lo {
        return IDENTITY;
    }
    let scale = 255.0 / f64::from(hi - lo);
    let offset = -f64::from(lo) * scale;
    match level.kind() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level that exists was detected.
        Kind::Avx512 => unsafe { simd::avx512::line(scale, offset) },
        _ => line(level, scale, offset),
    }
}

per_level! {
    /// `scale * value + offset` of every value, without its fraction.
    fn line(scale: f64, offset: f64) -> Table {
        let mut words = [0; 256];
        for (value, word) in (0..).zip(&mut words) {
            *word = cut(f64::from(value) * scale + offset);
        }
        words.map(|word: u32| word as u8)
    }
}

/// Cuts the fraction off a number over -1 and below 256, and clips others.
#[inline(always)]
fn cut(number: f64) -> u32 {
    // As in `blend`: next to 2^52 a double has no fraction. The addition rounds, and where it went
    // up, one is too many; but -0.2 goes up to 0, where it belongs.
    const ANCHOR: f64 = 4_503_599_627_370_496.0;
    let number = if number > 0.0 { number } else { 0.0 };
    let number = if number < 255.5 { number } else { 255.5 };
    let rounded = number + ANCHOR;
    let went_up = rounded - ANCHOR > number;
    rounded.to_bits() as u32 - u32::from(went_up)
}

per_level! {
    /// Least and greatest value of each channel.
    fn extremes(pixels: &[[u8; 4]]) -> ([u8; 4], [u8; 4]) {
        // Many pixels side by side, so that the inner loop works on whole vectors.
        let (mut lo, mut hi) = ([255u8; 64], [0u8; 64]);
        let (blocks, rest) = pixels.as_flattened().as_chunks::<64>();
        for block in blocks {
            for i in 0..64 {
                lo[i] = lo[i].min(block[i]);
                hi[i] = hi[i].max(block[i]);
            }
        }
        for pixel in rest.as_chunks::<4>().0 {
            for i in 0..4 {
                lo[i] = lo[i].min(pixel[i]);
                hi[i] = hi[i].max(pixel[i]);
            }
        }
        for half in [32, 16, 8, 4] {
            for i in 0..half {
                lo[i] = lo[i].min(lo[i + half]);
                hi[i] = hi[i].max(hi[i + half]);
            }
        }
        ([lo[0], lo[1], lo[2], lo[3]], [hi[0], hi[1], hi[2], hi[3]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ImageShape;

    #[test]
    fn channels_are_stretched_one_by_one() {
        let shape = ImageShape { height: 1, width: 3 };
        let mut image = Rgba::from_rgba(shape, &[10, 5, 0, 0, 20, 5, 100, 9, 40, 5, 255, 255]).unwrap();
        auto_contrast(&mut image, &mut Scratch::new());
        assert_eq!(image.pixels(), [[0, 5, 0, 255], [85, 5, 100, 255], [255, 5, 255, 255]]);
    }

    #[test]
    fn extremes_at_any_length() {
        for level in Level::available() {
            for width in 1..=99 {
                let pixels: Vec<[u8; 4]> = (0..width).map(|i| [100 + i, 100 - i, 7, i * 2]).collect();
                let (lo, hi) = extremes(level, &pixels);
                assert_eq!((lo, hi), ([100, 101 - width, 7, 0], [99 + width, 100, 7, (width - 1) * 2]));
            }
        }
    }
}
