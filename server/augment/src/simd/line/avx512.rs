//! In AVX-512, eight values at a time.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use crate::simd::lookup::portable::LookupTable;

/// `scale * value + offset` of every value, without its fraction and clipped to a byte.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn line(scale: f64, offset: f64) -> LookupTable {
    let mut table = [0; 256];
    let (scale, offset) = (_mm512_set1_pd(scale), _mm512_set1_pd(offset));
    let (mut values, eight) = (_mm512_setr_pd(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0), _mm512_set1_pd(8.0));
    for out in table.as_chunks_mut::<8>().0 {
        let words = _mm512_cvttpd_epi32(_mm512_add_pd(_mm512_mul_pd(values, scale), offset));
        let bytes = _mm256_cvtusepi32_epi8(_mm256_max_epi32(words, _mm256_setzero_si256()));
        // SAFETY: eight bytes.
        unsafe { _mm_storel_epi64(out.as_mut_ptr().cast(), bytes) };
        values = _mm512_add_pd(values, eight);
    }
    table
}
