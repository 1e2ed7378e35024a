//! Bits of a word.

use crate::simd::level::{Level, at_level};

/// Position of the `nth` bit that is set, counting both from 0.
#[inline]
pub(crate) fn nth_bit(level: Level, mut bits: u64, nth: u32) -> u32 {
    at_level!(level, {
        avx512 => std::arch::x86_64::_pdep_u64(1 << nth, bits).trailing_zeros(),
        avx2 => std::arch::x86_64::_pdep_u64(1 << nth, bits).trailing_zeros(),
        _ => {
            for _ in 0..nth {
                bits &= bits - 1;
            }
            bits.trailing_zeros()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::level::tests::at_each_level;

    at_each_level! {
        fn bits_are_counted_from_the_lowest(level: Level) {
            assert_eq!([0, 1, 2].map(|nth| nth_bit(level, 0b1001_0010, nth)), [1, 4, 7]);
            assert_eq!(nth_bit(level, 1 << 63, 0), 63);
            assert_eq!([0, 30, 63].map(|nth| nth_bit(level, u64::MAX, nth)), [0, 30, 63]);
        }
    }
}
