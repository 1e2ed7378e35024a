//! Bytes looked up in tables.

#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod portable;

use portable::LookupTable;

use crate::simd::level::{Level, at_level};

/// Looks red, green and blue up in their tables; alpha gains the bits of `opaque`.
pub(crate) fn look_up(level: Level, pixels: &mut [[u8; 4]], tables: [&LookupTable; 3], opaque: u8) {
    at_level!(level, {
        avx512 => avx512::look_up(pixels, tables, opaque),
        _ => portable::look_up(pixels, tables, opaque),
    })
}

/// What a value becomes by one table and then another.
pub(crate) fn compose(level: Level, first: &LookupTable, second: &LookupTable) -> LookupTable {
    at_level!(level, {
        avx512 => avx512::compose(first, second),
        _ => portable::compose(first, second),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::level::tests::{at_each_level, noise};

    at_each_level! {
        fn as_in_plain_rust(level: Level) {
            let table = |factor: u8| portable::table(|value| value.wrapping_mul(factor) ^ 0x5A);
            let [red, green, blue] = [table(3), table(89), table(251)];
            assert_eq!(compose(level, &red, &green), portable::compose(&red, &green));
            for width in 1..=70 {
                let pixels = noise(width);
                for (tables, opaque) in [([&red; 3], 0), ([&red, &green, &blue], 0xFF)] {
                    let (mut out, mut expected) = (pixels.clone(), pixels.clone());
                    look_up(level, &mut out, tables, opaque);
                    portable::look_up(&mut expected, tables, opaque);
                    assert_eq!(out, expected, "{width} pixels");
                }
            }
        }
    }
}
