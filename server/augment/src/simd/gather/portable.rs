//! In plain Rust, and what all levels gather by.
//!
//! ```text
//! source column = floor(a (x + 1/2) + b (y + 1/2) + c)
//! source row    = floor(d (x + 1/2) + e (y + 1/2) + f)
//! ```
//! in 32-bit numbers with 16 fractional bits: the coefficients and the first pixel's source are
//! rounded to them, then added up, exactly as in `affine_fixed` of Pillow's `Geometry.c`.
//!
//! Pillow takes a path in double precision for images so large that 16 integer bits do not do;
//! [`SIDE_MAX`](crate::SIDE_MAX) keeps ours smaller.

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
    pub(crate) fn new([a, b, c, d, e, f]: [f64; 6]) -> FixedAffine {
        // 16 fractional bits, rounded as Pillow rounds.
        let fixed = |value: f64| (value * 65536.0 + 0.5).floor() as i32;
        FixedAffine {
            start: (fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5)),
            per_column: (fixed(a), fixed(d)),
            per_row: (fixed(b), fixed(e)),
        }
    }

    /// The same in an output of rows of `width` pixels that is mirrored.
    pub(super) fn mirrored(&self, width: usize) -> FixedAffine {
        let ((x, y), (step_x, step_y)) = (self.start, self.per_column);
        let steps = width as i32 - 1;
        FixedAffine {
            start: (x + step_x * steps, y + step_y * steps),
            per_column: (-step_x, -step_y),
            per_row: self.per_row,
        }
    }
}

/// Gathers `out` from `source`; both have rows of `width` pixels.
pub(crate) fn gather(affine: &FixedAffine, source: &[[u8; 4]], out: &mut [[u8; 4]], width: usize) {
    let height = source.len() / width;
    let (mut row_x, mut row_y) = affine.start;
    for out in out.chunks_exact_mut(width) {
        let (mut x, mut y) = (row_x, row_y);
        for out in out {
            // A negative coordinate becomes a large one.
            let (column, row) = ((x >> 16) as u32 as usize, (y >> 16) as u32 as usize);
            *out = if column < width && row < height { source[row * width + column] } else { [0; 4] };
            x += affine.per_column.0;
            y += affine.per_column.1;
        }
        row_x += affine.per_row.0;
        row_y += affine.per_row.1;
    }
}
