//! In plain Rust, compiled for each level.

use crate::frame::{Axis, WEIGHT_BITS};
use crate::simd::level::per_level;

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
    pub(crate) fn fill(&mut self, axis: Axis, origin: u32) {
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
    pub(crate) fn len(&self) -> usize {
        self.end.len()
    }

    /// Most source pixels of an output pixel.
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
    pub(crate) fn down(weights: &[i32], lines: &[u8], out: &mut [u8]) {
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
