//! Equalize: flattens the histogram of each channel.
//!
//! `ImageOps.equalize` on RGB; alpha becomes 255. For each channel with a histogram h:
//!
//! ```text
//! step = floor((pixels - h[greatest value that occurs]) / 255)
//! table[value] = min(255, floor((floor(step / 2) + h[0] + ... + h[value - 1]) / step))
//! ```
//! A channel of one value, or with a step of 0, stays.

use super::blend::whole;
use super::table::{Alpha, IDENTITY, Table, look_up};
use crate::image::Rgba;
use crate::scratch::Scratch;
#[cfg(target_arch = "x86_64")]
use crate::simd::{self, Kind};
use crate::simd::{Level, per_level};

type Histogram = [u32; 256];

/// Flattens the histograms of red, green and blue.
pub fn equalize(image: &mut Rgba, scratch: &mut Scratch) {
    let level = scratch.level();
    let histograms = histograms(image.pixels());
    let tables = flatten(level, &histograms, image.pixels().len() as u32);
    look_up(level, image, tables.each_ref(), Alpha::Opaque);
}

/// The tables that flatten an image of the dataset.
pub(crate) fn equalize_tables(level: Level, rgb: &[[u8; 3]]) -> [Table; 3] {
    flatten(level, &histograms(rgb), rgb.len() as u32)
}

/// How often each value occurs in red, green and blue.
fn histograms<const CHANNELS: usize>(pixels: &[[u8; CHANNELS]]) -> [Histogram; 3] {
    // Neighbours are often equal. Counting them apart keeps an increment from waiting for the
    // one before it.
    let mut counts = [[[0u32; 256]; 3]; 2];
    let (pairs, rest) = pixels.as_chunks::<2>();
    let [even, odd] = &mut counts;
    for [one, other] in pairs {
        for channel in 0..3 {
            even[channel][usize::from(one[channel])] += 1;
            odd[channel][usize::from(other[channel])] += 1;
        }
    }
    for pixel in rest {
        for channel in 0..3 {
            even[channel][usize::from(pixel[channel])] += 1;
        }
    }
    for (even, odd) in even.as_flattened_mut().iter_mut().zip(odd.as_flattened()) {
        *even += odd;
    }
    counts[0]
}

/// The tables that flatten histograms of so many pixels.
#[allow(unsafe_code)]
fn flatten(level: Level, histograms: &[Histogram; 3], pixels: u32) -> [Table; 3] {
    let steps: [u32; 3] = std::array::from_fn(|channel| {
        let greatest = histograms[channel].iter().rev().find(|&&count| count > 0);
        (pixels - greatest.copied().unwrap_or(0)) / 255
    });
    match level.kind() {
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 if steps.iter().all(|&step| step < STEP_END) => std::array::from_fn(|channel| {
            match steps[channel] {
                0 => IDENTITY,
                // SAFETY: a level that exists was detected.
                step => unsafe { simd::avx512::flatten(&histograms[channel], step) },
            }
        }),
        _ => flatten_plainly(level, histograms, steps),
    }
}

per_level! {
    fn flatten_plainly(histograms: &[Histogram; 3], steps: [u32; 3]) -> [Table; 3] {
        // What is divided by the step, for each value; three channels side by side, so that no sum
        // waits for another channel's.
        let mut dividends = [[0; 256]; 3];
        let mut sums = steps.map(|step| step / 2);
        for value in 0..256 {
            for channel in 0..3 {
                dividends[channel][value] = sums[channel];
                sums[channel] += histograms[channel][value];
            }
        }
        std::array::from_fn(|channel| match steps[channel] {
            0 => IDENTITY,
            step => divide(&dividends[channel], step),
        })
    }
}

/// Steps below are divided by in single precision.
const STEP_END: u32 = 1 << 13;

/// `min(255, floor(dividend / step))`.
#[inline(always)]
fn divide(dividends: &[u32; 256], step: u32) -> Table {
    // By a multiplication with the reciprocal, in single precision where that does. The half keeps
    // quotients at least 1/2 / step away from integers, on the right side: over 2^-14. A quotient
    // below 256 is off by less than 2^-15, for the reciprocal and the product are rounded to 24
    // bits; and a dividend that is rounded itself, from 2^23 on, has a quotient far over 255.
    if step < STEP_END {
        let reciprocal = 1.0 / step as f32;
        let quotients = dividends.map(|n| ((n as i32 as f32 + 0.5) * reciprocal).min(255.0));
        return quotients.map(whole);
    }
    // Else in integers: with a step below 2^21 (images have at most 2^28 pixels), the
    // reciprocal's error of less than 1/2^50 per unit adds up to less than 2^29/2^50 < 1/step, so
    // it never lifts a quotient to the next integer.
    let (reciprocal, n_max) = ((1u64 << 50) / u64::from(step) + 1, 256 * step);
    dividends.map(|n| ((u64::from(n.min(n_max)) * reciprocal) >> 50).min(255) as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use pba_types::ImageShape;
    use pba_types::limits::SIDE_MAX;

    /// The formula with its division.
    fn flatten_plain(histogram: &Histogram, pixels: u32) -> Table {
        let greatest = (0..256).rev().find(|&value| histogram[value] > 0).unwrap();
        let step = (pixels - histogram[greatest]) / 255;
        std::array::from_fn(|value| match step {
            0 => value as u8,
            _ => ((step / 2 + histogram[..value].iter().sum::<u32>()) / step).min(255) as u8,
        })
    }

    #[track_caller]
    fn check(histogram: Histogram, pixels: u32) {
        for level in Level::available() {
            let tables = flatten(level, &[histogram; 3], pixels);
            assert_eq!(tables, [flatten_plain(&histogram, pixels); 3], "{level}, {pixels} pixels");
        }
    }

    /// Every dividend that counts, for steps on both sides of the change.
    #[test]
    fn quotients_are_exact() {
        for step in (1..300).chain([1000, 4095, 8191, 8192, 8193, 100_000]) {
            for first in (0..256 * step + 10).step_by(256).filter(|n| step < 300 || n / 256 % 61 < 2) {
                let dividends: [u32; 256] = std::array::from_fn(|i| first + i as u32);
                let expected = dividends.map(|n| (n / step).min(255) as u8);
                assert_eq!(divide(&dividends, step), expected, "{first} / {step}");
            }
        }
    }

    proptest! {
        #[test]
        fn tables_follow_the_formula(
            counts in prop::collection::vec((0usize..256, 1u32..5000), 1..300),
            zeros in 0u32..1000,
            scale in 1u32..180,
        ) {
            let mut histogram = [0; 256];
            for (value, count) in counts {
                histogram[value] += count * scale % (SIDE_MAX * SIDE_MAX / 300);
            }
            histogram[0] += zeros + 1;
            let pixels = histogram.iter().sum();
            check(histogram, pixels);
        }
    }

    #[test]
    fn the_largest_images() {
        for split in [1, 2, 255, 256, 100_000, (1 << 28) - 1, 1 << 27] {
            let mut histogram = [0; 256];
            histogram[3] = split;
            histogram[250] = (1 << 28) - split;
            check(histogram, 1 << 28);
        }
    }

    #[test]
    fn a_ramp_is_flat_already_and_small_images_stay() {
        let shape = ImageShape { height: 16, width: 16 };
        let rgb: Vec<u8> = (0..=255).flat_map(|value| [value, value / 2, 9]).collect();
        let mut image = Rgba::from_rgb(shape, &rgb).unwrap();
        equalize(&mut image, &mut Scratch::new());
        // Red has a step of 1: each value becomes the number of pixels below it. Green, where each
        // value occurs twice, has a step of 0.
        let expected: Vec<_> = (0..=255u8).map(|value| [value, value / 2, 9, 255]).collect();
        assert_eq!(image.pixels(), expected);
        let shape = ImageShape { height: 1, width: 2 };
        let mut image = Rgba::from_rgba(shape, &[1, 2, 3, 0, 4, 5, 6, 255]).unwrap();
        equalize(&mut image, &mut Scratch::new());
        assert_eq!(image.pixels(), [[1, 2, 3, 255], [4, 5, 6, 255]]);
    }
}
