//! AutoContrast: stretches each channel to the full range.
//!
//! `ImageOps.autocontrast` on RGB; alpha becomes 255. For each channel, with `lo` and `hi` its
//! least and greatest value and `scale = 255 / (hi - lo)` in double precision:
//! `value * scale - lo * scale`, fraction cut off. A channel of one value stays.

use super::face::{Effect, Face};
use super::table::{Alpha, look_up};
use crate::call::OpCall;
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::level::{Level, per_level};
use crate::simd::line::line;
use crate::simd::lookup::portable::{IDENTITY, LookupTable};

pub(super) const FACE: Face = Face {
    apply: |_, image, scratch| auto_contrast(image, scratch),
    effect: |_| Effect::TablesOfImage(tables),
    caption: |_| String::new(),
};

fn tables(_: &OpCall, level: Level, rgb: &[[u8; 3]]) -> [LookupTable; 3] {
    let (lo, hi) = extremes_of_rgb(level, rgb);
    std::array::from_fn(|channel| stretch(level, lo[channel], hi[channel]))
}

/// Stretches red, green and blue, each so that it spans 0..=255.
pub fn auto_contrast(image: &mut Rgba, scratch: &mut Scratch) {
    let (lo, hi) = extremes(scratch.level(), image.pixels());
    let tables: [LookupTable; 3] =
        std::array::from_fn(|channel| stretch(scratch.level(), lo[channel], hi[channel]));
    look_up(scratch.level(), image, tables.each_ref(), Alpha::Opaque);
}

/// The table that stretches `lo..=hi`; what it makes of other values does not matter.
fn stretch(level: Level, lo: u8, hi: u8) -> LookupTable {
    if hi <= lo {
        return IDENTITY;
    }
    let scale = 255.0 / f64::from(hi - lo);
    line(level, scale, -f64::from(lo) * scale)
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
    use crate::simd::level::tests::at_each_level;
    use pba_types::ImageShape;

    #[test]
    fn channels_are_stretched_one_by_one() {
        let shape = ImageShape { height: 1, width: 3 };
        let mut image = Rgba::from_rgba(shape, &[10, 5, 0, 0, 20, 5, 100, 9, 40, 5, 255, 255]).unwrap();
        auto_contrast(&mut image, &mut Scratch::new());
        assert_eq!(image.pixels(), [[0, 5, 0, 255], [85, 5, 100, 255], [255, 5, 255, 255]]);
    }

    at_each_level! {
        fn extremes_at_any_length(level: Level) {
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
