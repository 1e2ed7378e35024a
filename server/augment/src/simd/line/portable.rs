//! In plain Rust, compiled for each level.

use crate::simd::level::per_level;
use crate::simd::lookup::portable::LookupTable;

per_level! {
    /// `scale * value + offset` of every value, without its fraction.
    pub(crate) fn line(scale: f64, offset: f64) -> LookupTable {
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
