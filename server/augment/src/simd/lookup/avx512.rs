//! In AVX-512, with the table in registers.

use std::arch::x86_64::*;

use crate::simd::avx512::{TableRegisters, for_each_vector};
use crate::simd::lookup::portable::LookupTable;

/// Bytes of a vector of four-byte pixels that hold red; green, blue and alpha follow.
const REDS: u64 = 0x1111_1111_1111_1111;

/// Looks red, green and blue up in their tables; alpha bytes gain the bits of `alpha`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn look_up(pixels: &mut [[u8; 4]], [red, green, blue]: [&LookupTable; 3], alpha: u8) {
    let alpha = _mm512_set1_epi32(i32::from(alpha) << 24);
    let with_alpha =
        |values, looked_up| _mm512_or_si512(_mm512_mask_blend_epi8(REDS << 3, looked_up, values), alpha);
    if std::ptr::eq(red, green) && std::ptr::eq(green, blue) {
        let table = TableRegisters::new(red);
        for_each_vector(pixels, |values| {
            with_alpha(values, table.look_up(values, _mm512_movepi8_mask(values)))
        });
    } else {
        let (red, green, blue) =
            (TableRegisters::new(red), TableRegisters::new(green), TableRegisters::new(blue));
        for_each_vector(pixels, |values| {
            let high = _mm512_movepi8_mask(values);
            let looked_up = red.look_up(values, high);
            let looked_up = _mm512_mask_blend_epi8(REDS << 1, looked_up, green.look_up(values, high));
            let looked_up = _mm512_mask_blend_epi8(REDS << 2, looked_up, blue.look_up(values, high));
            with_alpha(values, looked_up)
        });
    }
}

/// What a value becomes by one table and then another.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn compose(first: &LookupTable, second: &LookupTable) -> LookupTable {
    let (mut composed, second) = (*first, TableRegisters::new(second));
    for quarter in composed.as_chunks_mut::<64>().0 {
        // SAFETY: a quarter has 64 bytes.
        unsafe {
            let values = _mm512_loadu_epi8(quarter.as_ptr().cast());
            let values = second.look_up(values, _mm512_movepi8_mask(values));
            _mm512_storeu_epi8(quarter.as_mut_ptr().cast(), values);
        }
    }
    composed
}
