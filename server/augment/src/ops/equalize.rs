//! Equalize: flattens the histogram of each channel.
//!
//! `ImageOps.equalize` on RGB; alpha becomes 255. For each channel with a histogram h:
//!
//! ```text
//! step = floor((pixels - h[greatest value that occurs]) / 255)
//! table[value] = min(255, floor((floor(step / 2) + h[0] + ... + h[value - 1]) / step))
//! ```
//! A channel of one value, or with a step of 0, stays.

use super::table::{Alpha, Table, look_up};
use crate::image::Rgba;
use crate::scratch::Scratch;

type Histogram = [u32; 256];

/// Flattens the histograms of red, green and blue.
pub fn equalize(image: &mut Rgba, scratch: &mut Scratch) {
    let histograms = histograms(image.pixels());
    let pixels = image.pixels().len() as u32;
    let tables: [Table; 3] = std::array::from_fn(|channel| flatten(&histograms[channel], pixels));
    look_up(scratch.level(), image, tables.each_ref(), Alpha::Opaque);
}

/// How often each value occurs in red, green and blue.
fn histograms(pixels: &[[u8; 4]]) -> [Histogram; 3] {
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

/// The table that flattens a histogram of so many pixels.
fn flatten(histogram: &Histogram, pixels: u32) -> Table {
    let greatest = histogram.iter().rev().find(|&&count| count > 0).copied().unwrap_or(0);
    let step = (pixels - greatest) / 255;
    if step == 0 {
        return std::array::from_fn(|value| value as u8);
    }
    // Division by `step` as a multiplication: with n at most 256 steps, and a step below 2^21
    // (images have at most 2^28 pixels), the reciprocal's error of less than 1/2^50 per unit adds
    // up to less than 2^29/2^50 < 1/step, so it never lifts a quotient to the next integer.
    let reciprocal = (1u64 << 50) / u64::from(step) + 1;
    let n_max = 256 * step;
    let mut n = step / 2;
    std::array::from_fn(|value| {
        let quotient = (u64::from(n.min(n_max)) * reciprocal) >> 50;
        n += histogram[value];
        quotient.min(255) as u8
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::{ImageShape, SIDE_MAX};

    /// The formula with its division.
    fn flatten_plain(histogram: &Histogram, pixels: u32) -> Table {
        let greatest = (0..256).rev().find(|&value| histogram[value] > 0).unwrap();
        let step = (pixels - histogram[greatest]) / 255;
        std::array::from_fn(|value| match step {
            0 => value as u8,
            _ => ((step / 2 + histogram[..value].iter().sum::<u32>()) / step).min(255) as u8,
        })
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
            prop_assert_eq!(flatten(&histogram, pixels), flatten_plain(&histogram, pixels));
        }
    }

    #[test]
    fn the_largest_images() {
        for split in [1, 2, 255, 256, 100_000, (1 << 28) - 1, 1 << 27] {
            let mut histogram = [0; 256];
            histogram[3] = split;
            histogram[250] = (1 << 28) - split;
            assert_eq!(flatten(&histogram, 1 << 28), flatten_plain(&histogram, 1 << 28), "{split}");
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
