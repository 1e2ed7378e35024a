//! In AVX2, eight pixels at a time.

use std::arch::x86_64::*;

use crate::simd::avx2::{LANES, shuffle};
use crate::simd::expand::portable;

/// From three bytes to four in each half, with a zero for alpha.
const EXPAND: [i8; 16] = [0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1];

/// Pixels of red, green and blue become opaque pixels of four bytes.
#[target_feature(enable = "avx2,bmi2")]
pub(crate) fn expand(rgb: &[u8], out: &mut [[u8; 4]]) {
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
    portable::expand(&rgb[3 * at..], &mut out[at..]);
}
