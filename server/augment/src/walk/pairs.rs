//! From the paper's pairs to the ops of an image.

use pba_schedules::{Op, Pairs, Slot};
use pba_types::ImageShape;

use crate::base::Base;
use crate::call::{OpCall, OpCalls, Sign};
use crate::draws::BaseDraws;
use crate::magnitude;
use crate::simd::bits::nth_bit;
use crate::simd::level::Level;
use crate::simd::philox::{Words, philox};
use pba_types::rng::{Address, Purpose, below, tenths};

// Pairs have at most two slots for each op. They are bits of a word.
const _: () = assert!(2 * Op::ALL.len() <= u64::BITS as usize, "a wider set of slots is needed");
/// Slots whose words are made at once.
const SLOTS_AT_ONCE: usize = 32;

/// Pairs laid out for drawing from them.
#[derive(Clone, Debug)]
pub(crate) struct PairsWalk {
    slots: Vec<Slot>,
    /// Of each slot: the parameter of its op, with plus and with minus.
    parameters: Vec<[f64; 2]>,
    /// Of each of the first 32 slots, by lane and block: the greatest word that lets it fire.
    greatest: Words,
    /// The slots that can fire, as a bit set.
    possible: u64,
}

impl PairsWalk {
    pub(super) fn new(pairs: &Pairs) -> PairsWalk {
        let slots = pairs.slots().to_vec();
        let parameters = slots.iter().map(|slot| {
            [Sign::Plus, Sign::Minus].map(|sign| magnitude::parameter(slot.op, slot.magnitude, sign))
        });
        let parameters = parameters.collect();
        let (mut greatest, mut possible) = ([[0; 8]; 4], 0);
        for (s, &Slot { probability, .. }) in slots.iter().enumerate() {
            if probability > 0 {
                if s < SLOTS_AT_ONCE {
                    // `tenths(w, p)` is 10 w < 2^32 p.
                    greatest[s % 4][s / 4] = (((u64::from(probability) << 32) - 1) / 10) as u32;
                }
                possible |= 1 << s;
            }
        }
        PairsWalk { slots, parameters, greatest, possible }
    }

    /// The slots that fire, from a multiple of four on, as a bit set.
    fn fired_from(&self, address: &Address, first: usize) -> u64 {
        let mut fired = 0;
        for (block, slots) in self.slots.chunks(4).enumerate().skip(first / 4) {
            if self.possible >> (4 * block) & 0b1111 != 0 {
                let words = address.block(4 + block as u32);
                for (lane, (word, slot)) in words.into_iter().zip(slots).enumerate() {
                    fired |= u64::from(tenths(word, slot.probability)) << (4 * block + lane);
                }
            }
        }
        fired
    }

    /// The ops of an image, from the words of its blocks 0 to 2 and the slots that fire.
    #[inline]
    fn pick(
        &self,
        level: Level,
        block: impl Fn(u32) -> [u32; 4],
        fired: impl FnOnce() -> u64,
        shape: ImageShape,
        calls: &mut OpCalls,
    ) {
        calls.clear(false);
        let words = block(0);
        let count = count(words[0]);
        let mut fired = if count == 0 { 0 } else { fired() };
        let count = count.min(fired.count_ones() as usize);
        if count == 0 {
            return;
        }
        let signs = block(1);
        for position in 0..count {
            let nth = below(words[1 + position], fired.count_ones());
            let slot = nth_bit(level, fired, nth);
            fired &= !(1 << slot);
            let Slot { op, magnitude, .. } = self.slots[slot as usize];
            let centre = || [2 * position, 2 * position + 1].map(|at| block(2)[at]);
            let call = call(op, magnitude, signs[position], centre, shape);
            calls.push_call(call, call.sign.select(&self.parameters[slot as usize]));
        }
    }

    /// As [`Walk::draw`](super::Walk::draw).
    #[inline]
    pub(super) fn draw(
        &self,
        level: Level,
        policy: &Address,
        base: &Base,
        shape: ImageShape,
        calls: &mut OpCalls,
    ) -> BaseDraws {
        let [_, item_low, item_high, epoch] = policy.counter(0);
        let rest = [item_low, item_high, epoch];
        let Some((fired, words)) = philox(level, policy.key(), &BLOCKS, rest, &self.greatest) else {
            self.pick(level, |i| policy.block(i), || self.fired_from(policy, 0), shape, calls);
            let address = Address { purpose: Purpose::Base, ..*policy };
            return BaseDraws::from_blocks(|i| address.block(i), base, shape);
        };
        let block = |i: usize| [words[0][i], words[1][i], words[2][i], words[3][i]];
        let fired = || u64::from(fired) & self.possible | self.fired_from(policy, SLOTS_AT_ONCE);
        self.pick(level, |i| block(i as usize), fired, shape, calls);
        BaseDraws::from_blocks(|i| block(3 + i as usize), base, shape)
    }
}

/// A call of an op, from the word of its sign and those of its centre, which only some ops have.
#[inline]
fn call(op: Op, magnitude: u8, sign: u32, centre: impl FnOnce() -> [u32; 2], shape: ImageShape) -> OpCall {
    let sign = Sign::drawn(sign);
    let centre = match op {
        Op::Cutout => {
            let [x, y] = centre();
            (below(x, shape.width), below(y, shape.height))
        }
        _ => (0, 0),
    };
    OpCall { op, magnitude, sign, centre }
}

/// The block numbers of an image's sixteen blocks, with their purposes: first those that say which
/// slots fire, then Policy 0 to 2 and Base 0 and 1; the others are spare.
const BLOCKS: [u32; 16] = {
    const BASE: u32 = (Purpose::Base as u32) << 24;
    [4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, BASE, BASE + 1, 3, BASE + 2, BASE + 3]
};

/// How many ops at most: 0, 1 or 2 with probabilities 0.2, 0.3 and 0.5.
fn count(word: u32) -> usize {
    match word {
        word if tenths(word, 2) => 0,
        word if tenths(word, 5) => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_split_the_words_in_tenths() {
        let share = |tenths: u64| (tenths * (1 << 32) / 10) as u32;
        assert_eq!([count(0), count(share(2)), count(share(2) + 1)], [0, 0, 1]);
        assert_eq!([count(share(5) - 1), count(share(5)), count(u32::MAX)], [1, 2, 2]);
    }
}
