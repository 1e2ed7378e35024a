//! In AVX2, eight pixels at a time.

use std::arch::x86_64::*;

use crate::simd::avx2::{LANES, PACK, shuffle};
use crate::simd::place::portable;

/// As [`PACK`], mirrored.
const PACK_MIRRORED: [i8; 16] = [12, 13, 14, 8, 9, 10, 4, 5, 6, 0, 1, 2, -1, -1, -1, -1];
/// The last four pixels of three bytes, mirrored.
const MIRROR: [i8; 16] = [13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, -1, -1, -1, -1];

/// As [`portable::copy_row`] with mirrored pixels.
#[target_feature(enable = "avx2,bmi2")]
pub(super) fn mirror_row(source: &[[u8; 3]], out: &mut [u8]) {
    assert_eq!(out.len(), 3 * source.len(), "bytes of so many pixels");
    let (bytes, index) = (source.as_flattened(), shuffle(&MIRROR));
    let mut at = 0;
    while at + 16 <= out.len() {
        // SAFETY: as many bytes are left to read before the ones that were, as to write.
        unsafe {
            let pixels = _mm_loadu_si128(bytes.as_ptr().add(bytes.len() - at - 16).cast());
            _mm_storeu_si128(out.as_mut_ptr().add(at).cast(), _mm_shuffle_epi8(pixels, index));
        }
        at += 12;
    }
    portable::copy_row(&source[..source.len() - at / 3], &mut out[at..], true);
}

/// As [`portable::pack_row`].
#[target_feature(enable = "avx2,bmi2")]
pub(super) fn pack_row(source: &[[u8; 4]], out: &mut [u8], mirrored: bool, colour: [u8; 3]) {
    assert_eq!(out.len(), 3 * source.len(), "bytes of so many pixels");
    let [red, green, blue] = colour;
    let filling = _mm256_set1_epi32(i32::from_le_bytes([red, green, blue, 0]));
    let index = _mm256_broadcastsi128_si256(shuffle(if mirrored { &PACK_MIRRORED } else { &PACK }));
    let alpha = _mm256_set1_epi32(0xFF00_0000u32 as i32);
    let mut at = 0;
    // Two stores of sixteen bytes, twelve bytes apart.
    while 3 * at + 28 <= out.len() {
        let first = if mirrored { source.len() - at - LANES } else { at };
        // SAFETY: 28 bytes are left to write, so at least nine pixels to read.
        unsafe {
            let pixels = _mm256_loadu_si256(source.as_ptr().add(first).cast());
            let hole = _mm256_cmpeq_epi32(_mm256_and_si256(pixels, alpha), _mm256_setzero_si256());
            let pixels = _mm256_shuffle_epi8(_mm256_blendv_epi8(pixels, filling, hole), index);
            let halves = (_mm256_castsi256_si128(pixels), _mm256_extracti128_si256::<1>(pixels));
            let (one, other) = if mirrored { (halves.1, halves.0) } else { halves };
            let to = out.as_mut_ptr().add(3 * at);
            _mm_storeu_si128(to.cast(), one);
            _mm_storeu_si128(to.add(12).cast(), other);
        }
        at += LANES;
    }
    let left = if mirrored { 0..source.len() - at } else { at..source.len() };
    portable::pack_row(&source[left], &mut out[3 * at..], mirrored, colour);
}
