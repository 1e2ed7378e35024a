//! What several algorithms share in AVX2: eight pixels at a time.
//!
//! As in [`avx512`](super::avx512), functions are safe to call wherever their features are
//! enabled.

use std::arch::x86_64::*;

/// Pixels of a vector.
pub(crate) const LANES: usize = 8;

/// From four bytes to three in each half.
pub(crate) const PACK: [i8; 16] = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1];

/// A permutation of sixteen bytes as a vector.
#[inline]
#[target_feature(enable = "avx2,bmi2")]
pub(crate) fn shuffle(of: &[i8; 16]) -> __m128i {
    // SAFETY: sixteen bytes.
    unsafe { _mm_loadu_si128(of.as_ptr().cast()) }
}
