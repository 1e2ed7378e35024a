//! Tables that flatten histograms, as Equalize does.

#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod portable;

use portable::Histogram;

use crate::simd::level::{Level, at_level};
use crate::simd::lookup::portable::LookupTable;

/// The tables that flatten histograms of so many pixels.
pub(crate) fn flatten(level: Level, histograms: &[Histogram; 3], pixels: u32) -> [LookupTable; 3] {
    let steps: [u32; 3] = std::array::from_fn(|channel| {
        let greatest = histograms[channel].iter().rev().find(|&&count| count > 0);
        (pixels - greatest.copied().unwrap_or(0)) / 255
    });
    at_level!(level, {
        avx512 if steps.iter().all(|&step| step < portable::STEP_END) => avx512::flatten(histograms, steps),
        _ => portable::flatten(level, histograms, steps),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::portable::divide;
    use super::*;
    use crate::simd::level::tests::at_each_level;
    use pba_types::limits::SIDE_MAX;

    /// The formula with its division.
    fn flatten_plain(histogram: &Histogram, pixels: u32) -> LookupTable {
        let greatest = (0..256).rev().find(|&value| histogram[value] > 0).unwrap();
        let step = (pixels - histogram[greatest]) / 255;
        std::array::from_fn(|value| match step {
            0 => value as u8,
            _ => ((step / 2 + histogram[..value].iter().sum::<u32>()) / step).min(255) as u8,
        })
    }

    #[track_caller]
    fn check_at(level: Level, histogram: Histogram, pixels: u32) {
        let tables = flatten(level, &[histogram; 3], pixels);
        assert_eq!(tables, [flatten_plain(&histogram, pixels); 3], "{level}, {pixels} pixels");
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
            Level::available().into_iter().for_each(|level| check_at(level, histogram, pixels));
        }
    }

    at_each_level! {
        fn the_largest_images(level: Level) {
            for split in [1, 2, 255, 256, 100_000, (1 << 28) - 1, 1 << 27] {
                let mut histogram = [0; 256];
                histogram[3] = split;
                histogram[250] = (1 << 28) - split;
                check_at(level, histogram, 1 << 28);
            }
        }
    }

    at_each_level! {
        fn small_images(level: Level) {
            for step in [0, 1, 2, 100, 8191, 8192] {
                let histogram = std::array::from_fn(|value| step + value as u32 % 3);
                check_at(level, histogram, histogram.iter().sum());
            }
        }
    }
}
