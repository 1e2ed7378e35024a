//! In plain Rust, some of it compiled for each level.

use crate::simd::level::per_level;
use crate::simd::lookup::portable::LookupTable;

/// Blends one byte in single precision, then cuts the fraction off and clips to 0..=255, as
/// `Image.blend` does. The alpha channel of the dull image is the image's own, so it stays.
#[inline(always)]
pub(crate) fn blend(dull: u8, value: u8, factor: f32) -> u8 {
    let (dull, value) = (f32::from(dull), f32::from(value));
    // Pillow clips for factors outside of 0..=1 only; within, nothing is ever out of range.
    to_byte(dull + factor * (value - dull))
}

/// Clips a number to 0..=255 and cuts its fraction off.
#[inline(always)]
pub(crate) fn to_byte(number: f32) -> u8 {
    // A conversion with `as` would do, but its care for values that are no integer's keeps loops
    // from becoming vectors.
    let number = if number > 0.0 { number } else { 0.0 };
    let number = if number < 255.0 { number } else { 255.0 };
    // SAFETY: the number lies in 0..=255; not a number became 0.
    unsafe { number.to_int_unchecked::<i32>() as u8 }
}

/// [`blend`] in 16-bit integers, for the factors with which that is exact.
///
/// With `distance = value - dull` and `factor = whole + part / 2^16`, it is
/// `dull + whole distance + floor((part distance / 2^9 + bias) / 2^7)`: seven fractional bits are
/// kept, and the bias, less than the least step of `factor distance`, makes up for what was cut
/// off below. Found by trying all pairs of bytes, for the factors that policies use; 1.18 is left
/// out: there Pillow's single precision falls short of two integers, for small values of `dull` only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShortBlend {
    pub(crate) whole: i16,
    pub(crate) part: i16,
    pub(crate) bias: i16,
}

impl ShortBlend {
    /// The blend of this factor, if it is exact.
    pub(crate) fn of(factor: f32) -> Option<ShortBlend> {
        const EXACT: [(f32, i16, i16, i16); 8] = [
            (0.1, 0, 6550, 2),
            (0.28, 0, 18347, 2),
            (0.46, 0, 30145, 1),
            (0.64, 1, -23595, 1),
            (0.82, 1, -11798, 1),
            (1.36, 1, 23589, 2),
            (1.54, 2, -30149, 1),
            (1.72, 2, -18353, 1),
        ];
        let (_, whole, part, bias) = EXACT.into_iter().find(|exact| exact.0 == factor)?;
        Some(ShortBlend { whole, part, bias })
    }

    /// Blends bytes that stand in words.
    #[inline(always)]
    pub(crate) fn blend(self, dull: i16, value: i16) -> i16 {
        let distance = value - dull;
        let part = ((i32::from(distance << 7) * i32::from(self.part)) >> 16) as i16;
        (dull + self.whole * distance + ((part + self.bias) >> 7)).clamp(0, 255)
    }
}

/// Pillow's gray of a pixel: ITU-R 601-2 luma in 16 fractional bits, rounded.
#[inline(always)]
pub(crate) fn gray(pixel: u32) -> u32 {
    let (red, green, blue) = (pixel & 0xFF, pixel >> 8 & 0xFF, pixel >> 16 & 0xFF);
    (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
}

per_level! {
    /// Blends red, green and blue with one value, shortly.
    pub(crate) fn blend_shortly(pixels: &mut [[u8; 4]], dull: u8, short: ShortBlend) {
        let (blocks, rest) = pixels.as_chunks_mut::<16>();
        let blend = |pixels: &mut [[u8; 4]]| {
            for (i, byte) in pixels.as_flattened_mut().iter_mut().enumerate() {
                let blended = short.blend(dull.into(), (*byte).into()) as u8;
                *byte = if i % 4 == 3 { *byte } else { blended };
            }
        };
        for block in blocks {
            blend(block);
        }
        blend(rest);
    }
}

per_level! {
    /// What each value becomes when it is blended with `dull`.
    pub(crate) fn blend_table(dull: u8, factor: f32) -> LookupTable {
        std::array::from_fn(|value| blend(dull, value as u8, factor))
    }
}

per_level! {
    /// Blends pixels with their gray.
    pub(crate) fn blend_with_gray(pixels: &mut [[u8; 4]], factor: f32) {
        for pixel in pixels {
            let word = u32::from_le_bytes(*pixel);
            let gray = gray(word) as u8;
            let channel = |shift: u32| u32::from(blend(gray, (word >> shift) as u8, factor)) << shift;
            *pixel = (channel(0) | channel(8) | channel(16) | word & 0xFF00_0000).to_le_bytes();
        }
    }
}

per_level! {
    /// The sum of the grays of up to 2^16 pixels.
    pub(crate) fn gray_sum(pixels: &[[u8; 4]]) -> u32 {
        pixels.iter().map(|&pixel| gray(u32::from_le_bytes(pixel))).sum::<u32>()
    }
}

/// The sum of the grays of up to 2^16 pixels.
pub(crate) fn gray_sum_of_rgb(rgb: &[[u8; 3]]) -> u32 {
    rgb.iter().map(|&[r, g, b]| gray(u32::from_le_bytes([r, g, b, 0]))).sum::<u32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::magnitude::enhance_factor;
    use crate::simd::level::tests::at_each_level;

    /// Pillow's C, with conversions.
    fn blend_plain(dull: u8, value: u8, factor: f32) -> u8 {
        let blended = f32::from(dull) + factor * (i32::from(value) - i32::from(dull)) as f32;
        if blended <= 0.0 {
            0
        } else if blended >= 255.0 {
            255
        } else {
            blended as u8
        }
    }

    #[test]
    fn every_pair_of_bytes() {
        let factors = (0..=9).map(enhance_factor).chain([0.0, 0.5, 1.0 / 3.0, 2.0, 1000.0, -1.0]);
        for factor in factors {
            for (dull, value) in (0..=255).flat_map(|dull| (0..=255).map(move |value| (dull, value))) {
                let expected = blend_plain(dull, value, factor);
                assert_eq!(blend(dull, value, factor), expected, "{dull}, {value}, {factor}");
                if let Some(short) = ShortBlend::of(factor) {
                    let blended = short.blend(dull.into(), value.into());
                    assert_eq!(blended, i16::from(expected), "{dull}, {value}, {factor} in 16 bits");
                }
            }
        }
    }
    at_each_level! {
        fn tables(level: Level) {
            for factor in (0..=9).map(enhance_factor).chain([0.0, 0.5, 1.0 / 3.0, 2.0, 1000.0, -1.0]) {
                for dull in [0, 97] {
                    let expected: LookupTable = std::array::from_fn(|value| blend_plain(dull, value as u8, factor));
                    assert_eq!(blend_table(level, dull, factor), expected, "{dull}, {factor}");
                }
            }
        }
    }
}
