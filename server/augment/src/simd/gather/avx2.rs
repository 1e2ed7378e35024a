//! In AVX2, eight pixels at a time.

use std::arch::x86_64::*;

use crate::simd::avx2::LANES;
use crate::simd::gather::portable::FixedAffine;

/// As [`avx512::gather`](super::avx512::gather), eight pixels at a time.
#[target_feature(enable = "avx2,bmi2")]
pub(crate) fn gather(affine: &FixedAffine, source: &[[u8; 4]], out: &mut [[u8; 4]], width: usize) {
    let height = out.len() / width;
    assert_eq!((source.len(), out.len()), (width * height, width * height), "pixels of both images");
    assert!((0..=1 << 16).contains(&affine.per_column.0), "columns follow one another");
    let (step_x, step_y) = affine.per_column;
    let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let lane_x = _mm256_mullo_epi32(lane, _mm256_set1_epi32(step_x));
    let lane_y = _mm256_mullo_epi32(lane, _mm256_set1_epi32(step_y));
    let rows = ((step_y.unsigned_abs() as usize * (LANES - 1) + 0xFFFF) >> 16) + 1;
    let rightmost = _mm256_set1_epi32(width as i32 - 1);
    // Whether columns are in the row: a negative one is a large one.
    let in_row = |columns| _mm256_cmpeq_epi32(_mm256_min_epu32(columns, rightmost), columns);
    let (mut row_x, mut row_y) = affine.start;
    for out in out.chunks_exact_mut(width) {
        let (mut x, mut y) = (row_x, row_y);
        let mut at = 0;
        while at < width {
            let first_column = (x >> 16) as isize;
            let first_row = y.min(y.wrapping_add(step_y.wrapping_mul(LANES as i32 - 1))) >> 16;
            let origin = _mm256_set1_epi32(first_column as i32);
            let window = in_row(_mm256_add_epi32(origin, lane));
            let column = _mm256_srai_epi32::<16>(_mm256_add_epi32(_mm256_set1_epi32(x), lane_x));
            let row = _mm256_srai_epi32::<16>(_mm256_add_epi32(_mm256_set1_epi32(y), lane_y));
            let index = _mm256_sub_epi32(column, origin);
            let inside = in_row(column);
            let mut pixels = _mm256_setzero_si256();
            for from in first_row..first_row + rows as i32 {
                if (from as u32 as usize) < height {
                    let here = _mm256_and_si256(inside, _mm256_cmpeq_epi32(row, _mm256_set1_epi32(from)));
                    // SAFETY: the row exists, and the lanes of the window are in it.
                    let neighbours = unsafe {
                        let start = source.as_ptr().add(from as usize * width).wrapping_offset(first_column);
                        _mm256_maskload_epi32(start.cast(), window)
                    };
                    let neighbours = _mm256_permutevar8x32_epi32(neighbours, index);
                    pixels = _mm256_blendv_epi8(pixels, neighbours, here);
                }
            }
            // SAFETY: the row has eight more pixels, or only the lanes inside of it are written.
            unsafe {
                let to = out.as_mut_ptr().add(at).cast();
                if at + LANES <= width {
                    _mm256_storeu_si256(to, pixels);
                } else {
                    let left = _mm256_set1_epi32((width - at) as i32);
                    _mm256_maskstore_epi32(to.cast(), _mm256_cmpgt_epi32(left, lane), pixels);
                }
            }
            x = x.wrapping_add(step_x.wrapping_mul(LANES as i32));
            y = y.wrapping_add(step_y.wrapping_mul(LANES as i32));
            at += LANES;
        }
        row_x = row_x.wrapping_add(affine.per_row.0);
        row_y = row_y.wrapping_add(affine.per_row.1);
    }
}
