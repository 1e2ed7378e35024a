//! Pillow's nearest-neighbour affine transform.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod portable;

use portable::FixedAffine;

use crate::simd::level::{Level, at_level};

/// Gathers `out` from `source`; both have rows of `width` pixels.
pub(crate) fn gather(
    level: Level,
    affine: &FixedAffine,
    source: &[[u8; 4]],
    out: &mut [[u8; 4]],
    width: usize,
) {
    // Vectors take neighbours from left to right.
    if affine.per_column.0 < 0 && level != Level::PORTABLE {
        gather(level, &affine.mirrored(width), source, out, width);
        return out.chunks_exact_mut(width).for_each(<[_]>::reverse);
    }
    at_level!(level, {
        avx512 => avx512::gather(affine, source, out, width),
        avx2 => avx2::gather(affine, source, out, width),
        _ => portable::gather(affine, source, out, width),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::level::tests::{at_each_level, noise};

    at_each_level! {
        fn as_in_plain_rust(level: Level) {
            for (height, width) in [(1usize, 1usize), (3, 5), (17, 33), (40, 64), (5, 100)] {
                let source = noise(height * width);
                for i in 0..61 {
                    // Up to 146 degrees, either way; a slope stays below 1.
                    let (sin, cos) = (f64::from(i - 30) / if i % 2 == 0 { 60.0 } else { 11.75 }).sin_cos();
                    let shift = f64::from(i) / 3.0 - 10.0;
                    for coefficients in
                        [[cos, sin, shift, -sin, cos, -shift], [1.0, sin, shift, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, sin, 1.0, shift], [0.0, -1.0, shift, 1.0, 0.0, shift],
                         // Rows or columns that move as a unit, and the whole image across them.
                         [1.0, sin, shift, 0.0, 1.0, shift], [1.0, 0.0, shift, sin, 1.0, shift]]
                    {
                        let affine = FixedAffine::new(coefficients);
                        let [mut out, mut expected] = [vec![[7; 4]; source.len()], vec![[8; 4]; source.len()]];
                        gather(level, &affine, &source, &mut out, width);
                        portable::gather(&affine, &source, &mut expected, width);
                        assert!(out == expected, "{height}x{width}, {affine:?}");
                    }
                }
            }
        }
    }
}
