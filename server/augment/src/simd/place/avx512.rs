//! In AVX-512, sixteen pixels at a time.

use std::arch::x86_64::*;

use crate::simd::avx512::{LANES, TableRegisters, first_lanes, lanes_in, load, look_up_channels, rgb_bytes};
use crate::simd::lookup::portable::LookupTable;
use crate::simd::place::portable::{LanesShown, Placement};

const FROM_THREE: &[[u8; 64]; 2] = &packings(3);
const FROM_FOUR: &[[u8; 64]; 2] = &packings(4);

/// From pixels of `size` bytes to three bytes: as they stand, and mirrored.
const fn packings(size: usize) -> [[u8; 64]; 2] {
    let mut of = [[0; 64]; 2];
    let mut i = 0;
    while i < 3 * LANES {
        of[0][i] = (size * (i / 3) + i % 3) as u8;
        of[1][i] = (size * (LANES - 1 - i / 3) + i % 3) as u8;
        i += 1;
    }
    of
}

/// Source column of the first lane of the first sixteen pixels, and of the following ones after it.
fn lay_out(placement: &Placement, shown: &mut LanesShown) -> (isize, isize) {
    let (width, lanes) = (placement.width as isize, LANES as isize);
    let hole = placement.hole.0.start as isize..placement.hole.0.end as isize;
    let flip = placement.flip;
    let (first, step) =
        if flip { (width - lanes - placement.shift.0, -lanes) } else { (-placement.shift.0, lanes) };
    shown.iter_mut().for_each(Vec::clear);
    let mut column = first;
    for at in (0..width).step_by(LANES) {
        let [in_row, holed] = [0..width, hole.clone()].map(|columns| {
            let lanes = lanes_in(&columns, at);
            if flip { lanes.reverse_bits() } else { lanes }
        });
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
pub(crate) fn place_rgba(placement: &Placement, shown: &mut LanesShown, source: &[[u8; 4]], out: &mut [u8]) {
    let mean = mean(placement);
    let index = load(&FROM_FOUR[usize::from(placement.flip)]);
    let alpha = _mm512_set1_epi32(0xFF00_0000u32 as i32);
    place(placement, shown, source, out, |start, lanes| {
        // SAFETY: `place` says that these lanes are inside the image.
        let pixels = unsafe { _mm512_maskz_loadu_epi32(lanes, start.cast()) };
        let opaque = _mm512_test_epi32_mask(pixels, alpha);
        _mm512_permutexvar_epi8(index, _mm512_mask_mov_epi32(mean, opaque, pixels))
    });
}

/// As [`place_rgba`], of an image as it stands in the dataset.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn place_rgb(placement: &Placement, shown: &mut LanesShown, source: &[[u8; 3]], out: &mut [u8]) {
    let mean = _mm512_permutexvar_epi8(load(&FROM_FOUR[0]), mean(placement));
    // SAFETY: `place` says that these lanes are inside the image.
    let pixels = |start: *const [u8; 3], lanes| unsafe {
        _mm512_mask_loadu_epi8(mean, rgb_bytes(lanes), start.cast())
    };
    if placement.flip {
        let index = load(&FROM_THREE[1]);
        place(placement, shown, source, out, |start, lanes| {
            _mm512_permutexvar_epi8(index, pixels(start, lanes))
        });
    } else {
        place(placement, shown, source, out, pixels);
    }
}

/// As [`place_rgb`], with red, green and blue looked up in their tables.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
pub(crate) fn place_rgb_looked_up(
    placement: &Placement,
    shown: &mut LanesShown,
    source: &[[u8; 3]],
    [red, green, blue]: [&LookupTable; 3],
    out: &mut [u8],
) {
    /// Bytes of a vector of three-byte pixels that hold green; blue follows.
    const GREENS: u64 = 0x4924_9249_2492;
    let mean = _mm512_permutexvar_epi8(load(&FROM_FOUR[0]), mean(placement));
    let index = load(&FROM_THREE[usize::from(placement.flip)]);
    let tables = [TableRegisters::new(red), TableRegisters::new(green), TableRegisters::new(blue)];
    place(placement, shown, source, out, |start, lanes| {
        let bytes = rgb_bytes(lanes);
        // SAFETY: `place` says that these lanes are inside the image.
        let values = unsafe { _mm512_maskz_loadu_epi8(bytes, start.cast()) };
        let looked_up = look_up_channels(&tables, values, GREENS);
        _mm512_permutexvar_epi8(index, _mm512_mask_mov_epi8(mean, bytes, looked_up))
    });
}

/// Sixteen pixels of the mean colour, four bytes each.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn mean(placement: &Placement) -> __m512i {
    let [red, green, blue] = placement.mean;
    _mm512_set1_epi32(i32::from_le_bytes([red, green, blue, 0]))
}

/// Writes the output, block by block. `block` makes 48 bytes from where lane 0 would be in the
/// source, and the lanes that are there; the others may point anywhere.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
fn place<const CHANNELS: usize>(
    placement: &Placement,
    shown: &mut LanesShown,
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
