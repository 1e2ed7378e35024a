//! In AVX-512, with the table in registers.

use std::arch::x86_64::*;

use crate::simd::avx512::{TableRegisters, for_each_vector, load, look_up_channels, store};
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
        let tables = [TableRegisters::new(red), TableRegisters::new(green), TableRegisters::new(blue)];
        for_each_vector(pixels, |values| with_alpha(values, look_up_channels(&tables, values, REDS << 1)));
    }
}

/// What a value becomes by one table and then another.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn compose(first: &LookupTable, second: &LookupTable) -> LookupTable {
    let (mut composed, second) = (*first, TableRegisters::new(second));
    for quarter in composed.as_chunks_mut().0 {
        let values = load(quarter);
        store(quarter, second.look_up(values, _mm512_movepi8_mask(values)));
    }
    composed
}
