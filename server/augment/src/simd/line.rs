//! The table of a line, as AutoContrast stretches by.

use crate::simd::level::per_level;
use crate::simd::lookup::portable::LookupTable;

per_level! {
    /// `scale * value + offset` of every value, without its fraction and clipped to a byte.
    pub(crate) fn line(scale: f64, offset: f64) -> LookupTable {
        std::array::from_fn(|value| {
            // As in `blend`, so that the loop becomes vectors.
            let number = value as f64 * scale + offset;
            let number = if number > 0.0 { number } else { 0.0 };
            let number = if number < 255.0 { number } else { 255.0 };
            // SAFETY: the number lies in 0..=255; not a number became 0.
            unsafe { number.to_int_unchecked::<i32>() as u8 }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::level::tests::at_each_level;

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
