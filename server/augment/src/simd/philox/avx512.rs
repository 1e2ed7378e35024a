//! In AVX-512, eight blocks at a time.

use std::arch::x86_64::*;

use crate::simd::avx512::load;

/// As [`philox`](super::philox).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn philox(
    key: [u32; 2],
    counters: &[u32; 16],
    rest: [u32; 3],
    last: &[[u32; 8]; 4],
) -> (u32, [[u32; 8]; 4]) {
    let broadcast = |word: u32| _mm512_set1_epi64(word.into());
    let multipliers = (broadcast(0xD251_1F53), broadcast(0xCD9E_8D57));
    let counters = load(counters);
    let (low, high) = (_mm512_castsi512_si256(counters), _mm512_extracti64x4_epi64::<1>(counters));
    let mut halves = [low, high].map(|first| {
        [_mm512_cvtepu32_epi64(first), broadcast(rest[0]), broadcast(rest[1]), broadcast(rest[2])]
    });
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let keys = (broadcast(k0), broadcast(k1));
        for words in &mut halves {
            // Only the low halves of the 64-bit lanes count; the multiplication ignores the others.
            let [c0, c1, c2, c3] = *words;
            let (p0, p1) = (_mm512_mul_epu32(c0, multipliers.0), _mm512_mul_epu32(c2, multipliers.1));
            let xor = |product, word, key| {
                _mm512_ternarylogic_epi64::<0x96>(_mm512_srli_epi64::<32>(product), word, key)
            };
            *words = [xor(p1, c1, keys.0), p1, xor(p0, c3, keys.1), p0];
        }
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    let [first, second] = halves;
    let (mut fired, mut others) = (0, [[0; 8]; 4]);
    for lane in 0..4 {
        // SAFETY: eight words each.
        unsafe {
            let last = _mm256_loadu_si256(last[lane].as_ptr().cast());
            let at_most = _mm256_cmple_epu32_mask(_mm512_cvtepi64_epi32(first[lane]), last);
            fired |= _pdep_u32(at_most.into(), 0x1111_1111 << lane);
            _mm256_storeu_si256(others[lane].as_mut_ptr().cast(), _mm512_cvtepi64_epi32(second[lane]));
        }
    }
    (fired, others)
}
