//! In AVX-512, sixteen pixels at a time.

use std::arch::x86_64::*;

use crate::simd::avx512::{EXPAND, LANES, first_lanes, load, rgb_bytes};

/// Pixels of red, green and blue become opaque pixels of four bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn expand(rgb: &[u8], out: &mut [[u8; 4]]) {
    assert_eq!(rgb.len(), 3 * out.len(), "bytes of so many pixels");
    let index = load(&EXPAND);
    let opaque = _mm512_set1_epi32(0xFF00_0000u32 as i32);
    let mut at = 0;
    while 3 * at + 64 <= rgb.len() {
        // SAFETY: 64 bytes are left to read, so more than sixteen pixels to write.
        unsafe {
            let pixels = _mm512_loadu_epi8(rgb.as_ptr().add(3 * at).cast());
            let pixels = _mm512_or_si512(_mm512_permutexvar_epi8(index, pixels), opaque);
            _mm512_storeu_epi32(out.as_mut_ptr().add(at).cast(), pixels);
        }
        at += LANES;
    }
    while at < out.len() {
        let lanes = first_lanes(out.len() - at);
        // SAFETY: only the pixels that are left are read and written.
        unsafe {
            let pixels = _mm512_maskz_loadu_epi8(rgb_bytes(lanes), rgb.as_ptr().add(3 * at).cast());
            let pixels = _mm512_or_si512(_mm512_permutexvar_epi8(index, pixels), opaque);
            _mm512_mask_storeu_epi32(out.as_mut_ptr().add(at).cast(), lanes, pixels);
        }
        at += LANES;
    }
}
