//! The inverse cosine transform of 8x8 coefficients: libjpeg's accurate integer one (`jidctint.c`),
//! bit for bit.
//!
//! Each of its two passes is a product with a matrix of 13-bit fixed-point numbers. Here it is
//! split into the even rows of coefficients and the odd ones, from which output m and output 7 - m
//! are sum and difference.

/// Coefficients of a block, times their quantisation, at the places that [`PLACE`] says.
#[repr(align(64))]
#[derive(Clone, Debug)]
pub(super) struct Block(pub [i16; 64]);

/// Where the k-th coefficient in zigzag order lies in a [`Block`].
///
/// Four vectors of 16: even columns then odd ones, and of each the rows 0 to 3, then 4 to 7; the
/// lower half of a vector has the even rows, the upper one the odd ones; and two rows alternate. So
/// a multiplication of pairs needs no shuffle before it.
pub(super) const PLACE: [u8; 64] = {
    let mut place = [0; 64];
    let (mut row, mut column, mut k) = (0usize, 0usize, 0);
    while k < 64 {
        place[k] = place_of(row, column) as u8;
        // One step of the zigzag.
        if (row + column) % 2 == 0 {
            if column == 7 {
                row += 1;
            } else if row == 0 {
                column += 1;
            } else {
                (row, column) = (row - 1, column + 1);
            }
        } else if row == 7 {
            column += 1;
        } else if column == 0 {
            row += 1;
        } else {
            (row, column) = (row + 1, column - 1);
        }
        k += 1;
    }
    place
};

const fn place_of(row: usize, column: usize) -> usize {
    (column % 2 * 2 + row / 4) * 16 + row % 2 * 8 + column / 2 * 2 + row / 2 % 2
}

/// Greatest sum of a block's absolute coefficients for which no step below leaves its type: a
/// pass grows a value by at most 1.39 * 4, and 5890 * 1.39 * 4 fits 16 bits. No photograph's block
/// comes near it.
pub(super) const SUM_MAX: i32 = 5890;

/// Rows: output m of 0 to 3. Columns: coefficients 0, 2, 4, 6.
const EVEN: [[i16; 4]; 4] = [
    [8192, 10703, 8192, 4433],
    [8192, 4433, -8192, -10704],
    [8192, -4433, -8192, 10704],
    [8192, -10703, 8192, -4433],
];
/// Rows: output m of 0 to 3. Columns: coefficients 1, 3, 5, 7.
const ODD: [[i16; 4]; 4] = [
    [11363, 9633, 6437, 2260],
    [9633, -2259, -11362, -6436],
    [6437, -11362, 2261, 9633],
    [2260, -6436, 9633, -11363],
];

/// Fractional bits that the first pass drops, and the second.
const SHIFTS: [i32; 2] = [11, 18];

/// Writes the 64 samples of a block into rows of `stride` bytes. False when one is so far out of
/// range that libjpeg does not clamp it.
///
/// The sum of the block's absolute coefficients is at most [`SUM_MAX`].
pub(super) fn plain(block: &Block, out: &mut [u8], stride: usize) -> bool {
    let pass = |of: &dyn Fn(usize) -> i32, shift: i32| -> [i32; 8] {
        let part = |matrix: &[i16; 4], first: usize| -> i32 {
            (0..4).map(|i| i32::from(matrix[i]) * of(2 * i + first)).sum()
        };
        std::array::from_fn(|m| {
            let row = m.min(7 - m);
            let (even, odd) = (part(&EVEN[row], 0), part(&ODD[row], 1));
            (if m < 4 { even + odd } else { even - odd } + (1 << (shift - 1))) >> shift
        })
    };
    let columns: [[i32; 8]; 8] =
        std::array::from_fn(|column| pass(&|row| i32::from(block.0[place_of(row, column)]), SHIFTS[0]));
    let mut clamps = true;
    for (y, out) in out.chunks_mut(stride).take(8).enumerate() {
        for (x, sample) in pass(&|column| columns[column][y], SHIFTS[1]).into_iter().enumerate() {
            clamps &= (-512..512).contains(&sample);
            out[x] = (sample + 128).clamp(0, 255) as u8;
        }
    }
    clamps
}

/// As [`plain`].
///
/// # Panics
/// When `out` is too short.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn avx2(block: &Block, out: &mut [u8], stride: usize) -> bool {
    use std::arch::x86_64::*;

    const MATRIX: [[[i16; 16]; 2]; 4] = {
        let mut matrix = [[[0; 16]; 2]; 4];
        let mut i = 0;
        while i < 4 * 2 * 16 {
            let (m, half, lane) = (i / 32, i / 16 % 2, i % 16);
            let of = if lane < 8 { &EVEN } else { &ODD };
            matrix[m][half][lane] = of[m][2 * half + lane % 2];
            i += 1;
        }
        matrix
    };

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load(values: &[i16; 16]) -> __m256i {
        // SAFETY: 32 bytes are there.
        unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
    }

    /// Outputs 0 to 7 of eight rows or columns.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn pass<const SHIFT: i32>(input: [__m256i; 4]) -> [__m256i; 8] {
        let round = _mm256_set1_epi32(1 << (SHIFT - 1));
        let [a, b, c, d] = input;
        let mut out = [round; 8];
        for m in 0..4 {
            let [low, high] = [load(&MATRIX[m][0]), load(&MATRIX[m][1])];
            let first = _mm256_add_epi32(_mm256_madd_epi16(a, low), _mm256_madd_epi16(b, high));
            let second = _mm256_add_epi32(_mm256_madd_epi16(c, low), _mm256_madd_epi16(d, high));
            let even = _mm256_add_epi32(_mm256_permute2x128_si256::<0x20>(first, second), round);
            let odd = _mm256_permute2x128_si256::<0x31>(first, second);
            out[m] = _mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(even, odd));
            out[7 - m] = _mm256_srai_epi32::<SHIFT>(_mm256_sub_epi32(even, odd));
        }
        out
    }

    let (input, _) = block.0.as_chunks::<16>();
    let d = pass::<{ SHIFTS[0] }>([load(&input[0]), load(&input[1]), load(&input[2]), load(&input[3])]);
    // Pairs of rows: in the lower half the even columns, in the upper one the odd ones.
    let pairs = [0, 2, 4, 6].map(|i| _mm256_packs_epi32(d[i], d[i + 1]));
    let mixed = |i: usize, high: bool| {
        let (a, b) = (_mm256_castsi256_ps(pairs[i]), _mm256_castsi256_ps(pairs[i + 1]));
        _mm256_castps_si256(if high {
            _mm256_shuffle_ps::<0xdd>(a, b)
        } else {
            _mm256_shuffle_ps::<0x88>(a, b)
        })
    };
    let d = pass::<{ SHIFTS[1] }>([mixed(0, false), mixed(0, true), mixed(2, false), mixed(2, true)]);
    let pairs = [0, 2, 4, 6].map(|i| _mm256_packs_epi32(d[i], d[i + 1]));
    let bound = |x| _mm256_and_si256(_mm256_add_epi16(x, _mm256_set1_epi16(512)), _mm256_set1_epi16(!1023));
    let beyond = _mm256_or_si256(
        _mm256_or_si256(bound(pairs[0]), bound(pairs[1])),
        _mm256_or_si256(bound(pairs[2]), bound(pairs[3])),
    );
    let samples = pairs.map(|x| _mm256_adds_epi16(x, _mm256_set1_epi16(128)));
    // Columns to rows, four by four.
    let turn =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    let left = _mm256_shuffle_epi8(_mm256_packus_epi16(samples[0], samples[1]), turn);
    let right = _mm256_shuffle_epi8(_mm256_packus_epi16(samples[2], samples[3]), turn);
    let rows = [_mm256_unpacklo_epi32(left, right), _mm256_unpackhi_epi32(left, right)];
    let out = &mut out[..7 * stride + 8];
    let mut write = |row: usize, value: i64| {
        out[row * stride..row * stride + 8].copy_from_slice(&value.to_le_bytes());
    };
    for (i, rows) in rows.into_iter().enumerate() {
        let (low, high) = (_mm256_castsi256_si128(rows), _mm256_extracti128_si256::<1>(rows));
        write(2 * i, _mm_cvtsi128_si64(low));
        write(2 * i + 1, _mm_extract_epi64::<1>(low));
        write(2 * i + 4, _mm_cvtsi128_si64(high));
        write(2 * i + 5, _mm_extract_epi64::<1>(high));
    }
    _mm256_testz_si256(beyond, beyond) == 1
}
