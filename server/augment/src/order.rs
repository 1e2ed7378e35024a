//! The order of an epoch: a permutation without memory.

use pba_types::rng::{Address, Purpose};

/// Rounds of the Feistel network. Four suffice in theory, for large halves; measured, 8 leave no
/// trace from domains of 6 bits on.
const ROUNDS: usize = 8;
/// Rounds on the domains of tiny datasets, whose halves hold a few bits. Measured on the worst of
/// them, of 5 samples, 16 are not enough and 24 are.
const ROUNDS_TINY: usize = 32;
/// Largest domain that counts as tiny, in bits.
const BITS_TINY: u32 = 8;

/// A permutation of `0..len` that the seed and the epoch fix, evaluated at any position in
/// constant time and memory.
///
/// ```text
/// domain   2^bits, the least power of two that holds `len` values (and at least 4)
/// rounds   8, or 32 in domains of up to 8 bits
/// halves   left of ceil(bits/2) bits, right of floor(bits/2) bits
/// round r  even: right ^= f(left, key[r]);  odd: left ^= f(right, key[r])
/// f        two multiplications that mix a 64-bit word (half ^ key); its high bits
/// walk     a result outside 0..len goes in again, until it is inside
/// ```
///
/// Each round can be undone, so the network permutes its domain (Luby and Rackoff 1988); walking
/// along a cycle until it is back in `0..len` makes that a permutation of `0..len` (Black and
/// Rogaway, "Ciphers with arbitrary finite domains", 2002). A walk takes fewer than two steps on
/// average. The keys come from [`Purpose::Order`], item 0: round r has the 64 bits of lanes
/// 2(r mod 2), low word, and 2(r mod 2) + 1, high word, of block floor(r/2).
///
/// ```
/// use pba_augment::Permutation;
/// let order = Permutation::new(10, 7, 0);
/// let mut indices: Vec<u64> = (0..10).map(|position| order.at(position)).collect();
/// assert_ne!(indices, (0..10).collect::<Vec<_>>());
/// indices.sort();
/// assert_eq!(indices, (0..10).collect::<Vec<_>>());
/// ```
#[derive(Clone, Debug)]
pub struct Permutation {
    len: u64,
    right_bits: u32,
    left_mask: u64,
    right_mask: u64,
    /// The first `rounds` of them are used.
    keys: [u64; ROUNDS_TINY],
    rounds: usize,
}

impl Permutation {
    /// The order of `len` samples in an epoch.
    pub fn new(len: u64, seed: u64, epoch: u32) -> Permutation {
        let bits = (u64::BITS - len.saturating_sub(1).leading_zeros()).max(2);
        let (left_bits, right_bits) = (bits.div_ceil(2), bits / 2);
        let address = Address { seed, purpose: Purpose::Order, epoch, item: 0 };
        let rounds = if bits <= BITS_TINY { ROUNDS_TINY } else { ROUNDS };
        let mut keys = [0; ROUNDS_TINY];
        for (block, keys) in keys[..rounds].as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let [a, b, c, d] = address.block(block as u32).map(u64::from);
            *keys = [a | b << 32, c | d << 32];
        }
        Permutation {
            len,
            right_bits,
            left_mask: (1 << left_bits) - 1,
            right_mask: (1 << right_bits) - 1,
            keys,
            rounds,
        }
    }

    /// How many there are to order.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The sample at `position`.
    ///
    /// # Panics
    /// When `position` is not below the length.
    #[inline]
    pub fn at(&self, position: u64) -> u64 {
        assert!(position < self.len, "position {position} of {}", self.len);
        let mut value = position;
        loop {
            value = self.network(value);
            if value < self.len {
                return value;
            }
        }
    }

    #[inline]
    fn network(&self, value: u64) -> u64 {
        let (mut left, mut right) = (value >> self.right_bits, value & self.right_mask);
        for keys in self.keys[..self.rounds].as_chunks::<2>().0 {
            right ^= mix(left ^ keys[0]) & self.right_mask;
            left ^= mix(right ^ keys[1]) & self.left_mask;
        }
        left << self.right_bits | right
    }
}

/// The high half of a well mixed word. The multipliers are those of SplitMix64's finaliser
/// (Steele, Lea and Flood 2014).
#[inline]
fn mix(word: u64) -> u64 {
    let word = word.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (word ^ word >> 32).wrapping_mul(0x94D0_49BB_1331_11EB) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(len: u64, seed: u64, epoch: u32) -> Vec<u64> {
        let permutation = Permutation::new(len, seed, epoch);
        (0..len).map(|position| permutation.at(position)).collect()
    }

    #[test]
    fn every_sample_once() {
        for len in (0..=300).chain([1000, 4096, 50_000, 65_536, 65_537]) {
            for seed in [0, 1, u64::MAX] {
                let mut seen = vec![false; len as usize];
                for index in order(len, seed, 3) {
                    assert!(!std::mem::replace(&mut seen[index as usize], true), "{index} twice of {len}");
                }
            }
        }
    }

    #[test]
    fn huge_lengths_stay_inside() {
        for len in [u64::from(u32::MAX) + 2, 1 << 40, u64::MAX] {
            let permutation = Permutation::new(len, 5, 0);
            let indices: Vec<u64> =
                [0, 1, len / 2, len - 1].into_iter().map(|at| permutation.at(at)).collect();
            assert!(indices.iter().all(|&index| index < len));
            assert!(indices.iter().any(|&index| index > len / 4), "{indices:?} of {len}");
        }
    }

    /// Over many seeds, each value stands at each position equally often.
    #[test]
    fn positions_and_values_are_uniform() {
        for (len, seeds) in
            [(2u64, 20_000u64), (3, 20_000), (5, 20_000), (10, 20_000), (37, 40_000), (300, 3000)]
        {
            let mut counts = vec![0u64; (len * len) as usize];
            for seed in 0..seeds {
                for (position, value) in order(len, seed, 0).into_iter().enumerate() {
                    counts[position * len as usize + value as usize] += 1;
                }
            }
            // Each row and each column sums to `seeds`, which leaves (len - 1)^2 degrees of
            // freedom; for a uniform permutation, (len - 1) / len * sum((o - e)^2 / e) has that
            // mean.
            let expected = seeds as f64 / len as f64;
            let sum: f64 = counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
            let chi_square = sum * (len as f64 - 1.0) / len as f64;
            let degrees = ((len - 1) * (len - 1)) as f64;
            assert!(chi_square < chi_square_limit(degrees), "{len}: {chi_square:.1} of {degrees}");
        }
    }

    /// All orders of a tiny dataset come up equally often.
    #[test]
    fn whole_orders_of_tiny_lengths_are_uniform() {
        for len in [2u64, 3, 4, 5] {
            let orders: u64 = (1..=len).product();
            let seeds = 2000 * orders;
            let mut counts = std::collections::HashMap::<Vec<u64>, u64>::new();
            for seed in 0..seeds {
                *counts.entry(order(len, seed, 1)).or_default() += 1;
            }
            assert_eq!(counts.len() as u64, orders);
            let expected = seeds as f64 / orders as f64;
            let chi_square: f64 =
                counts.values().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
            let degrees = orders as f64 - 1.0;
            assert!(chi_square < chi_square_limit(degrees), "{len}: {chi_square:.1} of {degrees}");
        }
    }

    /// Neighbours in the order are as far apart as independent draws: the quarter that a value
    /// lies in says nothing about the quarter of the next ones.
    #[test]
    fn neighbours_are_uncorrelated() {
        for len in [1000u64, 50_000, 65_536] {
            for distance in [1, 2, 3, 16, 128] {
                let mut counts = [0u64; 16];
                let seeds = (200_000 / len).max(4);
                for seed in 0..seeds {
                    let order = order(len, seed, 0);
                    for (one, other) in order.iter().zip(&order[distance..]) {
                        counts[(one * 4 / len * 4 + other * 4 / len) as usize] += 1;
                    }
                }
                let pairs: u64 = counts.iter().sum();
                let expected = pairs as f64 / 16.0;
                let chi_square: f64 =
                    counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
                // The margins of a permutation are fixed, which leaves 9 degrees of freedom.
                assert!(chi_square < chi_square_limit(9.0), "{len} at {distance}: {chi_square:.1}");
            }
        }
    }

    #[test]
    fn seeds_and_epochs_differ() {
        let orders = [order(1000, 0, 0), order(1000, 0, 1), order(1000, 1, 0), order(1000, 1 << 32, 0)];
        for (position, one) in orders.iter().enumerate() {
            for other in &orders[..position] {
                let same = one.iter().zip(other).filter(|(one, other)| one == other).count();
                assert!(same < 12, "{same} of 1000 in place; one is expected");
            }
        }
    }

    #[test]
    fn the_order_is_pinned() {
        assert_eq!(order(10, 0, 0), PINNED_10);
        assert_eq!(order(50_000, 7, 199)[..5], PINNED_50_000);
    }

    const PINNED_10: [u64; 10] = [4, 0, 6, 2, 1, 7, 9, 8, 3, 5];
    const PINNED_50_000: [u64; 5] = [47937, 36108, 15926, 35528, 9588];

    /// The value that a chi-square variable exceeds with probability 0.0001 (Wilson and Hilferty).
    fn chi_square_limit(degrees: f64) -> f64 {
        let spread = 2.0 / (9.0 * degrees);
        degrees * (1.0 - spread + 3.719 * spread.sqrt()).powi(3)
    }
}
