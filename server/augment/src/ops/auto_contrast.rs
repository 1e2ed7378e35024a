//! AutoContrast: stretches each channel to the full range.
//!
//! `ImageOps.autocontrast` on RGB; alpha becomes 255. For each channel, with `lo` and `hi` its
//! least and greatest value and `scale = 255 / (hi - lo)` in double precision:
//! `value * scale - lo * scale`, fraction cut off. A channel of one value stays.

use super::table::{Alpha, IDENTITY, Table, look_up};
use crate::image::Rgba;
use crate::scratch::Scratch;
#[cfg(target_arch = "x86_64")]
use crate::simd::{self, Kind};
use crate::simd::{Level, per_level};

/// Stretches red, green and blue, each so that it spans 0..=255.
pub fn auto_contrast(image: &mut Rgba, scratch: &mut Scratch) {
    let (lo, hi) = extremes(scratch.level(), image.pixels());
    let tables: [Table; 3] =
        std::array::from_fn(|channel| stretch(scratch.level(), lo[channel], hi[channel]));
    look_up(scratch.level(), image, tables.each_ref(), Alpha::Opaque);
}

/// The tables that stretch an image of the dataset.
pub(crate) fn auto_contrast_tables(level: Level, rgb: &[[u8; 3]]) -> [Table; 3] {
    let (lo, hi) = extremes_of_rgb(level, rgb);
    std::array::from_fn(|channel| stretch(level, lo[channel], hi[channel]))
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
    /// Least and greatest value of red, green, blue and alpha.
    fn extremes(pixels: &[[u8; 4]]) -> ([u8; 4], [u8; 4]) {
        let (lo, hi) = extremes_by_place::<64>(pixels.as_flattened());
        fold(lo, hi)
    }
}

per_level! {
    /// Least and greatest value of red, green and blue.
    fn extremes_of_rgb(pixels: &[[u8; 3]]) -> ([u8; 3], [u8; 3]) {
        let (lo, hi) = extremes_by_place::<192>(pixels.as_flattened());
        fold(lo, hi)
    }
}

/// Least and greatest of the bytes at each place in blocks of some size.
#[inline(always)]
fn extremes_by_place<const PLACES: usize>(bytes: &[u8]) -> ([u8; PLACES], [u8; PLACES]) {
    let (mut lo, mut hi) = ([255; PLACES], [0; PLACES]);
    let (blocks, rest) = bytes.as_chunks::<PLACES>();
    for block in blocks {
        for i in 0..PLACES {
            lo[i] = lo[i].min(block[i]);
            hi[i] = hi[i].max(block[i]);
        }
    }
    for (i, &byte) in rest.iter().enumerate() {
        lo[i] = lo[i].min(byte);
        hi[i] = hi[i].max(byte);
    }
    (lo, hi)
}

/// The extremes of each channel from those at each place.
#[inline(always)]
fn fold<const PLACES: usize, const CHANNELS: usize>(
    mut lo: [u8; PLACES],
    mut hi: [u8; PLACES],
) -> ([u8; CHANNELS], [u8; CHANNELS]) {
    // Halves while they hold whole pixels, then pixel by pixel.
    let mut places = PLACES;
    while places.is_multiple_of(2 * CHANNELS) {
        places /= 2;
        for i in 0..places {
            lo[i] = lo[i].min(lo[i + places]);
            hi[i] = hi[i].max(hi[i + places]);
        }
    }
    (std::array::from_fn(|i| lo[i]), std::array::from_fn(|i| hi[i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pba_types::ImageShape;

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
                let rgb: Vec<[u8; 3]> = pixels.iter().map(|&[r, g, b, _]| [r, g, b]).collect();
                let of_rgb = ([100, 101 - width, 7], [99 + width, 100, 7]);
                assert_eq!(extremes_of_rgb(level, &rgb), of_rgb);
            }
        }
    }
}
