//! What the affine ops share: Pillow's nearest-neighbour transform.
//!
//! ```text
//! source column = floor(a (x + 1/2) + b (y + 1/2) + c)
//! source row    = floor(d (x + 1/2) + e (y + 1/2) + f)
//! ```
//! in 32-bit numbers with 16 fractional bits: the coefficients and the first pixel's source are
//! rounded to them, then added up, exactly as in `affine_fixed` of Pillow's `Geometry.c`. A pixel
//! whose source lies outside becomes (0, 0, 0, 0).
//!
//! Pillow takes a path in double precision for images so large that 16 integer bits do not do;
//! [`SIDE_MAX`](crate::SIDE_MAX) keeps ours smaller.

use crate::image::Rgba;
use crate::scratch::Scratch;
#[cfg(target_arch = "x86_64")]
use crate::simd;
use crate::simd::{Kind, Level};

/// A coefficient with 16 fractional bits, rounded as Pillow rounds.
pub(super) fn fixed(value: f64) -> i32 {
    (value * 65536.0 + 0.5).floor() as i32
}

/// Where pixels come from, in units of 1/65536 pixel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FixedAffine {
    /// Source column and row of the first pixel's middle.
    pub(crate) start: (i32, i32),
    /// How they change from a column to the next.
    pub(crate) per_column: (i32, i32),
    /// How they change from a row to the next.
    pub(crate) per_row: (i32, i32),
}

impl FixedAffine {
    pub(super) fn new([a, b, c, d, e, f]: [f64; 6]) -> FixedAffine {
        FixedAffine {
            start: (fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5)),
            per_column: (fixed(a), fixed(d)),
            per_row: (fixed(b), fixed(e)),
        }
    }

    /// Each row moves as a whole, by what `start` and `per_row` say of columns.
    pub(super) fn of_rows(start: i32, per_row: i32) -> FixedAffine {
        FixedAffine { start: (start, 1 << 15), per_column: (1 << 16, 0), per_row: (per_row, 1 << 16) }
    }

    /// Transforms an image whose rows move as wholes, to the left or right.
    pub(super) fn shift_rows(&self, image: &mut Rgba, scratch: &mut Scratch) {
        let (width, level) = (image.shape().width as usize, scratch.level());
        // The library's moves have their price for each call, and are fast then.
        let moves = match level.kind() {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => width > 128,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => true,
            Kind::Portable => true,
        };
        if moves {
            let mut start = self.start.0;
            for row in image.pixels_mut().chunks_exact_mut(width) {
                shift_row(row, i64::from(start >> 16));
                start += self.per_row.0;
            }
        } else {
            let out = scratch.pixels(image.pixels().len());
            self.gather(level, image.pixels(), out, width);
            image.swap_pixels(out);
        }
        image.set_opaque(false);
    }

    /// Gathers `out` from `source`; both have rows of `width` pixels.
    #[allow(unsafe_code)]
    pub(super) fn gather(&self, level: Level, source: &[[u8; 4]], out: &mut [[u8; 4]], width: usize) {
        match level.kind() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level that exists was detected.
            Kind::Avx512 => unsafe { simd::avx512::gather(self, source, out, width) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level that exists was detected.
            Kind::Avx2 => unsafe { simd::avx2::gather(self, source, out, width) },
            Kind::Portable => self.gather_plainly(source, out, width),
        }
    }

    fn gather_plainly(&self, source: &[[u8; 4]], out: &mut [[u8; 4]], width: usize) {
        let height = source.len() / width;
        let (mut row_x, mut row_y) = self.start;
        for out in out.chunks_exact_mut(width) {
            let (mut x, mut y) = (row_x, row_y);
            for out in out {
                // A negative coordinate becomes a large one.
                let (column, row) = ((x >> 16) as u32 as usize, (y >> 16) as u32 as usize);
                *out = if column < width && row < height { source[row * width + column] } else { [0; 4] };
                x += self.per_column.0;
                y += self.per_column.1;
            }
            row_x += self.per_row.0;
            row_y += self.per_row.1;
        }
    }
}

/// Moves a row so that `row[x]` becomes what `row[x + distance]` was, or (0, 0, 0, 0).
pub(super) fn shift_row(row: &mut [[u8; 4]], distance: i64) {
    let moved = distance.unsigned_abs().min(row.len() as u64) as usize;
    let kept = row.len() - moved;
    if distance >= 0 {
        row.copy_within(moved.., 0);
        row[kept..].fill([0; 4]);
    } else {
        row.copy_within(..kept, moved);
        row[..moved].fill([0; 4]);
    }
}
