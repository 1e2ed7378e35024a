//! What several algorithms share in AVX-512: sixteen pixels at a time.
//!
//! Functions here and in the files named `avx512` are safe to call wherever their features are
//! enabled; elsewhere, whoever calls them holds a [`Level`](crate::Level) that says so. Loads and
//! stores go through pointers; masks keep them inside the slices, for no instruction touches memory
//! under a lane that is masked off.

use std::arch::x86_64::*;
use std::ops::Range;

/// Pixels of a vector.
pub(crate) const LANES: usize = 16;

/// The lanes that lie in `range`, when lane 0 is at `first`.
#[inline(always)]
pub(crate) fn lanes_in(range: &Range<isize>, first: isize) -> u16 {
    let start = (range.start - first).clamp(0, LANES as isize) as u32;
    let end = (range.end - first).clamp(0, LANES as isize) as u32;
    (((1u32 << end) - 1) & !((1u32 << start) - 1)) as u16
}

/// The first `count` lanes of sixteen.
#[inline(always)]
pub(crate) fn first_lanes(count: usize) -> u16 {
    ((1u32 << count.min(LANES)) - 1) as u16
}

/// The bytes of three-byte pixels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn rgb_bytes(lanes: u16) -> u64 {
    _pdep_u64(lanes.into(), 0x2492_4924_9249) * 0b111
}

/// Byte numbers for a permutation.
const fn bytes(of: [[u8; 4]; LANES]) -> [u8; 64] {
    let mut flat = [0; 64];
    let mut i = 0;
    while i < 64 {
        flat[i] = of[i / 4][i % 4];
        i += 1;
    }
    flat
}

/// From three bytes to four. The fourth becomes a copy of the third.
pub(crate) const EXPAND: [u8; 64] = {
    let mut of = [[0; 4]; LANES];
    let mut i = 0;
    while i < LANES {
        let first = 3 * i as u8;
        of[i] = [first, first + 1, first + 2, first + 2];
        i += 1;
    }
    bytes(of)
};

/// A table of 256 bytes in registers.
#[derive(Clone, Copy)]
pub(crate) struct TableRegisters([__m512i; 4]);

impl TableRegisters {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
    pub(crate) fn new(table: &[u8; 256]) -> TableRegisters {
        let quarters = table.as_chunks::<64>().0;
        // SAFETY: a quarter has 64 bytes.
        let quarter = |i: usize| unsafe { _mm512_loadu_epi8(quarters[i].as_ptr().cast()) };
        TableRegisters([quarter(0), quarter(1), quarter(2), quarter(3)])
    }

    /// Looks bytes up; `high` are those over 127.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
    pub(crate) fn look_up(self, values: __m512i, high: u64) -> __m512i {
        let TableRegisters([a, b, c, d]) = self;
        let low_ones = _mm512_permutex2var_epi8(a, values, b);
        _mm512_mask_blend_epi8(high, low_ones, _mm512_permutex2var_epi8(c, values, d))
    }
}

/// Replaces pixels, sixteen at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn for_each_vector(pixels: &mut [[u8; 4]], function: impl Fn(__m512i) -> __m512i) {
    let (vectors, rest) = pixels.as_chunks_mut::<LANES>();
    for vector in vectors {
        // SAFETY: a vector has 64 bytes.
        unsafe {
            let values = _mm512_loadu_epi8(vector.as_ptr().cast());
            _mm512_storeu_epi8(vector.as_mut_ptr().cast(), function(values));
        }
    }
    if !rest.is_empty() {
        let lanes = first_lanes(rest.len());
        // SAFETY: only lanes inside the rest are touched.
        unsafe {
            let values = _mm512_maskz_loadu_epi32(lanes, rest.as_ptr().cast());
            _mm512_mask_storeu_epi32(rest.as_mut_ptr().cast(), lanes, function(values));
        }
    }
}
