//! Filling an output from a view of a source image.
//!
//! This is Pillow's `Image.resize` with `Resampling.BILINEAR`, byte for byte, so also what
//! torchvision does to PIL images: columns first, then rows, each pixel a weighted sum in fixed
//! point, rounded to a byte after each of the two. (Since version 13 Pillow does rows first for some
//! sizes; the order here is that of all versions before, whatever the size.) Libraries that do the
//! same keep weights of 16 bits, and are off by one here and there.

use crate::frame::{Axis, View, WEIGHT_BITS};
use crate::scratch::Scratch;
use crate::simd::per_level;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Kind, avx2_resize, avx512_resize};
use pba_types::PixelBox;

/// Decoded pixels of a source image, or of a part of it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Interleaved red, green and blue bytes, row by row: `place.width * place.height * 3` of them.
    pub pixels: &'a [u8],
    /// Where these pixels lie in the image, as it is after its reduction.
    pub place: PixelBox,
    /// How much smaller than the source the image was decoded: 1, 2, 4 or 8.
    pub reduction: u32,
}

/// Fills `out` with what `view` shows of `source`.
///
/// `out` holds interleaved red, green and blue bytes of the view's target, and is overwritten. What
/// `source` holds beyond [`View::pixels`] does not matter.
///
/// # Allocations
/// None, once `scratch` has met a view of this size.
///
/// # Panics
/// When `out` has another length, when the source's pixels do not fill its place, or do not contain
/// [`View::pixels`].
pub fn resize(view: &View, source: &Source, out: &mut [u8], scratch: &mut Scratch) {
    assert_eq!(out.len(), view.target.rgb_bytes(), "bytes of the output");
    let place = source.place;
    let stride = 3 * place.width as usize;
    assert_eq!(source.pixels.len(), stride * place.height as usize, "bytes of the source");
    let needed = view.pixels(source.reduction);
    assert!(place.contains(needed), "the view needs {needed:?}, the source has {place:?}");

    let level = scratch.level();
    let Resizing {
        columns,
        rows,
        lines,
        #[cfg(target_arch = "x86_64")]
        avx512,
        #[cfg(target_arch = "x86_64")]
        avx2,
    } = &mut scratch.resizing;
    let (column_axis, row_axis) = view.axes(source.reduction);
    columns.fill(column_axis, place.left);
    rows.fill(row_axis, needed.top);
    let pixels =
        &source.pixels[stride * (needed.top - place.top) as usize..][..stride * needed.height as usize];
    #[cfg(target_arch = "x86_64")]
    #[cfg(target_arch = "x86_64")]
    match level.kind() {
        Kind::Avx512 if avx512.fill(columns, rows, stride) => {
            return avx512.resize(rows, pixels, stride, lines, out);
        }
        // AVX-512 leaves images to it that shrink more than 2.5 times, and tiny ones.
        Kind::Avx512 | Kind::Avx2 if avx2.fill(columns) => {
            return avx2.resize(level, columns, rows, pixels, stride, out);
        }
        _ => {}
    }
    let line = 3 * view.target.width as usize;
    lines.resize(line * needed.height as usize, 0);
    for (source, line) in pixels.chunks_exact(stride).zip(lines.chunks_exact_mut(line)) {
        across(level, columns, source, line);
    }
    for (row, out) in out.chunks_exact_mut(line).enumerate() {
        let (first, weights) = rows.of(row);
        down(level, weights, &lines[line * first..], out);
    }
}

/// What [`resize`] keeps between images.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resizing {
    columns: Taps,
    rows: Taps,
    /// The needed rows, with as many columns as the output.
    lines: Vec<u8>,
    #[cfg(target_arch = "x86_64")]
    avx512: avx512_resize::Vectors,
    #[cfg(target_arch = "x86_64")]
    avx2: avx2_resize::Vectors,
}

/// The source pixels that each output pixel is made of, in one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taps {
    /// First source pixel of each output pixel.
    first: Vec<u32>,
    /// Where the weights of each output pixel end.
    end: Vec<usize>,
    weights: Vec<i32>,
    of_one: Vec<i32>,
}

impl Taps {
    /// The taps of an axis, counted from source pixel `origin` on.
    fn fill(&mut self, axis: Axis, origin: u32) {
        self.first.clear();
        self.end.clear();
        self.weights.clear();
        for pixel in 0..axis.pixels {
            let mut first = axis.weights(pixel, &mut self.of_one) - origin;
            let mut weights = self.of_one.as_slice();
            // At the triangle's ends, pixels may weigh nothing.
            while let [0, rest @ ..] = weights {
                (first, weights) = (first + 1, rest);
            }
            while let [rest @ .., 0] = weights {
                weights = rest;
            }
            self.first.push(first);
            self.weights.extend_from_slice(weights);
            self.end.push(self.weights.len());
        }
    }

    /// Output pixels.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn len(&self) -> usize {
        self.end.len()
    }

    /// Most source pixels of an output pixel.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn most(&self) -> usize {
        (0..self.end.len()).map(|pixel| self.of(pixel).1.len()).max().unwrap_or(0)
    }

    /// The first source pixel of an output pixel, and the weights from there on.
    #[inline(always)]
    pub(crate) fn of(&self, pixel: usize) -> (usize, &[i32]) {
        let start = if pixel == 0 { 0 } else { self.end[pixel - 1] };
        (self.first[pixel] as usize, &self.weights[start..self.end[pixel]])
    }
}

per_level! {
    /// One row of the source, with as many columns as the output.
    pub(crate) fn across(columns: &Taps, source: &[u8], out: &mut [u8]) {
        for (column, out) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (first, weights) = columns.of(column);
            let mut sums = [HALF; 3];
            for (pixel, weight) in source.as_chunks::<3>().0[first..].iter().zip(weights) {
                for (sum, &byte) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(byte) * weight;
                }
            }
            *out = sums.map(to_byte);
        }
    }
}

per_level! {
    /// One row of the output, from the rows that begin with `lines`.
    fn down(weights: &[i32], lines: &[u8], out: &mut [u8]) {
        /// Bytes whose sums stay in registers.
        const BLOCK: usize = 64;
        let length = out.len();
        let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
        let rest_at = blocks.len() * BLOCK;
        for (number, out) in blocks.iter_mut().enumerate() {
            let mut sums = [HALF; BLOCK];
            for (row, weight) in weights.iter().enumerate() {
                let bytes: &[u8; BLOCK] = lines[row * length + number * BLOCK..].first_chunk().expect("a block");
                for (sum, &byte) in sums.iter_mut().zip(bytes) {
                    *sum += i32::from(byte) * weight;
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = to_byte(sum);
            }
        }
        for (at, out) in (rest_at..).zip(rest) {
            let rows = lines[at..].iter().step_by(length);
            *out = to_byte(rows.zip(weights).fold(HALF, |sum, (&byte, weight)| sum + i32::from(byte) * weight));
        }
    }
}

/// Half of a byte's unit, for rounding.
const HALF: i32 = 1 << (WEIGHT_BITS - 1);

/// A sum in fixed point as a byte: weights are not negative, but their rounded sum may pass one.
#[inline(always)]
fn to_byte(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).min(255) as u8
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;
    use crate::rng::{Address, Purpose, below};
    use crate::simd::Level;
    use pba_types::ImageShape;

    /// Every level against plain Rust: lines of every length, boxes at the source's edges, and from
    /// ones that grow to those that need more taps than vectors have. White pixels reach the largest
    /// sums.
    #[test]
    fn levels_agree() {
        let mut rng = Address { seed: 3, purpose: Purpose::Dataset, epoch: 0, item: 0 }.stream();
        let mut scratches: Vec<_> = Level::available().into_iter().map(Scratch::with_level).collect();
        for round in 0..600 {
            let mut side = |most: u32| 1 + below(rng.next_u32(), most);
            let source = ImageShape { height: side(120), width: side(400) };
            let target =
                ImageShape { height: side(40), width: if round < 150 { round + 1 } else { side(300) } };
            let (width, height) = (side(source.width), side(source.height));
            let (left, top) = (side(source.width - width + 1) - 1, side(source.height - height + 1) - 1);
            let bounds =
                if round % 3 == 0 { PixelBox::whole(source) } else { PixelBox { left, top, width, height } };
            let [left, top, width, height] = [left, top, width, height].map(f64::from);
            let view = View { left, top, width, height, bounds, source, target };
            let mut pixels = vec![255; source.rgb_bytes()];
            if round % 10 != 0 {
                rng.fill_bytes(&mut pixels);
            }
            let of_source = Source { pixels: &pixels, place: PixelBox::whole(source), reduction: 1 };
            let mut outs = scratches.iter_mut().map(|scratch| {
                let mut out = vec![7; target.rgb_bytes()];
                resize(&view, &of_source, &mut out, scratch);
                (scratch.level(), out)
            });
            let (_, expected) = outs.next_back().expect("the portable level");
            assert!(round % 10 != 0 || expected.iter().all(|&byte| byte == 255), "white stays white");
            for (level, out) in outs {
                assert!(out == expected, "bytes differ: {view:?}, {level}");
            }
        }
    }
}
