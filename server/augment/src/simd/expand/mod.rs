//! From pixels of red, green and blue to opaque pixels of four bytes.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod portable;

use crate::simd::level::{Level, at_level};

/// Pixels of red, green and blue become opaque pixels of four bytes.
pub(crate) fn expand(level: Level, rgb: &[u8], out: &mut [[u8; 4]]) {
    at_level!(level, {
        avx512 => avx512::expand(rgb, out),
        avx2 => avx2::expand(rgb, out),
        _ => portable::expand(rgb, out),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::level::tests::at_each_level;

    at_each_level! {
        fn any_length(level: Level) {
            for width in 1..=70 {
                let rgb: Vec<u8> = (0..3 * width).map(|i| (i * 37) as u8).collect();
                let mut out = vec![[7; 4]; width];
                expand(level, &rgb, &mut out);
                let expected: Vec<_> = rgb.chunks(3).map(|p| [p[0], p[1], p[2], 255]).collect();
                assert_eq!(out, expected, "{width} pixels");
            }
        }
    }
}
