//! In AVX2, eight blocks at a time.

use std::arch::x86_64::*;

/// As [`philox`](super::philox).
#[target_feature(enable = "avx2,bmi2")]
pub(crate) fn philox(
    key: [u32; 2],
    counters: &[u32; 16],
    rest: [u32; 3],
    last: &[[u32; 8]; 4],
) -> (u32, [[u32; 8]; 4]) {
    let halves = counters.as_chunks().0;
    let first = philox8(key, &halves[0], rest);
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
    (fired, philox8(key, &halves[1], rest))
}

/// Eight Philox blocks.
#[inline]
#[target_feature(enable = "avx2,bmi2")]
fn philox8(key: [u32; 2], counters: &[u32; 8], rest: [u32; 3]) -> [[u32; 8]; 4] {
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
