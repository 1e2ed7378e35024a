//! In AVX-512, sixteen pixels at a time.

use std::arch::x86_64::*;

use crate::simd::avx512::{EXPAND, LANES, first_lanes, for_each_vector, load, rgb_bytes};
use crate::simd::blend::portable::ShortBlend;

/// The sum of the grays of up to 2^16 pixels.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn gray_sum_of_rgb(rgb: &[[u8; 3]]) -> u32 {
    let index = load(&EXPAND);
    let mut sums = _mm512_setzero_si512();
    for pixels in rgb.chunks(LANES) {
        let lanes = first_lanes(pixels.len());
        // SAFETY: only these pixels are read. Others are black, and their gray is 0.
        let pixels = unsafe { _mm512_maskz_loadu_epi8(rgb_bytes(lanes), pixels.as_ptr().cast()) };
        sums = _mm512_add_epi32(sums, gray(_mm512_permutexvar_epi8(index, pixels)));
    }
    _mm512_reduce_add_epi32(sums).cast_unsigned()
}

/// [`gray`](super::portable::gray) of sixteen pixels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn gray(pixels: __m512i) -> __m512i {
    let red_blue = _mm512_and_si512(pixels, _mm512_set1_epi16(0xFF));
    let green_alpha = _mm512_srli_epi16::<8>(pixels);
    // Half of green's weight, which alone would not fit.
    let green = _mm512_madd_epi16(green_alpha, _mm512_set1_epi32(19235));
    let red_blue = _mm512_madd_epi16(red_blue, _mm512_set1_epi32(7471 << 16 | 19595));
    let sum = _mm512_add_epi32(_mm512_slli_epi32::<1>(green), red_blue);
    _mm512_srli_epi32::<16>(_mm512_add_epi32(sum, _mm512_set1_epi32(0x8000)))
}

/// Bytes of a vector of four-byte pixels that are not alpha.
const COLOURS: u64 = 0x7777_7777_7777_7777;

/// Blends pixels with their gray.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn blend_with_gray(pixels: &mut [[u8; 4]], short: ShortBlend) {
    let word = |word: i16| _mm512_set1_epi16(word);
    let (whole, part, bias) = (word(short.whole), word(short.part), word(short.bias));
    let blend = |dull, values| {
        let distance = _mm512_sub_epi16(values, dull);
        let part = _mm512_mulhi_epi16(_mm512_slli_epi16::<7>(distance), part);
        let part = _mm512_srai_epi16::<7>(_mm512_add_epi16(part, bias));
        _mm512_add_epi16(_mm512_add_epi16(dull, _mm512_mullo_epi16(distance, whole)), part)
    };
    // Packing leaves red and blue of four pixels before green and alpha of them.
    let order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    for_each_vector(pixels, |values| {
        let red_blue = _mm512_and_si512(values, _mm512_set1_epi16(0xFF));
        let green_alpha = _mm512_srli_epi16::<8>(values);
        let gray = gray(values);
        let gray = _mm512_or_si512(gray, _mm512_slli_epi32::<16>(gray));
        let blended = _mm512_packus_epi16(blend(gray, red_blue), blend(gray, green_alpha));
        _mm512_mask_shuffle_epi8(values, COLOURS, blended, order)
    });
}
