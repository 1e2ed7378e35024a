//! The random draws of a sample: a contract.
//!
//! Every draw has an address and never moves: it is one 32-bit word of
//! [`Address { seed, purpose, epoch, item: sample index }`](crate::rng::Address), at a fixed block
//! and lane. So a sample's draws depend on nothing but the seed, the epoch and its index, and a
//! word that is not needed costs nothing.
//!
//! | purpose | block | lane | decides | how |
//! | --- | --- | --- | --- | --- |
//! | Policy | 0 | 0 | `count`, how many ops at most | `tenths(w, 2)`: 0; else `tenths(w, 5)`: 1; else 2 |
//! | Policy | 0 | 1 | the first op, of the n slots that fire | `below(w, n)`, counting from slot 0 |
//! | Policy | 0 | 2 | the second op, of the other n - 1 | `below(w, n - 1)`, counting from slot 0 |
//! | Policy | 0 | 3 | the search epoch, where each image draws one of S | `below(w, S)` |
//! | Policy | 1 | 0, 1 | sign of the first op, of the second | `below(w, 2)`: 0 is plus, 1 is minus |
//! | Policy | 2 | 0, 1 | Cutout's centre, when it is the first op: column, row | `below(w, width)`, `below(w, height)` |
//! | Policy | 2 | 2, 3 | Cutout's centre, when it is the second op: column, row | the same |
//! | Policy | 4 + floor(s / 4) | s mod 4 | whether slot s fires | `tenths(w, probability)` |
//! | Base | 0 | 0, 1 | corner of the crop in the image padded by P: column, row | `below(w, 2 P)` |
//! | Base | 0 | 2 | flip | `below(w, 2)`: 1 flips |
//! | Base | 1 | 0, 1 | centre of the cutout: column, row | `below(w, width)`, `below(w, height)` |
//! | Frame | t | 0 | random resized crop, try t of 0..10: the box's share of the area | `0.08 + 0.92 w / 2^32` |
//! | Frame | t | 1 | its ratio of width to height | `(4/3)^(w / 2^31 - 1)` |
//! | Frame | t | 2, 3 | its first column, first row | `below(w, width - box width + 1)`, likewise |
//!
//! [`below`] and [`tenths`] map a word to a bounded
//! integer and to a decision. Block 3 and the lanes not named are spare.
//!
//! # Why this is the walk of the paper
//! The paper draws `count`, walks the slots in a fresh random order, lets each slot fire with its
//! own probability, applies those that fire, and stops once `count` have. Whether a slot fires
//! does not depend on its place in the order, so nothing changes when all slots are asked before
//! the walk. Then the walk applies the first `min(count, n)` of the n slots that fire, in the order
//! of the walk; and a uniform order of all slots, restricted to those that fire, is a uniform order
//! of these. Its first is any of the n with equal odds, its second any of the others. That takes
//! two draws instead of a shuffle of 30. A test holds it against the paper's words.

use pba_schedules::{Op, Policy, Slot};

use crate::apply::{OpCall, Sign};
use crate::base::Base;
use crate::rng::{Address, Purpose, below, tenths};
#[cfg(target_arch = "x86_64")]
use crate::simd;
use crate::simd::{Kind, Level};
use pba_types::ImageShape;

/// The ops of one image in the order in which they are applied: none, one or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpCalls {
    calls: [OpCall; 2],
    len: usize,
}

impl OpCalls {
    pub(crate) const NONE: OpCalls = {
        let call = OpCall { op: Op::Rotate, magnitude: 0, sign: Sign::Plus, centre: (0, 0) };
        OpCalls { calls: [call; 2], len: 0 }
    };

    /// The calls.
    pub fn as_slice(&self) -> &[OpCall] {
        &self.calls[..self.len]
    }
}

/// A policy laid out for drawing from it.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    slots: Vec<Slot>,
    /// Of each slot, by lane and block: the greatest word that lets it fire.
    greatest: [[u32; 8]; 4],
    /// The slots that can fire, as a bit set.
    possible: u32,
}

impl Walk {
    pub(crate) fn new(policy: &Policy) -> Walk {
        let slots = policy.slots().to_vec();
        assert!(slots.len() <= 32, "the ops, each twice, fit the bits of a word");
        let (mut greatest, mut possible) = ([[0; 8]; 4], 0);
        for (s, &Slot { probability, .. }) in slots.iter().enumerate() {
            if probability > 0 {
                // `tenths(w, p)` is 10 w < 2^32 p.
                greatest[s % 4][s / 4] = (((u64::from(probability) << 32) - 1) / 10) as u32;
                possible |= 1 << s;
            }
        }
        Walk { slots, greatest, possible }
    }

    /// The slots that fire, as a bit set.
    fn fired(&self, address: &Address) -> u32 {
        let mut fired = 0;
        for block in 0..self.slots.len().div_ceil(4) {
            if self.possible >> (4 * block) & 0b1111 != 0 {
                let words = address.block(4 + block as u32);
                for (lane, word) in words.into_iter().enumerate() {
                    fired |= u32::from(word <= self.greatest[lane][block]) << (4 * block + lane);
                }
            }
        }
        fired & self.possible
    }

    /// The ops of an image, from the words of its blocks 0 to 2 and the slots that fire.
    #[inline]
    fn pick(
        &self,
        level: Level,
        block: impl Fn(u32) -> [u32; 4],
        fired: impl FnOnce() -> u32,
        shape: ImageShape,
    ) -> OpCalls {
        let mut calls = OpCalls::NONE;
        let words = block(0);
        let count = count(words[0]);
        if count == 0 {
            return calls;
        }
        let mut fired = fired();
        calls.len = count.min(fired.count_ones() as usize);
        if calls.len == 0 {
            return calls;
        }
        let signs = block(1);
        for position in 0..calls.len {
            let nth = below(words[1 + position], fired.count_ones());
            let slot = nth_bit(level, fired, nth);
            fired &= !(1 << slot);
            let Slot { op, magnitude, .. } = self.slots[slot as usize];
            let sign = if below(signs[position], 2) == 0 { Sign::Plus } else { Sign::Minus };
            let centre = match op {
                Op::Cutout => {
                    let words = block(2);
                    (below(words[2 * position], shape.width), below(words[2 * position + 1], shape.height))
                }
                _ => (0, 0),
            };
            calls.calls[position] = OpCall { op, magnitude, sign, centre };
        }
        calls
    }

    /// The ops of the image at `address`, whose purpose is `Policy`.
    pub(crate) fn draw(&self, address: &Address, shape: ImageShape) -> OpCalls {
        self.pick(Level::PORTABLE, |block| address.block(block), || self.fired(address), shape)
    }

    /// All draws of a sample at once: its ops, and its base augmentation.
    pub(crate) fn draw_all(
        &self,
        level: Level,
        policy: &Address,
        base: &Base,
        shape: ImageShape,
    ) -> (OpCalls, BaseDraws) {
        let (fired, words) = match philox(level, policy, &self.greatest) {
            Some(all) => all,
            None => {
                let address = Address { purpose: Purpose::Base, ..*policy };
                return (self.draw(policy, shape), BaseDraws::new(&address, base, shape));
            }
        };
        let block = |i: usize| [words[0][i], words[1][i], words[2][i], words[3][i]];
        let calls = self.pick(level, |i| block(i as usize), || fired & self.possible, shape);
        (calls, BaseDraws::from_blocks(|i| block(3 + i as usize), base, shape))
    }
}

/// The block numbers of an image's sixteen blocks, with their purposes: first those that say which
/// slots fire, then Policy 0 to 2 and Base 0 and 1; the others are spare.
#[cfg(target_arch = "x86_64")]
const BLOCKS: [u32; 16] = {
    const BASE: u32 = (Purpose::Base as u32) << 24;
    [4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, BASE, BASE + 1, 3, BASE + 2, BASE + 3]
};

/// Which slots' words are at most the `greatest`, and the last eight blocks by lane. Nothing where
/// blocks are better made one by one, when they are needed.
#[allow(unsafe_code)]
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
fn philox(level: Level, policy: &Address, greatest: &[[u32; 8]; 4]) -> Option<(u32, [[u32; 8]; 4])> {
    let [_, item_low, item_high, epoch] = policy.counter(0);
    let rest = [item_low, item_high, epoch];
    match level.kind() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level that exists was detected.
        Kind::Avx512 => Some(unsafe { simd::avx512::philox(policy.key(), &BLOCKS, rest, greatest) }),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level that exists was detected.
        Kind::Avx2 => Some(unsafe { simd::avx2::philox(policy.key(), &BLOCKS, rest, greatest) }),
        Kind::Portable => None,
    }
}

/// How many ops at most: 0, 1 or 2 with probabilities 0.2, 0.3 and 0.5.
fn count(word: u32) -> usize {
    match word {
        word if tenths(word, 2) => 0,
        word if tenths(word, 5) => 1,
        _ => 2,
    }
}

/// Position of the `nth` bit that is set, counting both from 0.
#[allow(unsafe_code)]
fn nth_bit(level: Level, mut bits: u32, nth: u32) -> u32 {
    match level.kind() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: both levels have these instructions, and a level that exists was detected.
        Kind::Avx512 | Kind::Avx2 => unsafe { simd::avx2::nth_bit(bits, nth) },
        Kind::Portable => {
            for _ in 0..nth {
                bits &= bits - 1;
            }
            bits.trailing_zeros()
        }
    }
}

/// The draws of the base augmentation for one image. A step that the base lacks is at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BaseDraws {
    /// Column and row of the crop's corner in the padded image: 0..=2P-1 for a padding of P.
    pub crop: (u32, u32),
    /// Whether to mirror left to right.
    pub flip: bool,
    /// Column and row of the cutout's centre, after crop and flip.
    pub cutout: (u32, u32),
}

impl BaseDraws {
    /// The draws at `address`, whose purpose is `Base`.
    pub(crate) fn new(address: &Address, base: &Base, shape: ImageShape) -> BaseDraws {
        BaseDraws::from_blocks(|block| address.block(block), base, shape)
    }

    /// The draws from the words of their blocks.
    #[inline]
    fn from_blocks(block: impl Fn(u32) -> [u32; 4], base: &Base, shape: ImageShape) -> BaseDraws {
        let mut draws = BaseDraws::default();
        if base.pad_crop.is_some() || base.flip {
            let [column, row, flip, _] = block(0);
            if let Some(padding) = base.pad_crop {
                draws.crop = (below(column, 2 * padding), below(row, 2 * padding));
            }
            draws.flip = base.flip && below(flip, 2) == 1;
        }
        if base.cutout.is_some() {
            let [column, row, ..] = block(1);
            draws.cutout = (below(column, shape.width), below(row, shape.height));
        }
        draws
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_from_the_lowest() {
        for level in Level::available() {
            assert_eq!([0, 1, 2].map(|nth| nth_bit(level, 0b1001_0010, nth)), [1, 4, 7]);
            assert_eq!(nth_bit(level, 1 << 31, 0), 31);
            assert_eq!([0, 30, 31].map(|nth| nth_bit(level, u32::MAX, nth)), [0, 30, 31]);
        }
    }

    #[test]
    fn counts_split_the_words_in_tenths() {
        let share = |tenths: u64| (tenths * (1 << 32) / 10) as u32;
        assert_eq!([count(0), count(share(2)), count(share(2) + 1)], [0, 0, 1]);
        assert_eq!([count(share(5) - 1), count(share(5)), count(u32::MAX)], [1, 2, 2]);
    }
}
