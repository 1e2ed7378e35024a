//! What the compiler cannot make vectors of, in AVX2: eight pixels at a time.
//!
//! As in [`avx512`](super::avx512), functions are safe to call wherever their features are
//! enabled.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::avx512::Lanes;
use crate::ops::FixedAffine;

/// Pixels of a vector.
const LANES: usize = 8;

/// From three bytes to four in each half, with a zero for alpha.
const EXPAND: [i8; 16] = [0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1];
/// From four bytes to three in each half.
const PACK: [i8; 16] = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1];
/// As [`PACK`], mirrored.
const PACK_MIRRORED: [i8; 16] = [12, 13, 14, 8, 9, 10, 4, 5, 6, 0, 1, 2, -1, -1, -1, -1];
/// The last four pixels of three bytes, mirrored.
const MIRROR: [i8; 16] = [13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, -1, -1, -1, -1];

#[inline]
#[target_feature(enable = "avx2,bmi2")]
fn shuffle(of: &[i8; 16]) -> __m128i {
    // SAFETY: sixteen bytes.
    unsafe { _mm_loadu_si128(of.as_ptr().cast()) }
}

/// Pixels of red, green and blue become opaque pixels of four bytes. Gives how many did; the few
/// that are left do not fill vectors.
#[target_feature(enable = "avx2,bmi2")]
pub(crate) fn expand(rgb: &[u8], out: &mut [[u8; 4]]) -> usize {
    assert_eq!(rgb.len(), 3 * out.len(), "bytes of so many pixels");
    let index = _mm256_broadcastsi128_si256(shuffle(&EXPAND));
    let opaque = _mm256_set1_epi32(0xFF00_0000u32 as i32);
    let mut at = 0;
    // Two loads of sixteen bytes, twelve bytes apart.
    while 3 * at + 28 <= rgb.len() {
        // SAFETY: 28 bytes are left to read, so at least nine pixels to write.
        unsafe {
            let from = rgb.as_ptr().add(3 * at);
            let pixels = _mm256_loadu2_m128i(from.add(12).cast(), from.cast());
            let pixels = _mm256_or_si256(_mm256_shuffle_epi8(pixels, index), opaque);
            _mm256_storeu_si256(out.as_mut_ptr().add(at).cast(), pixels);
        }
        at += LANES;
    }
    at
}

/// Mirrors pixels of three bytes. Gives how many of the output are written; the others are for the
/// caller.
#[target_feature(enable = "avx2,bmi2")]
pub(crate) fn mirror(source: &[[u8; 3]], out: &mut [u8]) -> usize {
    assert_eq!(out.len(), 3 * source.len(), "bytes of so many pixels");
    let (source, index) = (source.as_flattened(), shuffle(&MIRROR));
    let mut at = 0;
    while at + 16 <= out.len() {
        // SAFETY: as many bytes are left to read before the ones that were, as to write.
        unsafe {
            let pixels = _mm_loadu_si128(source.as_ptr().add(source.len() - at - 16).cast());
            _mm_storeu_si128(out.as_mut_ptr().add(at).cast(), _mm_shuffle_epi8(pixels, index));
        }
        at += 12;
    }
    at / 3
}

/// Writes pixels without their alpha, mirrored or not, with another colour for those whose alpha
/// is 0. Gives how many are written, as [`mirror`].
#[target_feature(enable = "avx2,bmi2")]
pub(crate) fn pack(source: &[[u8; 4]], out: &mut [u8], mirrored: bool, colour: [u8; 3]) -> usize {
    assert_eq!(out.len(), 3 * source.len(), "bytes of so many pixels");
    let [red, green, blue] = colour;
    let colour = _mm256_set1_epi32(i32::from_le_bytes([red, green, blue, 0]));
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
            let pixels = _mm256_shuffle_epi8(_mm256_blendv_epi8(pixels, colour, hole), index);
            let halves = (_mm256_castsi256_si128(pixels), _mm256_extracti128_si256::<1>(pixels));
            let (one, other) = if mirrored { (halves.1, halves.0) } else { halves };
            let to = out.as_mut_ptr().add(3 * at);
            _mm_storeu_si128(to.cast(), one);
            _mm_storeu_si128(to.add(12).cast(), other);
        }
        at += LANES;
    }
    at
}

/// As [`avx512::gather`](super::avx512::gather), eight pixels at a time.
#[target_feature(enable = "avx2,bmi2")]
pub(crate) fn gather(affine: &FixedAffine, source: &[[u8; 4]], out: &mut [[u8; 4]], width: usize) {
    let height = out.len() / width;
    assert_eq!((source.len(), out.len()), (width * height, width * height), "pixels of both images");
    assert!((0..=1 << 16).contains(&affine.per_column.0), "columns follow one another");
    let (step_x, step_y) = affine.per_column;
    let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let lane_x = _mm256_mullo_epi32(lane, _mm256_set1_epi32(step_x));
    let lane_y = _mm256_mullo_epi32(lane, _mm256_set1_epi32(step_y));
    let rows = ((step_y.unsigned_abs() as usize * (LANES - 1) + 0xFFFF) >> 16) + 1;
    let rightmost = _mm256_set1_epi32(width as i32 - 1);
    // Whether columns are in the row: a negative one is a large one.
    let in_row = |columns| _mm256_cmpeq_epi32(_mm256_min_epu32(columns, rightmost), columns);
    let (mut row_x, mut row_y) = affine.start;
    for out in out.chunks_exact_mut(width) {
        let (mut x, mut y) = (row_x, row_y);
        let mut at = 0;
        while at < width {
            let first_column = (x >> 16) as isize;
            let first_row = y.min(y.wrapping_add(step_y.wrapping_mul(LANES as i32 - 1))) >> 16;
            let origin = _mm256_set1_epi32(first_column as i32);
            let window = in_row(_mm256_add_epi32(origin, lane));
            let column = _mm256_srai_epi32::<16>(_mm256_add_epi32(_mm256_set1_epi32(x), lane_x));
            let row = _mm256_srai_epi32::<16>(_mm256_add_epi32(_mm256_set1_epi32(y), lane_y));
            let index = _mm256_sub_epi32(column, origin);
            let inside = in_row(column);
            let mut pixels = _mm256_setzero_si256();
            for from in first_row..first_row + rows as i32 {
                if (from as u32 as usize) < height {
                    let here = _mm256_and_si256(inside, _mm256_cmpeq_epi32(row, _mm256_set1_epi32(from)));
                    // SAFETY: the row exists, and the lanes of the window are in it.
                    let neighbours = unsafe {
                        let start = source.as_ptr().add(from as usize * width).wrapping_offset(first_column);
                        _mm256_maskload_epi32(start.cast(), window)
                    };
                    let neighbours = _mm256_permutevar8x32_epi32(neighbours, index);
                    pixels = _mm256_blendv_epi8(pixels, neighbours, here);
                }
            }
            // SAFETY: the row has eight more pixels, or only the lanes inside of it are written.
            unsafe {
                let to = out.as_mut_ptr().add(at).cast();
                if at + LANES <= width {
                    _mm256_storeu_si256(to, pixels);
                } else {
                    let left = _mm256_set1_epi32((width - at) as i32);
                    _mm256_maskstore_epi32(to.cast(), _mm256_cmpgt_epi32(left, lane), pixels);
                }
            }
            x = x.wrapping_add(step_x.wrapping_mul(LANES as i32));
            y = y.wrapping_add(step_y.wrapping_mul(LANES as i32));
            at += LANES;
        }
        row_x = row_x.wrapping_add(affine.per_row.0);
        row_y = row_y.wrapping_add(affine.per_row.1);
    }
}

/// As [`avx512::philox`](super::avx512::philox).
#[target_feature(enable = "avx2,bmi2")]
pub(crate) fn philox(key: [u32; 2], counters: &[u32; 16], rest: [u32; 3], last: &Lanes) -> (u32, Lanes) {
    let (first, second) = counters.split_at(8);
    let first = philox8(key, first.as_array().expect("eight of sixteen"), rest);
    let mut fired = 0;
    for lane in 0..4 {
        // SAFETY: eight words each.
        let (words, last) = unsafe {
            (_mm256_loadu_si256(first[lane].as_ptr().cast()), _mm256_loadu_si256(last[lane].as_ptr().cast()))
        };
        let at_most = _mm256_cmpeq_epi32(_mm256_max_epu32(words, last), last);
        let bits = _mm256_movemask_ps(_mm256_castsi256_ps(at_most)) as u32;
        fired |= _pdep_u32(bits, 0x1111_1111 << lane);
    }
    (fired, philox8(key, second.as_array().expect("eight of sixteen"), rest))
}

/// Eight Philox blocks.
#[inline]
#[target_feature(enable = "avx2,bmi2")]
fn philox8(key: [u32; 2], counters: &[u32; 8], rest: [u32; 3]) -> Lanes {
    let broadcast = |word: u32| _mm256_set1_epi64x(word.into());
    let multipliers = (broadcast(0xD251_1F53), broadcast(0xCD9E_8D57));
    // SAFETY: four words each.
    let counters = |i: usize| unsafe { _mm_loadu_si128(counters.as_ptr().add(i).cast()) };
    let start =
        |first| [_mm256_cvtepu32_epi64(first), broadcast(rest[0]), broadcast(rest[1]), broadcast(rest[2])];
    let mut halves = [start(counters(0)), start(counters(4))];
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let keys = (broadcast(k0), broadcast(k1));
        for words in &mut halves {
            // Only the low halves of the 64-bit lanes count; the multiplication ignores the others.
            let [c0, c1, c2, c3] = *words;
            let (p0, p1) = (_mm256_mul_epu32(c0, multipliers.0), _mm256_mul_epu32(c2, multipliers.1));
            let xor = |product, word, key| {
                _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64::<32>(product), word), key)
            };
            *words = [xor(p1, c1, keys.0), p1, xor(p0, c3, keys.1), p0];
        }
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    let mut out = [[0; 8]; 4];
    let low_halves = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
    for (i, words) in halves.into_iter().enumerate() {
        for (lane, words) in words.into_iter().enumerate() {
            let low = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(words, low_halves));
            // SAFETY: four of eight words.
            unsafe { _mm_storeu_si128(out[lane].as_mut_ptr().add(4 * i).cast(), low) };
        }
    }
    out
}

/// Position of the `nth` bit that is set, counting both from 0.
#[target_feature(enable = "bmi2")]
pub(crate) fn nth_bit(bits: u32, nth: u32) -> u32 {
    _pdep_u32(1 << nth, bits).trailing_zeros()
}
