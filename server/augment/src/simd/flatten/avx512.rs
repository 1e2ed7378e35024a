//! In AVX-512, sixteen values at a time.

use std::arch::x86_64::*;

use crate::simd::avx512::{LANES, load};
use crate::simd::flatten::portable::Histogram;
use crate::simd::lookup::portable::{IDENTITY, LookupTable};

/// The tables of histograms, for steps below [`STEP_END`](super::portable::STEP_END).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn flatten(histograms: &[Histogram; 3], steps: [u32; 3]) -> [LookupTable; 3] {
    std::array::from_fn(|channel| match steps[channel] {
        0 => IDENTITY,
        step => flatten_one(&histograms[channel], step),
    })
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn flatten_one(histogram: &Histogram, step: u32) -> LookupTable {
    let mut table = [0; 256];
    let (nothing, last) = (_mm512_setzero_si512(), _mm512_set1_epi32(LANES as i32 - 1));
    let (half, reciprocal) = (_mm512_set1_ps(0.5), _mm512_set1_ps(1.0 / step as f32));
    let mut before = _mm512_set1_epi32((step / 2) as i32);
    for (counts, out) in histogram.as_chunks::<LANES>().0.iter().zip(table.as_chunks_mut::<LANES>().0) {
        let counts = load(counts);
        // Each lane becomes the sum of the lanes up to it, in steps of 1, 2, 4 and 8.
        let sums = _mm512_add_epi32(counts, _mm512_alignr_epi32::<15>(counts, nothing));
        let sums = _mm512_add_epi32(sums, _mm512_alignr_epi32::<14>(sums, nothing));
        let sums = _mm512_add_epi32(sums, _mm512_alignr_epi32::<12>(sums, nothing));
        let sums = _mm512_add_epi32(sums, _mm512_alignr_epi32::<8>(sums, nothing));
        let dividend = _mm512_sub_epi32(_mm512_add_epi32(before, sums), counts);
        before = _mm512_add_epi32(before, _mm512_permutexvar_epi32(last, sums));
        let quotient = _mm512_mul_ps(_mm512_add_ps(_mm512_cvtepi32_ps(dividend), half), reciprocal);
        let bytes = _mm512_cvtusepi32_epi8(_mm512_cvttps_epi32(quotient));
        // SAFETY: sixteen bytes.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), bytes) };
    }
    table
}
