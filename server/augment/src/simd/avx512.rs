//! What several algorithms share in AVX-512: sixteen pixels at a time.
//!
//! Functions here and in the files named `avx512` are safe to call wherever their features are
//! enabled; elsewhere, their callers hold a [`Level`](crate::Level) that says so. Loads and
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

/// Sixty-four bytes as a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn load<T: Copy, const COUNT: usize>(of: &[T; COUNT]) -> __m512i {
    const { assert!(size_of::<[T; COUNT]>() == 64) };
    // SAFETY: the array has 64 bytes.
    unsafe { _mm512_loadu_epi8(of.as_ptr().cast()) }
}

/// Writes a vector to sixty-four bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn store(to: &mut [u8; 64], vector: __m512i) {
    // SAFETY: the array has 64 bytes.
    unsafe { _mm512_storeu_epi8(to.as_mut_ptr().cast(), vector) };
}

/// From three bytes to four. The fourth becomes a copy of the third.
pub(crate) const EXPAND: [u8; 64] = {
    let mut of = [0; 64];
    let mut i = 0;
    while i < 64 {
        of[i] = (i / 4 * 3 + if i % 4 == 3 { 2 } else { i % 4 }) as u8;
        i += 1;
    }
    of
};

/// A table of 256 bytes in registers.
#[derive(Clone, Copy)]
pub(crate) struct TableRegisters([__m512i; 4]);

impl TableRegisters {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
    pub(crate) fn new(table: &[u8; 256]) -> TableRegisters {
        let quarter = |i: usize| load(&table.as_chunks::<64>().0[i]);
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

/// Looks bytes up in the tables of their channels. Green stands at the bytes `greens`, blue at those
/// that follow them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn look_up_channels(tables: &[TableRegisters; 3], values: __m512i, greens: u64) -> __m512i {
    let [red, green, blue] = tables;
    let high = _mm512_movepi8_mask(values);
    let looked_up = red.look_up(values, high);
    let looked_up = _mm512_mask_blend_epi8(greens, looked_up, green.look_up(values, high));
    _mm512_mask_blend_epi8(greens << 1, looked_up, blue.look_up(values, high))
}

/// Replaces pixels, sixteen at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn for_each_vector(pixels: &mut [[u8; 4]], function: impl Fn(__m512i) -> __m512i) {
    let (vectors, rest) = pixels.as_flattened_mut().as_chunks_mut();
    for vector in vectors {
        store(vector, function(load(vector)));
    }
    if !rest.is_empty() {
        let lanes = first_lanes(rest.len() / 4);
        // SAFETY: only lanes inside the rest are touched.
        unsafe {
            let values = _mm512_maskz_loadu_epi32(lanes, rest.as_ptr().cast());
            _mm512_mask_storeu_epi32(rest.as_mut_ptr().cast(), lanes, function(values));
        }
    }
}
