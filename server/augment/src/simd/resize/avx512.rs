//! Sums of source bytes times weights of 22 bits, in AVX-512 with VNNI.
//!
//! One instruction multiplies four bytes by four signed bytes and adds up the products. So a weight
//! is written as three signed digits to base 256, four taps become the four bytes of a lane, and a
//! lane's sum is that of the first digits times 2^16, of the second times 2^8, and of the third.
//! Nothing is lost or saturates on the way.

use std::arch::x86_64::*;

use crate::frame::WEIGHT_BITS;
use crate::simd::avx512::load;
use crate::simd::resize::portable::Taps;

/// Bytes of a vector, and of the output that is made at a time.
const BLOCK: usize = 64;

/// Taps whose products one instruction adds up.
const QUAD: usize = 4;

/// The weights of [`QUAD`] taps: their first digits, the lowest byte for the first tap, then their
/// second and third ones.
type Digits = [u32; 3];

/// The digits of weights of 0 to 2^22, of which there are at most four times `QUADS`. Missing ones are
/// zeros.
#[inline(always)]
fn digits<const QUADS: usize>(weights: &[i32]) -> [Digits; QUADS] {
    let mut of = [[[0; QUAD]; 3]; QUADS];
    for (tap, weight) in weights.iter().enumerate() {
        // With 128 more in each of the lower digits these are bytes without a sign, and none
        // borrows from the next. Flipping the top bit takes the 128 away again.
        let [third, second, first, _] = (weight + 0x8080).to_le_bytes();
        let (of, tap) = (&mut of[tap / QUAD], tap % QUAD);
        (of[0][tap], of[1][tap], of[2][tap]) = (first, second ^ 0x80, third ^ 0x80);
    }
    of.map(|of| of.map(u32::from_le_bytes))
}

/// Where four taps of sixteen output bytes are, and their weights.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct QuadTaps {
    /// Places of their source bytes in a window of [`BLOCK`] bytes, one per byte.
    places: [u32; 16],
    /// Their [`Digits`].
    digits: [[u32; 16]; 3],
}

/// Sums by digit: [`Digits`] times source bytes.
#[derive(Clone, Copy)]
struct Sums([__m512i; 3]);

impl Sums {
    /// Sums of nothing, which will be rounded to bytes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new() -> Sums {
        let zero = _mm512_setzero_si512();
        Sums([zero, zero, _mm512_set1_epi32(1 << (WEIGHT_BITS - 1))])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn add(&mut self, bytes: __m512i, digits: [__m512i; 3]) {
        for (sum, digits) in self.0.iter_mut().zip(digits) {
            *sum = _mm512_dpbusd_epi32(*sum, bytes, digits);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn total(self) -> __m512i {
        let [first, second, third] = self.0;
        let second = _mm512_add_epi32(_mm512_slli_epi32::<8>(second), third);
        _mm512_add_epi32(_mm512_slli_epi32::<16>(first), second)
    }
}

/// Four vectors of sums, whose bits from [`WEIGHT_BITS`] on become bytes: those of vector i the i-th
/// bytes of their lanes. They fit, as weights add up to 2^22 but for the rounding of each, which is less
/// than what is missing from 255.5 to 256.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn to_bytes(sums: [__m512i; 4]) -> __m512i {
    // Where the eight bits of each byte begin: those of the lower and of the higher of two lanes.
    let bits = 0x0101_0101 * (u64::from(WEIGHT_BITS) | (u64::from(WEIGHT_BITS + 32) << 32));
    let bits = _mm512_set1_epi64(bits.cast_signed());
    let bytes = _mm512_multishift_epi64_epi8(bits, sums[0]);
    let bytes = _mm512_mask_multishift_epi64_epi8(bytes, 0x2222_2222_2222_2222, bits, sums[1]);
    let bytes = _mm512_mask_multishift_epi64_epi8(bytes, 0x4444_4444_4444_4444, bits, sums[2]);
    _mm512_mask_multishift_epi64_epi8(bytes, 0x8888_8888_8888_8888, bits, sums[3])
}

/// Taps of columns, laid out for vectors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vectors {
    /// For each block of a line, the first source byte of each sixteen of its bytes.
    windows: Vec<[u32; 4]>,
    /// For each sixteen bytes as many as there are quads.
    taps: Vec<QuadTaps>,
    /// One, or two where a column has more than four taps.
    quads: usize,
}

impl Vectors {
    /// Most taps of a pixel: an image that shrinks so much had better be reduced.
    const TAPS_MAX: usize = 2 * QUAD;
    /// Rows of which the columns are made at once, for which their taps are read once.
    const ROWS: usize = 4;

    /// Lays out the taps of rows of `stride` bytes. False when they do not fit, for which sixteen bytes
    /// of a row must come from a window, and the source be as wide as one: then the image shrinks more
    /// than 2.5 times, or is a tiny one.
    pub(crate) fn fill(&mut self, columns: &Taps, rows: &Taps, stride: usize) -> bool {
        if stride < BLOCK || columns.most().max(rows.most()) > Self::TAPS_MAX {
            return false;
        }
        let length = 3 * columns.len();
        self.quads = columns.most().div_ceil(QUAD);
        self.windows.clear();
        self.windows.resize(length.div_ceil(BLOCK), [0; 4]);
        // Bytes of the last block beyond the row have no weights. They are never read.
        self.taps.clear();
        let none = QuadTaps { places: [0; 16], digits: [[0; 16]; 3] };
        self.taps.resize(4 * self.windows.len() * self.quads, none);
        let windows = self.windows.as_flattened_mut().iter_mut();
        let (mut column, mut channel) = (0, 0);
        let (mut first, mut of_column) = (0, [[0; 3]; 2]);
        for ((start, window), quads) in
            (0..length).step_by(16).zip(windows).zip(self.taps.chunks_exact_mut(self.quads))
        {
            *window = (3 * columns.of(start / 3).0).min(stride - BLOCK) as u32;
            for lane in 0..16.min(length - start) {
                if channel == 0 || lane == 0 {
                    let (pixel, weights) = columns.of(column);
                    first = 3 * pixel;
                    of_column = digits(weights);
                    if first + 3 * weights.len() > *window as usize + BLOCK {
                        return false;
                    }
                }
                let place = (first + channel) as u32 - *window;
                for (quad, (taps, digits)) in quads.iter_mut().zip(of_column).enumerate() {
                    // Three more for each tap. Those beyond the window have no weight.
                    taps.places[lane] = (place + (3 * QUAD * quad) as u32) * 0x0101_0101 + 0x0906_0300;
                    for (lanes, digits) in taps.digits.iter_mut().zip(digits) {
                        lanes[lane] = digits;
                    }
                }
                channel += 1;
                if channel == 3 {
                    (column, channel) = (column + 1, 0);
                }
            }
        }
        true
    }

    /// Resizes, row by row of the output, from the needed rows of the source.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,bmi2")]
    pub(crate) fn resize(
        &self,
        rows: &Taps,
        pixels: &[u8],
        stride: usize,
        lines: &mut Vec<u8>,
        out: &mut [u8],
    ) {
        let height = pixels.len() / stride;
        let line = BLOCK * self.windows.len();
        lines.resize(line * height, 0);
        let row_bytes = out.len() / rows.len();
        let mut done = 0;
        for (row, out) in out.chunks_exact_mut(row_bytes).enumerate() {
            let (first, weights) = rows.of(row);
            // Lines are made when they are needed, so that they are still near when they are.
            while done < first + weights.len() {
                let count = if height - done < Self::ROWS { 1 } else { Self::ROWS };
                let sources = &pixels[stride * done..][..stride * count];
                let outs = &mut lines[line * done..][..line * count];
                match (self.quads, count) {
                    (1, 1) => across::<1, 1>(&self.windows, &self.taps, sources, outs),
                    (1, _) => across::<1, { Self::ROWS }>(&self.windows, &self.taps, sources, outs),
                    (_, 1) => across::<2, 1>(&self.windows, &self.taps, sources, outs),
                    _ => across::<2, { Self::ROWS }>(&self.windows, &self.taps, sources, outs),
                }
                done += count;
            }
            match weights.len() {
                ..=QUAD => down::<1>(&digits(weights), &lines[line * first..], line, out),
                _ => down::<2>(&digits(weights), &lines[line * first..], line, out),
            }
        }
    }
}

/// Some rows with other columns, each a multiple of [`BLOCK`] bytes. For every sixteen bytes of a row
/// there is a window of the source row, by its first byte, and as many `taps` as `QUADS`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,bmi2")]
fn across<const QUADS: usize, const ROWS: usize>(
    windows: &[[u32; 4]],
    taps: &[QuadTaps],
    sources: &[u8],
    outs: &mut [u8],
) {
    let taps: &[[[QuadTaps; QUADS]; 4]] = taps.as_chunks().0.as_chunks().0;
    let stride = sources.len() / ROWS;
    let line = outs.len() / ROWS;
    assert!(sources.len() == ROWS * stride && outs.len() == ROWS * line, "rows of one length");
    assert!(line == BLOCK * windows.len() && windows.len() == taps.len(), "taps of a row");
    // From the i-th bytes of lanes to sixteen bytes of vector i.
    let order = const {
        let mut order = [0; BLOCK];
        let mut at = 0;
        while at < BLOCK {
            order[at] = (at % 16 * 4 + at / 16) as u8;
            at += 1;
        }
        order
    };
    let order = load(&order);
    for (block, (windows, taps)) in windows.iter().zip(taps).enumerate() {
        let mut sums = [[_mm512_setzero_si512(); 4]; ROWS];
        for sixteen in 0..4 {
            let window = windows[sixteen] as usize;
            assert!(window + BLOCK <= stride, "a window in the row");
            let mut of_rows = [Sums::new(); ROWS];
            for row in ROWS..2 * ROWS {
                // The rows after these are likely needed next, and too far away to be guessed.
                let ahead = sources.as_ptr().wrapping_add(stride * row + window);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            }
            for taps in &taps[sixteen] {
                let places = load(&taps.places);
                let digits = taps.digits.each_ref().map(|digits| load(digits));
                for (row, sums) in of_rows.iter_mut().enumerate() {
                    // SAFETY: the window ends in this row.
                    let bytes =
                        unsafe { _mm512_loadu_epi8(sources.as_ptr().add(stride * row + window).cast()) };
                    sums.add(_mm512_permutexvar_epi8(places, bytes), digits);
                }
            }
            for (sums, of_row) in sums.iter_mut().zip(of_rows) {
                sums[sixteen] = of_row.total();
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            let bytes = _mm512_permutexvar_epi8(order, to_bytes(sums));
            // SAFETY: this block of this row has 64 bytes.
            unsafe { _mm512_storeu_epi8(outs.as_mut_ptr().add(line * row + BLOCK * block).cast(), bytes) };
        }
    }
}

/// One row, a sum of as many as there are `digits` for, four each. The rows begin with `lines` and lie
/// `stride` bytes apart. Where fewer are left than taps, the weights of the missing ones are zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,bmi2")]
fn down<const QUADS: usize>(digits: &[Digits; QUADS], lines: &[u8], stride: usize, out: &mut [u8]) {
    let length = out.len();
    assert!(lines.len() >= stride && stride >= BLOCK && stride >= length, "a row of whole vectors");
    let last = lines.len() / stride - 1;
    let rows: [[usize; QUAD]; QUADS] =
        std::array::from_fn(|quad| std::array::from_fn(|tap| stride * (QUAD * quad + tap).min(last)));
    let digits = digits.map(|digits| digits.map(|digits| _mm512_set1_epi32(digits.cast_signed())));
    // In each 128 bits: from the i-th bytes of four lanes to four bytes of vector i.
    let order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    for at in (0..length).step_by(BLOCK) {
        // The last block ends with the row, and makes some bytes of the one before again.
        let at = at.min(length.saturating_sub(BLOCK));
        let mut sums = [Sums::new(); 4];
        for (rows, digits) in rows.iter().zip(digits) {
            // SAFETY: each of these rows has 64 bytes from here on.
            let [a, b, c, d] =
                rows.map(|row| unsafe { _mm512_loadu_epi8(lines.as_ptr().add(row + at).cast()) });
            let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
            sums[0].add(_mm512_unpacklo_epi16(ab, cd), digits);
            sums[1].add(_mm512_unpackhi_epi16(ab, cd), digits);
            let (ab, cd) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
            sums[2].add(_mm512_unpacklo_epi16(ab, cd), digits);
            sums[3].add(_mm512_unpackhi_epi16(ab, cd), digits);
        }
        let sums = [sums[0].total(), sums[1].total(), sums[2].total(), sums[3].total()];
        let bytes = _mm512_shuffle_epi8(to_bytes(sums), order);
        // SAFETY: only bytes of `out` are written.
        unsafe {
            let to = out.as_mut_ptr().add(at).cast();
            match length {
                BLOCK.. => _mm512_storeu_epi8(to, bytes),
                _ => _mm512_mask_storeu_epi8(to, (1 << length) - 1, bytes),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_of_the_weight() {
        for weight in (0..1 << WEIGHT_BITS).step_by(61).chain([127, 128, 32639, 32640, 1 << WEIGHT_BITS]) {
            for tap in 0..QUAD {
                let mut weights = [0; QUAD];
                weights[tap] = weight;
                let [of] = digits(&weights);
                let of = of.map(u32::to_le_bytes);
                for other in 0..QUAD {
                    let [first, second, third] = of.map(|digits| i32::from(digits[other].cast_signed()));
                    assert_eq!((first << 16) + (second << 8) + third, weights[other], "{weight}, tap {tap}");
                }
            }
        }
    }
}
