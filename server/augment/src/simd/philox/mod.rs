//! Many Philox blocks at once ([`rng`](crate::rng)).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::simd::level::{Level, at_level};

/// Eight words of each of a counter's four lanes.
pub(crate) type Words = [[u32; 8]; 4];

/// Sixteen Philox blocks, whose counters have their first words of their own and the `rest` in common:
/// which words of the first eight are at most `last` (as bits, lane j of block i at 4 i + j), and the
/// words of the other eight. Nothing where blocks are better made one by one, when they are needed.
#[inline]
pub(crate) fn philox(
    level: Level,
    key: [u32; 2],
    counters: &[u32; 16],
    rest: [u32; 3],
    last: &Words,
) -> Option<(u32, Words)> {
    at_level!(level, {
        avx512 => Some(avx512::philox(key, counters, rest, last)),
        avx2 => Some(avx2::philox(key, counters, rest, last)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::level::tests::at_each_level;

    fn in_plain_rust(key: [u32; 2], counters: &[u32; 16], rest: [u32; 3], last: &Words) -> (u32, Words) {
        let (mut at_most, mut others) = (0, [[0; 8]; 4]);
        for (i, &first) in counters.iter().enumerate() {
            let [a, b, c] = rest;
            for (lane, word) in pba_types::rng::philox4x32_10(key, [first, a, b, c]).into_iter().enumerate() {
                match i {
                    0..8 => at_most |= u32::from(word <= last[lane][i]) << (4 * i + lane),
                    _ => others[lane][i - 8] = word,
                }
            }
        }
        (at_most, others)
    }

    at_each_level! {
        fn as_in_plain_rust(level: Level) {
            let mut word = 1u32;
            let mut next = || {
                word = word.wrapping_mul(2_654_435_761).wrapping_add(12_345);
                word
            };
            for _ in 0..100 {
                let (key, rest) = ([(); 2].map(|()| next()), [(); 3].map(|()| next()));
                let (counters, last) = ([(); 16].map(|()| next()), [(); 4].map(|()| [(); 8].map(|()| next())));
                if let Some(found) = philox(level, key, &counters, rest, &last) {
                    assert_eq!(found, in_plain_rust(key, &counters, rest, &last));
                }
            }
        }
    }
}
