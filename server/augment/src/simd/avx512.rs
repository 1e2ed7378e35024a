//! What the compiler cannot make vectors of, in AVX-512: sixteen pixels at a time.
//!
//! Functions here are safe to call wherever their features are enabled; elsewhere, whoever calls
//! them holds a [`Level`](crate::Level) that says so. Loads and stores go through pointers; masks
//! keep them inside the slices, for no instruction touches memory under a lane that is masked off.

#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::ops::Range;

use crate::ops::{FixedAffine, ShortBlend};
use crate::render::Placement;

/// Pixels of a vector.
const LANES: usize = 16;

/// The lanes that lie in `range`, when lane 0 is at `first`.
#[inline(always)]
fn lanes_in(range: &Range<isize>, first: isize) -> u16 {
    let start = (range.start - first).clamp(0, LANES as isize) as u32;
    let end = (range.end - first).clamp(0, LANES as isize) as u32;
    (((1u32 << end) - 1) & !((1u32 << start) - 1)) as u16
}

/// The first `count` lanes of sixteen.
#[inline(always)]
fn first_lanes(count: usize) -> u16 {
    ((1u32 << count.min(LANES)) - 1) as u16
}

/// The bytes of three-byte pixels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn rgb_bytes(lanes: u16) -> u64 {
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
const EXPAND: [u8; 64] = {
    let mut of = [[0; 4]; LANES];
    let mut i = 0;
    while i < LANES {
        let first = 3 * i as u8;
        of[i] = [first, first + 1, first + 2, first + 2];
        i += 1;
    }
    bytes(of)
};

/// From pixels of `size` bytes to three bytes, mirrored or not.
const fn packing(size: u8, mirrored: bool) -> [u8; 64] {
    let mut of = [0; 64];
    let mut i = 0;
    while i < 3 * LANES {
        let pixel = if mirrored { LANES - 1 - i / 3 } else { i / 3 };
        of[i] = size * pixel as u8 + (i % 3) as u8;
        i += 1;
    }
    of
}

/// Pixels of red, green and blue become opaque pixels of four bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn expand(rgb: &[u8], out: &mut [[u8; 4]]) {
    assert_eq!(rgb.len(), 3 * out.len(), "bytes of so many pixels");
    // SAFETY: the constant has 64 bytes.
    let index = unsafe { _mm512_loadu_epi8(EXPAND.as_ptr().cast()) };
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

/// [`FixedAffine::gather`], for coefficients with which a column comes from at most one column
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
    let (lane_x, lane_y) = (
        _mm512_mullo_epi32(lane, _mm512_set1_epi32(step_x)),
        _mm512_mullo_epi32(lane, _mm512_set1_epi32(step_y)),
    );
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

/// A table of 256 bytes in registers.
#[derive(Clone, Copy)]
struct Table([__m512i; 4]);

impl Table {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
    fn new(table: &[u8; 256]) -> Table {
        let quarters = table.as_chunks::<64>().0;
        // SAFETY: a quarter has 64 bytes.
        let quarter = |i: usize| unsafe { _mm512_loadu_epi8(quarters[i].as_ptr().cast()) };
        Table([quarter(0), quarter(1), quarter(2), quarter(3)])
    }

    /// Looks bytes up; `high` are those over 127.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
    fn look_up(self, values: __m512i, high: u64) -> __m512i {
        let Table([a, b, c, d]) = self;
        let low_ones = _mm512_permutex2var_epi8(a, values, b);
        _mm512_mask_blend_epi8(high, low_ones, _mm512_permutex2var_epi8(c, values, d))
    }
}

/// Bytes of a vector of four-byte pixels that hold red; green, blue and alpha follow.
const REDS: u64 = 0x1111_1111_1111_1111;

/// Looks red, green and blue up in their tables; alpha bytes gain the bits of `alpha`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn look_up(pixels: &mut [[u8; 4]], [red, green, blue]: [&[u8; 256]; 3], alpha: u8) {
    let alpha = _mm512_set1_epi32(i32::from(alpha) << 24);
    let with_alpha =
        |values, looked_up| _mm512_or_si512(_mm512_mask_blend_epi8(REDS << 3, looked_up, values), alpha);
    if std::ptr::eq(red, green) && std::ptr::eq(green, blue) {
        let table = Table::new(red);
        for_each_vector(pixels, |values| {
            with_alpha(values, table.look_up(values, _mm512_movepi8_mask(values)))
        });
    } else {
        let (red, green, blue) = (Table::new(red), Table::new(green), Table::new(blue));
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
pub(crate) fn compose(first: &[u8; 256], second: &[u8; 256]) -> [u8; 256] {
    let (mut composed, second) = (*first, Table::new(second));
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

/// The sum of the grays of up to 2^16 pixels.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn gray_sum(rgb: &[[u8; 3]]) -> u32 {
    // SAFETY: the constant has 64 bytes.
    let index = unsafe { _mm512_loadu_epi8(EXPAND.as_ptr().cast()) };
    let mut sums = _mm512_setzero_si512();
    for pixels in rgb.chunks(LANES) {
        let lanes = first_lanes(pixels.len());
        // SAFETY: only these pixels are read. Others are black, and their gray is 0.
        let pixels = unsafe { _mm512_maskz_loadu_epi8(rgb_bytes(lanes), pixels.as_ptr().cast()) };
        sums = _mm512_add_epi32(sums, gray(_mm512_permutexvar_epi8(index, pixels)));
    }
    _mm512_reduce_add_epi32(sums).cast_unsigned()
}

/// `blend::gray` of sixteen pixels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn gray(pixels: __m512i) -> __m512i {
    let red_blue = _mm512_and_si512(pixels, _mm512_set1_epi16(0xFF));
    let green_alpha = _mm512_srli_epi16::<8>(pixels);
    // Half of green's weight, which alone would not fit.
    let green = _mm512_madd_epi16(green_alpha, _mm512_set1_epi32(19235));
    let red_blue = _mm512_madd_epi16(red_blue, _mm512_set1_epi32(7471 << 16 | 19595));
    let sum = _mm512_add_epi32(_mm512_slli_epi32::<1>(green), red_blue);
    _mm512_srli_epi32::<16>(_mm512_add_epi32(sum, _mm512_set1_epi32(0x8000)))
}

/// Replaces pixels, sixteen at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn for_each_vector(pixels: &mut [[u8; 4]], function: impl Fn(__m512i) -> __m512i) {
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

/// The table of Equalize for a histogram and a step, as `equalize::divide` has it in single
/// precision: the step is below 2^13.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn flatten(histogram: &[u32; 256], step: u32) -> [u8; 256] {
    let mut table = [0; 256];
    let (nothing, last) = (_mm512_setzero_si512(), _mm512_set1_epi32(LANES as i32 - 1));
    let (half, reciprocal) = (_mm512_set1_ps(0.5), _mm512_set1_ps(1.0 / step as f32));
    let mut before = _mm512_set1_epi32((step / 2) as i32);
    for (counts, out) in histogram.as_chunks::<LANES>().0.iter().zip(table.as_chunks_mut::<LANES>().0) {
        // SAFETY: sixteen counts.
        let counts = unsafe { _mm512_loadu_epi32(counts.as_ptr().cast()) };
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

/// `scale * value + offset` of every value, without its fraction and clipped to a byte.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn line(scale: f64, offset: f64) -> [u8; 256] {
    let mut table = [0; 256];
    let (scale, offset) = (_mm512_set1_pd(scale), _mm512_set1_pd(offset));
    let (mut values, eight) = (_mm512_setr_pd(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0), _mm512_set1_pd(8.0));
    for out in table.as_chunks_mut::<8>().0 {
        let words = _mm512_cvttpd_epi32(_mm512_add_pd(_mm512_mul_pd(values, scale), offset));
        let bytes = _mm256_cvtusepi32_epi8(_mm256_max_epi32(words, _mm256_setzero_si256()));
        // SAFETY: eight bytes.
        unsafe { _mm_storel_epi64(out.as_mut_ptr().cast(), bytes) };
        values = _mm512_add_pd(values, eight);
    }
    table
}

/// Blends pixels with their gray, as `blend::gray` has it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn blend_with_gray(pixels: &mut [[u8; 4]], short: ShortBlend) {
    let word = |word: i16| _mm512_set1_epi16(word);
    let (whole, part, bias) = (word(short.whole), word(short.part), word(short.bias));
    let blend = |dull, values| {
        let distance = _mm512_sub_epi16(values, dull);
        let part = _mm512_mulhi_epi16(_mm512_slli_epi16::<7>(distance), part);
        let part = _mm512_srai_epi16::<7>(_mm512_add_epi16(part, bias));
        _mm512_add_epi16(_mm512_add_epi16(dull, _mm512_mullo_epi16(distance, whole)), part)
    };
    // Packing leaves red and blue of four pixels before green and alpha of them.
    let order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    for_each_vector(pixels, |values| {
        let red_blue = _mm512_and_si512(values, _mm512_set1_epi16(0xFF));
        let green_alpha = _mm512_srli_epi16::<8>(values);
        let gray = gray(values);
        let gray = _mm512_or_si512(gray, _mm512_slli_epi32::<16>(gray));
        let blended = _mm512_packus_epi16(blend(gray, red_blue), blend(gray, green_alpha));
        _mm512_mask_shuffle_epi8(values, 0b111 * REDS, blended, order)
    });
}

/// Which lanes show the source, for each sixteen neighbouring pixels of an output row: in rows
/// that lie outside of the source, in other rows, and in rows with the cutout. When mirrored, lanes
/// are in the order of the source.
pub(crate) type Shown = [Vec<u16>; 3];

/// Source column of the first lane of the first sixteen pixels, and of the following ones after it.
fn lay_out(placement: &Placement, shown: &mut Shown) -> (isize, isize) {
    let (width, lanes) = (placement.width as isize, LANES as isize);
    let hole = placement.hole.0.start as isize..placement.hole.0.end as isize;
    let (first, step) = match placement.flip {
        true => (width - lanes - placement.shift.0, -lanes),
        false => (-placement.shift.0, lanes),
    };
    shown.iter_mut().for_each(Vec::clear);
    let mut column = first;
    for at in (0..width).step_by(LANES) {
        let (in_row, holed) = (lanes_in(&(0..width), at), lanes_in(&hole, at));
        let (in_row, holed) = match placement.flip {
            true => (in_row.reverse_bits(), holed.reverse_bits()),
            false => (in_row, holed),
        };
        let in_source = in_row & lanes_in(&(0..width), column);
        shown[0].push(0);
        shown[1].push(in_source);
        shown[2].push(in_source & !holed);
        column += step;
    }
    (first, step)
}

/// Crop, flip and cutout of a working image, with the mean colour for its holes and for what lies
/// outside of it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn place_rgba(placement: &Placement, shown: &mut Shown, source: &[[u8; 4]], out: &mut [u8]) {
    let &Placement { mean: [red, green, blue], flip, .. } = placement;
    let mean = _mm512_set1_epi32(i32::from_le_bytes([red, green, blue, 0]));
    let index = const { [packing(4, false), packing(4, true)] }[usize::from(flip)];
    // SAFETY: the constant has 64 bytes.
    let index = unsafe { _mm512_loadu_epi8(index.as_ptr().cast()) };
    let alpha = _mm512_set1_epi32(0xFF00_0000u32 as i32);
    place(placement, shown, source, out, |start, lanes| {
        // SAFETY: `place` says that these lanes are inside the image.
        let pixels = unsafe { _mm512_maskz_loadu_epi32(lanes, start.cast()) };
        let seen = _mm512_test_epi32_mask(pixels, alpha);
        _mm512_permutexvar_epi8(index, _mm512_mask_mov_epi32(mean, seen, pixels))
    });
}

/// As [`place_rgba`], of an image as it stands in the dataset.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn place_rgb(placement: &Placement, shown: &mut Shown, source: &[[u8; 3]], out: &mut [u8]) {
    let mean = packed_mean(placement);
    // SAFETY: `place` says that these lanes are inside the image.
    let load = |start: *const [u8; 3], lanes| unsafe {
        _mm512_mask_loadu_epi8(mean, rgb_bytes(lanes), start.cast())
    };
    if placement.flip {
        let index = mirrored();
        place(placement, shown, source, out, |start, lanes| {
            _mm512_permutexvar_epi8(index, load(start, lanes))
        });
    } else {
        place(placement, shown, source, out, load);
    }
}

/// As [`place_rgb`], with red, green and blue looked up in their tables.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn place_rgb_looked_up(
    placement: &Placement,
    shown: &mut Shown,
    source: &[[u8; 3]],
    [red, green, blue]: [&[u8; 256]; 3],
    out: &mut [u8],
) {
    /// Bytes of a vector of three-byte pixels that hold green; blue follows.
    const GREENS: u64 = 0x4924_9249_2492;
    let mean = packed_mean(placement);
    let index = if placement.flip { mirrored() } else { unmirrored() };
    let (red, green, blue) = (Table::new(red), Table::new(green), Table::new(blue));
    place(placement, shown, source, out, |start, lanes| {
        let bytes = rgb_bytes(lanes);
        // SAFETY: `place` says that these lanes are inside the image.
        let values = unsafe { _mm512_maskz_loadu_epi8(bytes, start.cast()) };
        let high = _mm512_movepi8_mask(values);
        let looked_up = red.look_up(values, high);
        let looked_up = _mm512_mask_blend_epi8(GREENS, looked_up, green.look_up(values, high));
        let looked_up = _mm512_mask_blend_epi8(GREENS << 1, looked_up, blue.look_up(values, high));
        _mm512_permutexvar_epi8(index, _mm512_mask_mov_epi8(mean, bytes, looked_up))
    });
}

/// Sixteen pixels of the mean colour.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn packed_mean(placement: &Placement) -> __m512i {
    let [red, green, blue] = placement.mean;
    let mean = _mm512_set1_epi32(i32::from_le_bytes([red, green, blue, 0]));
    // SAFETY: the constant has 64 bytes.
    _mm512_permutexvar_epi8(unsafe { _mm512_loadu_epi8(const { &packing(4, false) }.as_ptr().cast()) }, mean)
}

/// The order that leaves pixels of three bytes where they are.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn unmirrored() -> __m512i {
    // SAFETY: the constant has 64 bytes.
    unsafe { _mm512_loadu_epi8(const { &packing(3, false) }.as_ptr().cast()) }
}

/// The order that mirrors sixteen pixels of three bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn mirrored() -> __m512i {
    // SAFETY: the constant has 64 bytes.
    unsafe { _mm512_loadu_epi8(const { &packing(3, true) }.as_ptr().cast()) }
}

/// Writes the output, block by block. `block` makes 48 bytes from where lane 0 would be in the
/// source, and the lanes that are there; the others may point anywhere.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn place<const CHANNELS: usize>(
    placement: &Placement,
    shown: &mut Shown,
    source: &[[u8; CHANNELS]],
    out: &mut [u8],
    block: impl Fn(*const [u8; CHANNELS], u16) -> __m512i,
) {
    let (width, height) = (placement.width, placement.height);
    assert_eq!((source.len(), out.len()), (width * height, 3 * width * height), "pixels of both images");
    let (first_column, step) = lay_out(placement, shown);
    // A vector has sixteen bytes more than its pixels. They spoil what is written later, except at
    // the end.
    let last_block = 3 * LANES * (shown[0].len() - 1);
    let whole_rows = (out.len() + 3 * width - last_block).saturating_sub(64) / (3 * width);
    for y in 0..height {
        let row = y.wrapping_add_signed(-placement.shift.1);
        let (row, kind) = match row < height {
            true => (row, 1 + usize::from(placement.hole.1.contains(&y))),
            false => (0, 0),
        };
        let mut from = source[row * width..].as_ptr().wrapping_offset(first_column);
        let mut to = out[3 * width * y..].as_mut_ptr();
        if y < whole_rows {
            for &lanes in &shown[kind] {
                // SAFETY: so many bytes are there, in this row and the following ones.
                unsafe {
                    _mm512_storeu_epi8(to.cast(), block(from, lanes));
                    to = to.add(3 * LANES);
                }
                from = from.wrapping_offset(step);
            }
        } else {
            for (i, &lanes) in shown[kind].iter().enumerate() {
                let bytes = rgb_bytes(first_lanes(width - LANES * i));
                // SAFETY: only bytes of this row are written.
                unsafe { _mm512_mask_storeu_epi8(to.cast(), bytes, block(from, lanes)) };
                (from, to) = (from.wrapping_offset(step), to.wrapping_add(3 * LANES));
            }
        }
    }
}

/// Eight words of each of a counter's four lanes.
pub(crate) type Lanes = [[u32; 8]; 4];

/// Sixteen Philox blocks at once: which words of the first eight are at most `last` (as bits, lane
/// j of block i at 4 i + j), and the words of the other eight.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn philox(key: [u32; 2], counters: &[u32; 16], rest: [u32; 3], last: &Lanes) -> (u32, Lanes) {
    let multipliers = (broadcast(0xD251_1F53), broadcast(0xCD9E_8D57));
    let rest = (broadcast(rest[0]), broadcast(rest[1]), broadcast(rest[2]));
    // SAFETY: sixteen words.
    let counters = unsafe { _mm512_loadu_epi32(counters.as_ptr().cast()) };
    let (low, high) = (_mm512_castsi512_si256(counters), _mm512_extracti64x4_epi64::<1>(counters));
    let mut first = [_mm512_cvtepu32_epi64(low), rest.0, rest.1, rest.2];
    let mut second = [_mm512_cvtepu32_epi64(high), rest.0, rest.1, rest.2];
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let keys = (broadcast(k0), broadcast(k1));
        first = philox_round(first, multipliers, keys);
        second = philox_round(second, multipliers, keys);
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    let (mut fired, mut others) = (0, [[0; 8]; 4]);
    for lane in 0..4 {
        // SAFETY: eight words each.
        unsafe {
            let last = _mm256_loadu_si256(last[lane].as_ptr().cast());
            let at_most = _mm256_cmple_epu32_mask(_mm512_cvtepi64_epi32(first[lane]), last);
            fired |= _pdep_u32(at_most.into(), 0x1111_1111 << lane);
            _mm256_storeu_si256(others[lane].as_mut_ptr().cast(), _mm512_cvtepi64_epi32(second[lane]));
        }
    }
    (fired, others)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn broadcast(word: u32) -> __m512i {
    _mm512_set1_epi64(word.into())
}

/// One round of eight blocks. Only the low halves of the 64-bit lanes count; the multiplication
/// ignores the others.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn philox_round(
    [c0, c1, c2, c3]: [__m512i; 4],
    multipliers: (__m512i, __m512i),
    keys: (__m512i, __m512i),
) -> [__m512i; 4] {
    let (p0, p1) = (_mm512_mul_epu32(c0, multipliers.0), _mm512_mul_epu32(c2, multipliers.1));
    [
        _mm512_ternarylogic_epi64::<0x96>(_mm512_srli_epi64::<32>(p1), c1, keys.0),
        p1,
        _mm512_ternarylogic_epi64::<0x96>(_mm512_srli_epi64::<32>(p0), c3, keys.1),
        p0,
    ]
}
