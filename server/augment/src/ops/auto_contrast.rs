//! AutoContrast: stretches each channel to the full range.
//!
//! `ImageOps.autocontrast` on RGB; alpha becomes 255. For each channel, with `lo` and `hi` its
//! least and greatest value and `scale = 255 / (hi - lo)` in double precision:
//! `value * scale - lo * scale`, fraction cut off. A channel of one value stays.

use super::face::{Effect, Face};
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::level::{Level, per_level};
use crate::simd::line::line;
use crate::simd::lookup::look_up;
use crate::simd::lookup::portable::{IDENTITY, LookupTable};

pub(super) const FACE: Face = Face {
    apply: |_, image, scratch| auto_contrast(image, scratch),
    effect: |_| Effect::TablesOfImage(|_, level, rgb| stretch(level, extremes_of_rgb(level, rgb))),
    caption: |_| String::new(),
};

/// Stretches red, green and blue, each so that it spans 0..=255.
pub fn auto_contrast(image: &mut Rgba, scratch: &mut Scratch) {
    let level = scratch.level();
    let tables = stretch(level, extremes(level, image.pixels()));
    look_up(level, image.pixels_mut(), tables.each_ref(), 0xFF);
}

/// The tables that stretch from the least to the greatest values; what they make of others does not
/// matter.
fn stretch<const CHANNELS: usize>(
    level: Level,
    (lo, hi): ([u8; CHANNELS], [u8; CHANNELS]),
) -> [LookupTable; 3] {
    std::array::from_fn(|channel| {
        let (lo, hi) = (lo[channel], hi[channel]);
        if hi <= lo {
            return IDENTITY;
        }
        let scale = 255.0 / f64::from(hi - lo);
        line(level, scale, -f64::from(lo) * scale)
    })
}

per_level! {
    /// Least and greatest value of red, green, blue and alpha.
    fn extremes(pixels: &[[u8; 4]]) -> ([u8; 4], [u8; 4]) {
        extremes_by_channel::<64, 4>(pixels.as_flattened())
    }
}

per_level! {
    /// Least and greatest value of red, green and blue.
    fn extremes_of_rgb(pixels: &[[u8; 3]]) -> ([u8; 3], [u8; 3]) {
        extremes_by_channel::<192, 3>(pixels.as_flattened())
    }
}

/// Least and greatest of the bytes of each channel, in blocks of so many bytes.
#[inline(always)]
fn extremes_by_channel<const BLOCK: usize, const CHANNELS: usize>(
    bytes: &[u8],
) -> ([u8; CHANNELS], [u8; CHANNELS]) {
    let (mut lo, mut hi) = ([255; BLOCK], [0; BLOCK]);
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    for block in blocks {
        for i in 0..BLOCK {
            lo[i] = lo[i].min(block[i]);
            hi[i] = hi[i].max(block[i]);
        }
    }
    for (i, &byte) in rest.iter().enumerate() {
        lo[i] = lo[i].min(byte);
        hi[i] = hi[i].max(byte);
    }
    // Halves while they hold whole pixels, then pixel by pixel.
    let mut places = BLOCK;
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
