//! In plain Rust, compiled for each level.

use crate::simd::blend::portable::to_byte;
use crate::simd::level::per_level;
use crate::simd::lookup::portable::{IDENTITY, LookupTable};

/// How often each value occurs.
pub(crate) type Histogram = [u32; 256];

per_level! {
    /// The tables that flatten histograms, by their steps.
    pub(crate) fn flatten(histograms: &[Histogram; 3], steps: [u32; 3]) -> [LookupTable; 3] {
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
pub(crate) const STEP_END: u32 = 1 << 13;

/// `min(255, floor(dividend / step))`.
#[inline(always)]
pub(crate) fn divide(dividends: &[u32; 256], step: u32) -> LookupTable {
    // By a multiplication with the reciprocal, in single precision where that does. The half keeps
    // quotients at least 1/2 / step away from integers, on the right side: over 2^-14. A quotient
    // below 256 is off by less than 2^-15, for the reciprocal and the product are rounded to 24
    // bits; and a dividend that is rounded itself, from 2^23 on, has a quotient far over 255.
    if step < STEP_END {
        let reciprocal = 1.0 / step as f32;
        return dividends.map(|n| to_byte((n as i32 as f32 + 0.5) * reciprocal));
    }
    // Else in integers: with a step below 2^21 (images have at most 2^28 pixels), the
    // reciprocal's error of less than 1/2^50 per unit adds up to less than 2^29/2^50 < 1/step, so
    // it never lifts a quotient to the next integer.
    let (reciprocal, n_max) = ((1u64 << 50) / u64::from(step) + 1, 256 * step);
    dividends.map(|n| ((u64::from(n.min(n_max)) * reciprocal) >> 50).min(255) as u8)
}
