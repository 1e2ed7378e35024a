//! The table of a line, as AutoContrast stretches by.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use crate::simd::level::{Instructions, Level};
use crate::simd::lookup::portable::LookupTable;

/// `scale * value + offset` of every value, without its fraction and clipped to a byte.
#[allow(unsafe_code)]
pub(crate) fn line(level: Level, scale: f64, offset: f64) -> LookupTable {
    match level.instructions() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level that exists was detected.
        Instructions::Avx512 => unsafe { avx512::line(scale, offset) },
        _ => portable::line(level, scale, offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::level::at_each_level;

    at_each_level! {
        fn every_stretch(level: Level) {
            for (lo, hi) in (0..255u8).flat_map(|lo| (lo + 1..=255).map(move |hi| (lo, hi))) {
                let scale = 255.0 / f64::from(hi - lo);
                let offset = -f64::from(lo) * scale;
                let expected = std::array::from_fn(|value| (value as f64 * scale + offset) as u8);
                assert_eq!(line(level, scale, offset), expected, "{lo}..={hi}");
            }
        }
    }
}
