//! Sums of source bytes times weights of 22 bits, in AVX2.
//!
//! One instruction multiplies pairs of numbers of 16 bits and adds up the two products. So a weight
//! is written as a high part times 2^8 and a low part of eight bits, the bytes of two taps become a
//! pair, and a sum is that of the high parts times 2^8 and that of the low parts. Nothing is lost or
//! saturates on the way.

use std::arch::x86_64::*;

use crate::frame::WEIGHT_BITS;
use crate::simd::avx2::{PACK, shuffle};
use crate::simd::level::Level;
use crate::simd::resize::portable::{Taps, across};

/// Bytes of a vector.
const VECTOR: usize = 32;
/// Columns that are made at a time.
const COLUMNS: usize = 8;
/// Taps of a pixel that one load gets: twelve of sixteen bytes.
const QUAD: usize = 4;

/// Two bytes of each channel become two numbers of 16 bits each: those of the first two taps.
const FIRST: [i8; 16] = [0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1];
/// And of the next two.
const SECOND: [i8; 16] = [6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1];

/// Two weights as their parts: in one number those of the high parts, the first one's in its lower
/// half, in the other those of the low parts.
fn parts(first: i32, second: i32) -> [u32; 2] {
    let pair = |first: i32, second: i32| (first as u32) | ((second as u32) << 16);
    [pair(first >> 8, second >> 8), pair(first & 255, second & 255)]
}

/// The weights of up to four taps of two columns, which are in the two halves: high and low parts of
/// the first two taps, high and low parts of the next two.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Quads([[u32; 8]; 4]);

/// Taps of an image's columns and rows, laid out for vectors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vectors {
    /// Columns of a line, padded to whole blocks.
    blocks: usize,
    /// Loads for each column.
    quads: usize,
    /// For each two columns, i and i + 4 of a block, their first source bytes.
    starts: Vec<[u32; 2]>,
    /// For each two columns as many as there are quads.
    weights: Vec<Quads>,
    /// Source bytes that a row needs to have, with what follows it.
    reach: usize,
    /// Parts of the weights of a row's taps, two by two.
    pairs: Vec<[u32; 2]>,
}

impl Vectors {
    /// Lays out the taps of columns. False where rows of the output are too short for vectors.
    pub(crate) fn fill(&mut self, columns: &Taps) -> bool {
        if 3 * columns.len() < VECTOR {
            return false;
        }
        self.blocks = columns.len().div_ceil(COLUMNS);
        self.quads = columns.most().div_ceil(QUAD);
        self.starts.clear();
        self.weights.clear();
        self.reach = 0;
        for two in 0..self.blocks * COLUMNS / 2 {
            let column = two / 4 * COLUMNS + two % 4;
            // Columns beyond the last have no weights. They are never read.
            let of = [column, column + 4].map(|column| match column < columns.len() {
                true => columns.of(column),
                false => (0, &[][..]),
            });
            self.starts.push(of.map(|(first, _)| 3 * first as u32));
            for quad in 0..self.quads {
                let mut weights = [[0; 8]; 4];
                for (half, (_, weights_of_one)) in of.into_iter().enumerate() {
                    let weight = |tap: usize| weights_of_one.get(QUAD * quad + tap).copied().unwrap_or(0);
                    let [high, low] = parts(weight(0), weight(1));
                    let [next_high, next_low] = parts(weight(2), weight(3));
                    for (vector, part) in weights.iter_mut().zip([high, low, next_high, next_low]) {
                        // One for each channel.
                        vector[4 * half..][..3].fill(part);
                    }
                }
                self.weights.push(Quads(weights));
            }
            let loaded = 3 * QUAD * (self.quads - 1) + 16;
            self.reach = of.iter().map(|(first, _)| 3 * first + loaded).fold(self.reach, usize::max);
        }
        true
    }

    /// Resizes, row by row of the output, from the needed rows of the source.
    #[target_feature(enable = "avx2,bmi2")]
    pub(crate) fn resize(
        &mut self,
        level: Level,
        [columns, rows]: [&Taps; 2],
        pixels: &[u8],
        stride: usize,
        lines: &mut Vec<u8>,
        out: &mut [u8],
    ) {
        let line = self.line();
        lines.resize(line * (pixels.len() / stride), 0);
        let row_bytes = 3 * columns.len();
        let mut done = 0;
        for (row, out) in out.chunks_exact_mut(row_bytes).enumerate() {
            let (first, weights) = rows.of(row);
            // Lines are made when they are needed, so that they are still near when they are.
            for row in done..first + weights.len() {
                let (source, line) = (&pixels[stride * row..], &mut lines[line * row..][..line]);
                if !self.across(source, line) {
                    across(level, columns, &source[..stride], &mut line[..row_bytes]);
                }
            }
            done = done.max(first + weights.len());
            self.down(weights, &lines[line * first..], out);
        }
    }

    /// Bytes from one line to the next: whole blocks, and what the last store of a block writes
    /// beyond it.
    fn line(&self) -> usize {
        (3 * COLUMNS * self.blocks + 4).next_multiple_of(VECTOR)
    }

    /// Makes a line of the row that `source` begins with; what follows it is read too, and does not
    /// matter. False when there is too little.
    #[target_feature(enable = "avx2,bmi2")]
    fn across(&self, source: &[u8], out: &mut [u8]) -> bool {
        if source.len() < self.reach {
            return false;
        }
        assert!(out.len() >= self.line(), "room for a line");
        assert!(self.starts.len() == 4 * self.blocks && self.weights.len() == self.quads * self.starts.len());
        let [first, second, pack] =
            [&FIRST, &SECOND, &PACK].map(|order| _mm256_broadcastsi128_si256(shuffle(order)));
        let half = _mm256_set1_epi32(1 << (WEIGHT_BITS - 1));
        let (starts, _) = self.starts.as_chunks::<4>();
        for (block, starts) in starts.iter().enumerate() {
            let mut sums = [_mm256_setzero_si256(); 4];
            for (two, (&[left, right], sum)) in starts.iter().zip(&mut sums).enumerate() {
                let weights = &self.weights[self.quads * (4 * block + two)..][..self.quads];
                let (mut high, mut low) = (_mm256_setzero_si256(), half);
                for (quad, Quads(weights)) in weights.iter().enumerate() {
                    // SAFETY: all loads end within the reach; weights are 32 bytes, aligned to 32.
                    let (bytes, weights) = unsafe {
                        let from = source.as_ptr().add(3 * QUAD * quad);
                        let bytes = _mm256_loadu2_m128i(
                            from.add(right as usize).cast(),
                            from.add(left as usize).cast(),
                        );
                        (bytes, weights.each_ref().map(|weights| _mm256_load_si256(weights.as_ptr().cast())))
                    };
                    let taps = _mm256_shuffle_epi8(bytes, first);
                    high = _mm256_add_epi32(high, _mm256_madd_epi16(taps, weights[0]));
                    low = _mm256_add_epi32(low, _mm256_madd_epi16(taps, weights[1]));
                    let taps = _mm256_shuffle_epi8(bytes, second);
                    high = _mm256_add_epi32(high, _mm256_madd_epi16(taps, weights[2]));
                    low = _mm256_add_epi32(low, _mm256_madd_epi16(taps, weights[3]));
                }
                *sum = total(high, low);
            }
            // Four columns in each half, of which the fourth bytes are nothing.
            let bytes = _mm256_shuffle_epi8(to_bytes(sums), pack);
            // SAFETY: a line has 28 bytes from the last block on.
            unsafe {
                let to = out.as_mut_ptr().add(3 * COLUMNS * block);
                _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(bytes));
                _mm_storeu_si128(to.add(12).cast(), _mm256_extracti128_si256::<1>(bytes));
            }
        }
        true
    }

    /// Makes a row of the output of the lines that `lines` begins with, one for each weight.
    #[target_feature(enable = "avx2,bmi2")]
    fn down(&mut self, weights: &[i32], lines: &[u8], out: &mut [u8]) {
        let (line, length) = (self.line(), out.len());
        assert!(lines.len() >= line * weights.len() && (VECTOR..=line).contains(&length), "rows of vectors");
        self.pairs.clear();
        self.pairs.extend(weights.chunks(2).map(|two| parts(two[0], *two.get(1).unwrap_or(&0))));
        let half = _mm256_set1_epi32(1 << (WEIGHT_BITS - 1));
        let zero = _mm256_setzero_si256();
        for at in (0..length).step_by(VECTOR) {
            // The last vector ends with the row, and makes some bytes of the one before again.
            let at = at.min(length - VECTOR);
            let (mut high, mut low) = ([zero; 4], [half; 4]);
            for (pair, parts) in self.pairs.iter().enumerate() {
                let [high_parts, low_parts] = parts.map(|part| _mm256_set1_epi32(part.cast_signed()));
                // An odd number's last weight is paired with none.
                let rows = [2 * pair, (2 * pair + 1).min(weights.len() - 1)];
                // SAFETY: both rows have 32 bytes from here on.
                let [a, b] =
                    rows.map(|row| unsafe { _mm256_loadu_si256(lines.as_ptr().add(line * row + at).cast()) });
                let (low_bytes, high_bytes) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
                let taps = [
                    _mm256_unpacklo_epi8(low_bytes, zero),
                    _mm256_unpackhi_epi8(low_bytes, zero),
                    _mm256_unpacklo_epi8(high_bytes, zero),
                    _mm256_unpackhi_epi8(high_bytes, zero),
                ];
                for ((high, low), taps) in high.iter_mut().zip(&mut low).zip(taps) {
                    *high = _mm256_add_epi32(*high, _mm256_madd_epi16(taps, high_parts));
                    *low = _mm256_add_epi32(*low, _mm256_madd_epi16(taps, low_parts));
                }
            }
            let sums = [0, 1, 2, 3].map(|vector| total(high[vector], low[vector]));
            // SAFETY: 32 bytes of the output.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(at).cast(), to_bytes(sums)) };
        }
    }
}

/// Sums of high and of low parts, without the bits below a byte's unit.
#[inline]
#[target_feature(enable = "avx2,bmi2")]
fn total(high: __m256i, low: __m256i) -> __m256i {
    let sum = _mm256_add_epi32(_mm256_slli_epi32::<8>(high), low);
    _mm256_srli_epi32::<{ WEIGHT_BITS as i32 }>(sum)
}

/// Four vectors of numbers, within each half one after the other, as bytes; 255 where they are more.
#[inline]
#[target_feature(enable = "avx2,bmi2")]
fn to_bytes(sums: [__m256i; 4]) -> __m256i {
    _mm256_packus_epi16(_mm256_packs_epi32(sums[0], sums[1]), _mm256_packs_epi32(sums[2], sums[3]))
}
