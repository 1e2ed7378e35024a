//! Bits of a word.

use crate::simd::level::{Instructions, Level};

/// Position of the `nth` bit that is set, counting both from 0.
#[allow(unsafe_code)]
#[inline]
pub(crate) fn nth_bit(level: Level, mut bits: u64, nth: u32) -> u32 {
    match level.instructions() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: both levels have these instructions, and a level that exists was detected.
        Instructions::Avx512 | Instructions::Avx2 => unsafe { deposited(bits, nth) },
        Instructions::Portable => {
            for _ in 0..nth {
                bits &= bits - 1;
            }
            bits.trailing_zeros()
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "bmi2")]
fn deposited(bits: u64, nth: u32) -> u32 {
    std::arch::x86_64::_pdep_u64(1 << nth, bits).trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::level::at_each_level;

    at_each_level! {
        fn bits_are_counted_from_the_lowest(level: Level) {
            assert_eq!([0, 1, 2].map(|nth| nth_bit(level, 0b1001_0010, nth)), [1, 4, 7]);
            assert_eq!(nth_bit(level, 1 << 63, 0), 63);
            assert_eq!([0, 30, 63].map(|nth| nth_bit(level, u64::MAX, nth)), [0, 30, 63]);
        }
    }
}
