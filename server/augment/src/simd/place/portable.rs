//! In plain Rust, and what is to be placed where.

use std::ops::Range;

use crate::simd::expand::portable::unpack;

/// Crop, flip and cutout of one sample, as what each row of the output is made of.
pub(crate) struct Placement<'a> {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) mean: [u8; 3],
    /// A row of the mean colour, to copy from.
    pub(crate) mean_row: &'a [u8],
    /// Output column or row minus source column or row, before the flip.
    pub(crate) shift: (isize, isize),
    pub(crate) flip: bool,
    /// Columns and rows that the cutout erases, after the flip.
    pub(crate) hole: (Range<usize>, Range<usize>),
}

/// Which lanes show the source, for each sixteen neighbouring pixels of an output row: in rows
/// that lie outside of the source, in other rows, and in rows with the cutout. When mirrored, lanes
/// are in the order of the source.
pub(crate) type LanesShown = [Vec<u16>; 3];

impl Placement<'_> {
    /// Whether there is nothing to do but to copy.
    pub(super) fn copies(&self) -> bool {
        self.shift == (0, 0) && !self.flip && self.hole.0.is_empty()
    }

    /// Writes the output. `write_row` writes some neighbouring pixels of a row, mirrored or not.
    pub(super) fn write<const CHANNELS: usize>(
        &self,
        pixels: &[[u8; CHANNELS]],
        out: &mut [u8],
        write_row: impl Fn(&[[u8; CHANNELS]], &mut [u8], bool),
    ) {
        let width = self.width;
        if self.shift == (0, 0) && !self.flip {
            write_row(pixels, out, false);
        } else {
            self.write_rows(pixels, out, write_row);
        }
        let (columns, rows) = self.hole.clone();
        for y in rows {
            self.erase(&mut out[3 * width * y..3 * width * (y + 1)], columns.clone());
        }
    }

    /// Crop and flip, row by row.
    fn write_rows<const CHANNELS: usize>(
        &self,
        pixels: &[[u8; CHANNELS]],
        out: &mut [u8],
        write_row: impl Fn(&[[u8; CHANNELS]], &mut [u8], bool),
    ) {
        let width = self.width;
        let (columns, rows) = (overlap(self.shift.0, width), overlap(self.shift.1, self.height));
        let first_column = columns.start.wrapping_add_signed(-self.shift.0);
        // Where the columns that show the image stand after the flip.
        let shown = if self.flip { width - columns.end..width - columns.start } else { columns.clone() };
        for (y, out) in out.chunks_exact_mut(3 * width).enumerate() {
            if rows.contains(&y) && !columns.is_empty() {
                let first = y.wrapping_add_signed(-self.shift.1) * width + first_column;
                let source = &pixels[first..first + columns.len()];
                write_row(source, &mut out[3 * shown.start..3 * shown.end], self.flip);
                self.erase(out, 0..shown.start);
                self.erase(out, shown.end..width);
            } else {
                self.erase(out, 0..width);
            }
        }
    }

    fn erase(&self, row: &mut [u8], columns: Range<usize>) {
        if columns.is_empty() {
            return;
        }
        row[3 * columns.start..3 * columns.end].copy_from_slice(&self.mean_row[..3 * columns.len()]);
    }
}

/// What of `0..len` is covered by `0..len` moved by `shift`.
fn overlap(shift: isize, len: usize) -> Range<usize> {
    let distance = shift.unsigned_abs();
    match distance < len {
        false => 0..0,
        true if shift < 0 => 0..len - distance,
        true => distance..len,
    }
}

/// Copies pixels, mirrored or not.
pub(super) fn copy_row(source: &[[u8; 3]], out: &mut [u8], mirrored: bool) {
    if !mirrored {
        return out.copy_from_slice(source.as_flattened());
    }
    let (quads_out, rest_out) = out.as_chunks_mut::<12>();
    let (rest, quads) = source.as_rchunks::<4>();
    for (quad, out) in quads.iter().rev().zip(quads_out) {
        let [a, b, c, d] = unpack(quad.as_flattened().as_array().expect("four times three bytes"));
        *out = pack([d, c, b, a]);
    }
    for (pixel, out) in rest.iter().rev().zip(rest_out.as_chunks_mut().0) {
        *out = *pixel;
    }
}

/// Writes pixels without their alpha, mirrored or not, with a colour for the holes.
pub(super) fn pack_row(source: &[[u8; 4]], out: &mut [u8], mirrored: bool, colour: [u8; 3]) {
    for (i, out) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let [r, g, b, a] = source[if mirrored { source.len() - 1 - i } else { i }];
        *out = if a == 0 { colour } else { [r, g, b] };
    }
}

/// Copies pixels without their alpha, mirrored or not.
pub(super) fn drop_alpha(source: &[[u8; 4]], out: &mut [u8], mirrored: bool) {
    let (quads_out, rest_out) = out.as_chunks_mut::<12>();
    let rest_out = rest_out.as_chunks_mut::<3>().0;
    let words = |quad: [[u8; 4]; 4]| quad.map(u32::from_le_bytes);
    if mirrored {
        let (rest, quads) = source.as_rchunks::<4>();
        for (&[a, b, c, d], out) in quads.iter().rev().zip(quads_out) {
            *out = pack(words([d, c, b, a]));
        }
        for (&[r, g, b, _], out) in rest.iter().rev().zip(rest_out) {
            *out = [r, g, b];
        }
    } else {
        let (quads, rest) = source.as_chunks::<4>();
        for (&quad, out) in quads.iter().zip(quads_out) {
            *out = pack(words(quad));
        }
        for (&[r, g, b, _], out) in rest.iter().zip(rest_out) {
            *out = [r, g, b];
        }
    }
}

/// Four pixels from words, red lowest, without their high bytes.
#[inline(always)]
fn pack(quad: [u32; 4]) -> [u8; 12] {
    let [a, b, c, d] = quad.map(|pixel| u64::from(pixel & 0xFF_FFFF));
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&(a | b << 24 | c << 48).to_le_bytes());
    bytes[8..].copy_from_slice(&((c >> 16 | d << 8) as u32).to_le_bytes());
    bytes
}
