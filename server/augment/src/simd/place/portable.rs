//! In plain Rust, and what is to be placed where.

use std::ops::Range;

use pba_types::ImageShape;

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
    /// Size of the image.
    pub(crate) fn shape(&self) -> ImageShape {
        ImageShape { height: self.height as u32, width: self.width as u32 }
    }

    /// Crop and flip alone, and the cutout alone: what is one after the other when something comes
    /// between them.
    pub(crate) fn split(self) -> (Self, Self) {
        let moves = Placement { hole: (0..0, 0..0), ..self };
        let cutout = Placement { shift: (0, 0), flip: false, hole: self.hole, ..moves };
        (moves, cutout)
    }

    /// Writes the output. `write_row` writes some neighbouring pixels of a row, mirrored or not.
    pub(super) fn write<const CHANNELS: usize>(
        &self,
        pixels: &[[u8; CHANNELS]],
        out: &mut [u8],
        write_row: impl Fn(&[[u8; CHANNELS]], &mut [u8], bool),
    ) {
        let width = self.width;
        let (columns, rows) = (overlap(self.shift.0, width), overlap(self.shift.1, self.height));
        if self.shift == (0, 0) && !self.flip {
            write_row(pixels, out, false);
        } else {
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
        for y in self.hole.1.clone() {
            self.erase(&mut out[3 * width * y..3 * width * (y + 1)], self.hole.0.clone());
        }
    }

    fn erase(&self, row: &mut [u8], columns: Range<usize>) {
        if !columns.is_empty() {
            row[3 * columns.start..3 * columns.end].copy_from_slice(&self.mean_row[..3 * columns.len()]);
        }
    }
}

/// What of `0..len` is covered by `0..len` moved by `shift`.
fn overlap(shift: isize, len: usize) -> Range<usize> {
    let moved = |at: usize| at.saturating_add_signed(shift).min(len);
    moved(0)..moved(len)
}

/// Copies pixels, mirrored or not.
#[inline(always)]
pub(super) fn copy_row(source: &[[u8; 3]], out: &mut [u8], mirrored: bool) {
    match mirrored {
        false => out.copy_from_slice(source.as_flattened()),
        true => write_quads(source, out, true, unpack),
    }
}

/// Writes pixels without their alpha, mirrored or not, with a colour for the holes.
#[inline(always)]
pub(super) fn pack_row(source: &[[u8; 4]], out: &mut [u8], mirrored: bool, [r, g, b]: [u8; 3]) {
    let colour = u32::from_le_bytes([r, g, b, 0]);
    write_quads(source, out, mirrored, |quad| {
        quad.map(u32::from_le_bytes).map(|word| if word >> 24 == 0 { colour } else { word })
    });
}

/// Writes pixels four by four, mirrored or not, as `words` that begin with their three bytes.
#[inline(always)]
fn write_quads<const CHANNELS: usize>(
    source: &[[u8; CHANNELS]],
    out: &mut [u8],
    mirrored: bool,
    words: impl Fn(&[[u8; CHANNELS]; 4]) -> [u32; 4],
) {
    let (quads_out, rest_out) = out.as_chunks_mut::<12>();
    let write_one = |pixel: &[u8; CHANNELS], out: &mut [u8; 3]| {
        let [r, g, b, _] = words(&[*pixel; 4])[0].to_le_bytes();
        *out = [r, g, b];
    };
    let rest_out = rest_out.as_chunks_mut().0.iter_mut();
    if mirrored {
        let (rest, quads) = source.as_rchunks();
        for (quad, out) in quads.iter().rev().zip(quads_out) {
            let [a, b, c, d] = words(quad);
            *out = pack([d, c, b, a]);
        }
        rest.iter().rev().zip(rest_out).for_each(|(pixel, out)| write_one(pixel, out));
    } else {
        let (quads, rest) = source.as_chunks();
        for (quad, out) in quads.iter().zip(quads_out) {
            *out = pack(words(quad));
        }
        rest.iter().zip(rest_out).for_each(|(pixel, out)| write_one(pixel, out));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_holes_are_filled() {
        let mut out = [0; 9];
        pack_row(&[[1, 2, 3, 0], [4, 5, 6, 255], [7, 8, 9, 1]], &mut out, false, [10, 11, 12]);
        assert_eq!(out, [10, 11, 12, 4, 5, 6, 7, 8, 9]);
    }
}
