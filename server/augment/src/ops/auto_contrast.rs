//! AutoContrast: stretches each channel to the full range.
//!
//! `ImageOps.autocontrast` on RGB; alpha becomes 255. For each channel, with `lo` and `hi` its
//! least and greatest value and `scale = 255 / (hi - lo)` in double precision:
//! `value * scale - lo * scale`, fraction cut off. A channel of one value stays.

use super::table::{Alpha, Table, look_up};
use crate::image::Rgba;

/// Stretches red, green and blue, each so that it spans 0..=255.
pub fn auto_contrast(image: &mut Rgba) {
    let (lo, hi) = extremes(image.pixels());
    let tables: [Table; 3] = std::array::from_fn(|channel| stretch(lo[channel], hi[channel]));
    look_up(image, tables.each_ref(), Alpha::Opaque);
}

fn stretch(lo: u8, hi: u8) -> Table {
    if hi <= lo {
        return std::array::from_fn(|value| value as u8);
    }
    let scale = 255.0 / f64::from(hi - lo);
    let offset = -f64::from(lo) * scale;
    // `as` cuts the fraction off and clips.
    std::array::from_fn(|value| (value as f64 * scale + offset) as u8)
}

/// Least and greatest value of each channel.
fn extremes(pixels: &[[u8; 4]]) -> ([u8; 4], [u8; 4]) {
    // Four pixels side by side, so that the loop works on whole vectors.
    let (mut lo, mut hi) = ([255u8; 16], [0u8; 16]);
    let (blocks, rest) = pixels.as_flattened().as_chunks::<16>();
    for block in blocks {
        for i in 0..16 {
            lo[i] = lo[i].min(block[i]);
            hi[i] = hi[i].max(block[i]);
        }
    }
    let lows = lo.as_chunks::<4>().0.iter().chain(rest.as_chunks().0);
    let highs = hi.as_chunks::<4>().0.iter().chain(rest.as_chunks().0);
    (
        lows.fold([255; 4], |lo, pixel| std::array::from_fn(|i| lo[i].min(pixel[i]))),
        highs.fold([0; 4], |hi, pixel| std::array::from_fn(|i| hi[i].max(pixel[i]))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ImageShape;

    #[test]
    fn channels_are_stretched_one_by_one() {
        let shape = ImageShape { height: 1, width: 3 };
        let mut image = Rgba::from_rgba(shape, &[10, 5, 0, 0, 20, 5, 100, 9, 40, 5, 255, 255]).unwrap();
        auto_contrast(&mut image);
        assert_eq!(image.pixels(), [[0, 5, 0, 255], [85, 5, 100, 255], [255, 5, 255, 255]]);
    }

    #[test]
    fn extremes_at_any_length() {
        for width in 1..=9 {
            let pixels: Vec<[u8; 4]> = (0..width).map(|i| [100 + i, 100 - i, 7, i * 20]).collect();
            let (lo, hi) = extremes(&pixels);
            assert_eq!((lo, hi), ([100, 101 - width, 7, 0], [99 + width, 100, 7, (width - 1) * 20]));
        }
    }
}
