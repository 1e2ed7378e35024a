//! Random numbers of a fault: a function of seed, kind and index, so that each fault can be repeated alone.

use sha2::{Digest, Sha256};

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The dice of one fault.
    pub(crate) fn of(seed: u64, kind: &str, index: u32) -> Dice {
        let digest = Sha256::digest(format!("{seed} {kind} {index}"));
        Dice(u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes")))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound, which is at least 1.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number in `first..=last`.
    pub(crate) fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// A number in `first..=last` of which small ones are as likely as large ones: every doubling is.
    pub(crate) fn scaled(&mut self, first: u64, last: u64) -> u64 {
        let doublings = (last as f64 / first as f64).log2();
        let part = self.below(1 << 20) as f64 / f64::from(1 << 20);
        ((first as f64 * (doublings * part).exp2()) as u64).clamp(first, last)
    }

    /// One of some.
    pub(crate) fn pick<T: Clone>(&mut self, some: &[T]) -> T {
        some[self.below(some.len() as u64) as usize].clone()
    }

    /// One of some calls, and which of those that are made of it.
    pub(crate) fn call(&mut self, calls: &[(&'static str, u64)]) -> (&'static str, u64) {
        let (call, times) = self.pick(calls);
        (call, self.between(1, times))
    }

    /// Whether something happens that does once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_has_its_own_numbers_each_time() {
        let numbers = |seed, kind, index| {
            let mut dice = Dice::of(seed, kind, index);
            [dice.below(1000), dice.between(5, 5), dice.scaled(1, 1000), dice.pick(&[1, 2, 3])]
        };
        assert_eq!(numbers(1, "kill", 2), numbers(1, "kill", 2));
        assert_ne!(numbers(1, "kill", 2), numbers(1, "kill", 3));
        assert_ne!(numbers(1, "kill", 2), numbers(2, "kill", 2));
        let mut dice = Dice::of(0, "", 0);
        assert!((0..1000).all(|_| (3..=70).contains(&dice.scaled(3, 70))));
    }
}
