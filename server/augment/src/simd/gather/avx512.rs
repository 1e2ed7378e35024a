//! In AVX-512, sixteen pixels at a time.

use std::arch::x86_64::*;

use crate::simd::avx512::{LANES, first_lanes, lanes_in};
use crate::simd::gather::portable::FixedAffine;

/// [`gather`](super::gather), for coefficients with which a column comes from at most one column
/// further right than its left neighbour, and never from further left.
///
/// Sixteen neighbours then come from at most sixteen columns of a few rows: from each of these,
/// one vector is loaded and its pixels are put where they belong.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn gather(affine: &FixedAffine, source: &[[u8; 4]], out: &mut [[u8; 4]], width: usize) {
    let height = out.len() / width;
    assert_eq!((source.len(), out.len()), (width * height, width * height), "pixels of both images");
    assert!((0..=1 << 16).contains(&affine.per_column.0), "columns follow one another");
    const ONE: i32 = 1 << 16;
    match (affine.per_column, affine.per_row) {
        ((ONE, 0), (_, ONE)) if affine.start.1 >> 16 == 0 => shift_rows(affine, source, out, width),
        ((ONE, _), (0, ONE)) if affine.start.0 >> 16 == 0 => shift_columns(affine, source, out, width),
        _ => gather_any(affine, source, out, width),
    }
}

/// [`gather`] where each row moves to the left or right as a whole.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn shift_rows(affine: &FixedAffine, source: &[[u8; 4]], out: &mut [[u8; 4]], width: usize) {
    let columns = 0..width as isize;
    let mut distance = affine.start.0;
    for (source, out) in source.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        for at in (0..width).step_by(LANES) {
            let first = at as isize + (distance >> 16) as isize;
            let (from, window) = (source.as_ptr().wrapping_offset(first), lanes_in(&columns, first));
            // SAFETY: the lanes of the window are in the row, and only lanes in the row are written.
            unsafe {
                let pixels = _mm512_maskz_loadu_epi32(window, from.cast());
                _mm512_mask_storeu_epi32(out.as_mut_ptr().add(at).cast(), first_lanes(width - at), pixels);
            }
        }
        distance = distance.wrapping_add(affine.per_row.0);
    }
}

/// [`gather`] where each column moves up or down as a whole.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn shift_columns(affine: &FixedAffine, source: &[[u8; 4]], out: &mut [[u8; 4]], width: usize) {
    let height = out.len() / width;
    let lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let step = affine.per_column.1;
    let lane_y = _mm512_mullo_epi32(lane, _mm512_set1_epi32(step));
    for at in (0..width).step_by(LANES) {
        let in_row = first_lanes(width - at);
        let first = affine.start.1.wrapping_add(step.wrapping_mul(at as i32));
        let last = first.wrapping_add(step.wrapping_mul(LANES as i32 - 1));
        let distance = _mm512_srai_epi32::<16>(_mm512_add_epi32(_mm512_set1_epi32(first), lane_y));
        let (nearest, furthest) = (first.min(last) >> 16, first.max(last) >> 16);
        // The lanes that move by each distance; there are no more distances than lanes.
        let mut lanes = [0; LANES];
        let distances = (furthest - nearest) as usize + 1;
        for (moved, lanes) in (nearest..).zip(&mut lanes[..distances]) {
            *lanes = _mm512_mask_cmpeq_epi32_mask(in_row, distance, _mm512_set1_epi32(moved));
        }
        for y in 0..height {
            let mut pixels = _mm512_setzero_si512();
            let nearest = y as isize + nearest as isize;
            for (from, &lanes) in (nearest..).zip(&lanes[..distances]) {
                if from.cast_unsigned() < height {
                    // SAFETY: the row exists, and these lanes are in it.
                    pixels = unsafe {
                        let from = source.as_ptr().add(from.cast_unsigned() * width + at);
                        _mm512_mask_loadu_epi32(pixels, lanes, from.cast())
                    };
                }
            }
            // SAFETY: only lanes in the row are written.
            unsafe {
                _mm512_mask_storeu_epi32(out.as_mut_ptr().add(y * width + at).cast(), in_row, pixels);
            }
        }
    }
}

/// [`gather`] in general.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn gather_any(affine: &FixedAffine, source: &[[u8; 4]], out: &mut [[u8; 4]], width: usize) {
    let height = out.len() / width;
    let (step_x, step_y) = affine.per_column;
    let lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let lane_x = _mm512_mullo_epi32(lane, _mm512_set1_epi32(step_x));
    let lane_y = _mm512_mullo_epi32(lane, _mm512_set1_epi32(step_y));
    // Rows between those of the first and the last lane, at most.
    let rows = ((step_y.unsigned_abs() as usize * (LANES - 1) + 0xFFFF) >> 16) + 1;
    let columns = 0..width as isize;
    let (width_lanes, nothing) = (_mm512_set1_epi32(width as i32), _mm512_setzero_si512());
    let (mut row_x, mut row_y) = affine.start;
    for out in out.chunks_exact_mut(width) {
        let (mut x, mut y) = (row_x, row_y);
        let mut at = 0;
        while at < width {
            let first_column = (x >> 16) as isize;
            let first_row = y.min(y.wrapping_add(step_y.wrapping_mul(LANES as i32 - 1))) >> 16;
            let window = lanes_in(&columns, first_column);
            let column = _mm512_srai_epi32::<16>(_mm512_add_epi32(_mm512_set1_epi32(x), lane_x));
            let row = _mm512_srai_epi32::<16>(_mm512_add_epi32(_mm512_set1_epi32(y), lane_y));
            let index = _mm512_sub_epi32(column, _mm512_set1_epi32(first_column as i32));
            let inside = _mm512_cmplt_epu32_mask(column, width_lanes);
            let mut pixels = nothing;
            for from in first_row..first_row + rows as i32 {
                if (from as u32 as usize) < height {
                    let here = _mm512_mask_cmpeq_epi32_mask(inside, row, _mm512_set1_epi32(from));
                    // SAFETY: the row exists, and the lanes of the window are in it.
                    let neighbours = unsafe {
                        let start = source.as_ptr().add(from as usize * width).wrapping_offset(first_column);
                        _mm512_maskz_loadu_epi32(window, start.cast())
                    };
                    pixels = _mm512_mask_permutexvar_epi32(pixels, here, index, neighbours);
                }
            }
            // SAFETY: only lanes inside the row are written.
            unsafe {
                _mm512_mask_storeu_epi32(out.as_mut_ptr().add(at).cast(), first_lanes(width - at), pixels);
            }
            x = x.wrapping_add(step_x.wrapping_mul(LANES as i32));
            y = y.wrapping_add(step_y.wrapping_mul(LANES as i32));
            at += LANES;
        }
        row_x = row_x.wrapping_add(affine.per_row.0);
        row_y = row_y.wrapping_add(affine.per_row.1);
    }
}
