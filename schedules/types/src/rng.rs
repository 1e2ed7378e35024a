//! Randomness as an address.
//!
//! A random number is a function of where it is used, never of what was drawn before it. The
//! function is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
//! 2011): a keyed bijection of a 128-bit counter. The key is the user's seed; the counter names
//! the epoch, the item, the purpose and the block of four words.
//!
//! ```text
//! key     = [seed low, seed high]
//! counter = [(purpose << 24) + block, item low, item high, epoch]
//! ```
//!
//! Bounded draws are spelt out here too ([`below`], [`tenths`]), so that no dependency's update
//! can change them.

use std::convert::Infallible;

use rand::TryRng;

/// What a random number is for. Different purposes never share a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// The policy walk of one sample, and the parameters of the ops that fire.
    Policy = 0,
    /// The base augmentation of one sample.
    Base = 1,
    /// The order of samples in an epoch.
    Order = 2,
    /// The order of epochs in the `shuffled` ablation.
    ScheduleOrder = 3,
    /// Exploit and explore in a search; the item is the member.
    Search = 4,
    /// Initial weights of a model.
    Weights = 5,
    /// Drawing a built-in dataset.
    Dataset = 6,
    /// Which part of its source a sample shows.
    Frame = 7,
    /// Weights of residual branches in training (Shake-Shake, ShakeDrop): the seed is the member's, the item the
    /// sample, and a block of four words belongs to each block of the network.
    Shake = 8,
}

/// Where a random number is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The user's seed.
    pub seed: u64,
    /// What for.
    pub purpose: Purpose,
    /// Epoch or generation, 0-based.
    pub epoch: u32,
    /// Sample, member, or whatever is counted.
    pub item: u64,
}

impl Address {
    /// Four words of block `block` at this address; blocks 0..2^24 are distinct.
    #[inline]
    pub fn block(&self, block: u32) -> [u32; 4] {
        debug_assert!(block < 1 << 24, "an address has 2^24 blocks");
        philox4x32_10(self.key(), self.counter(block))
    }

    /// The Philox key of this address.
    #[inline]
    pub fn key(&self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }

    /// The Philox counter of block `block` at this address.
    #[inline]
    pub fn counter(&self, block: u32) -> [u32; 4] {
        [((self.purpose as u32) << 24) + block, self.item as u32, (self.item >> 32) as u32, self.epoch]
    }

    /// The words at this address one after another, as a [`rand::Rng`].
    pub fn stream(self) -> Stream {
        Stream { address: self, words: [0; 4], used: 4, next_block: 0 }
    }
}

/// The words of an [`Address`] in order.
#[derive(Clone, Debug)]
pub struct Stream {
    address: Address,
    words: [u32; 4],
    used: usize,
    next_block: u32,
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        if self.used == 4 {
            self.words = self.address.block(self.next_block);
            self.next_block += 1;
            self.used = 0;
        }
        self.used += 1;
        Ok(self.words[self.used - 1])
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let low = u64::from(self.try_next_u32()?);
        Ok((u64::from(self.try_next_u32()?) << 32) + low)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(4) {
            let word = self.try_next_u32()?.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

/// Maps a uniform word to a uniform integer in `0..bound`, by the high half of the product.
///
/// No value is off its share by more than `bound` in 2^32.
///
/// # Panics
/// In debug builds, when `bound` is 0.
#[inline]
pub fn below(word: u32, bound: u32) -> u32 {
    debug_assert!(bound > 0, "there is no integer below 0");
    ((u64::from(word) * u64::from(bound)) >> 32) as u32
}

/// True with probability `tenths / 10`: never for 0, always for 10.
#[inline]
pub fn tenths(word: u32, tenths: u8) -> bool {
    u64::from(word) * 10 < u64::from(tenths) << 32
}

/// The Philox4x32 bijection with ten rounds.
#[inline]
pub fn philox4x32_10(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    const MULTIPLIER: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let [mut k0, mut k1] = key;
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    for _ in 0..10 {
        let p0 = MULTIPLIER[0] * u64::from(c0);
        let p1 = MULTIPLIER[1] * u64::from(c2);
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    /// Known answers published with the Random123 library (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_gives_the_published_answers() {
        let ones = u32::MAX;
        for (key, counter, answer) in [
            ([0; 2], [0; 4], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 2], [ones; 4], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0xa409_3822, 0x299f_31d0],
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox4x32_10(key, counter), answer);
        }
    }

    /// Key and counter are laid out as the head of this file says, to the last bit.
    #[test]
    fn an_address_is_a_key_and_a_counter() {
        let (seed, item) = (0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210);
        let address = Address { seed, purpose: Purpose::Shake, epoch: 0x1357_9BDF, item };
        let (key, counter) =
            ([0x89AB_CDEF, 0x0123_4567], [0x08FF_FFFE, 0x7654_3210, 0xFEDC_BA98, 0x1357_9BDF]);
        assert_eq!((address.key(), address.counter(0x00FF_FFFE)), (key, counter));
        assert_eq!(address.block(0x00FF_FFFE), philox4x32_10(key, counter));
    }

    /// No two addresses share a number: each bit of one is a bit of the key or of the counter, and no two are the same.
    #[test]
    fn every_bit_of_an_address_has_a_place_of_its_own() {
        let place = |seed, purpose, epoch, item, block| {
            let address = Address { seed, purpose, epoch, item };
            let ([k0, k1], [c0, c1, c2, c3]) = (address.key(), address.counter(block));
            [k0, k1, c0, c1, c2, c3]
        };
        let zero = place(0, Purpose::Policy, 0, 0, 0);
        // The purposes whose numbers are powers of two.
        let purposes = [Purpose::Base, Purpose::Order, Purpose::Search, Purpose::Shake];
        let mut places = purposes.map(|purpose| place(0, purpose, 0, 0, 0)).to_vec();
        places.extend((0..64).map(|bit| place(1 << bit, Purpose::Policy, 0, 0, 0)));
        places.extend((0..32).map(|bit| place(0, Purpose::Policy, 1 << bit, 0, 0)));
        places.extend((0..64).map(|bit| place(0, Purpose::Policy, 0, 1 << bit, 0)));
        places.extend((0..24).map(|bit| place(0, Purpose::Policy, 0, 0, 1 << bit)));
        let mut taken = zero;
        for place in places {
            let set: u32 = place.iter().map(|word| word.count_ones()).sum();
            assert_eq!(set, 1, "{place:08x?}");
            for (taken, word) in taken.iter_mut().zip(place) {
                assert_eq!(*taken & word, 0, "{place:08x?} is taken");
                *taken |= word;
            }
        }
        assert_eq!(zero, [0; 6]);
    }

    /// Long words and bytes are the same words, the first of which is the lowest.
    #[test]
    fn long_words_and_bytes_are_words_in_order() {
        let stream = Address { seed: 7, purpose: Purpose::Dataset, epoch: 3, item: 1 }.stream();
        let mut words = stream.clone();
        let words: [u32; 6] = std::array::from_fn(|_| words.next_u32());
        let mut long = stream.clone();
        for pair in words.chunks(2) {
            assert_eq!(long.next_u64(), u64::from(pair[0]) + u64::from(pair[1]) * (1 << 32));
        }
        let bytes = words.map(u32::to_le_bytes).concat();
        for length in 0..=bytes.len() {
            let mut filled = vec![0; length];
            stream.clone().fill_bytes(&mut filled);
            assert_eq!(filled, bytes[..length]);
        }
    }

    #[test]
    fn a_stream_reads_the_blocks_in_order() {
        let address = Address { seed: 7, purpose: Purpose::Search, epoch: 3, item: 1 << 40 };
        let mut stream = address.stream();
        let words: Vec<u32> = (0..8).map(|_| stream.next_u32()).collect();
        assert_eq!(words, [address.block(0), address.block(1)].concat());
    }

    #[test]
    fn bounded_draws_cover_their_range_and_no_more() {
        assert_eq!((below(0, 7), below(u32::MAX, 7)), (0, 6));
        assert!(!tenths(0, 0) && tenths(u32::MAX, 10));
        assert!(tenths(429_496_729, 1) && !tenths(429_496_730, 1));
    }
}
