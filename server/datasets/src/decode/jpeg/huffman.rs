//! Huffman codes, and the bits that they are read from.
//!
//! A table is looked up with the next [`LOOK_BITS`] bits. Most often these hold a whole coefficient,
//! code and value, so that one look-up gives both; where values do not matter, it gives as many
//! coefficients as the bits hold.

/// A Huffman code as a file defines it: codes of each length, and the symbols in order.
#[derive(Clone, Copy)]
pub(super) struct Code<'a> {
    pub counts: &'a [u8; 16],
    pub symbols: &'a [u8],
}

/// Bits that a table is looked up with: the tables of two components fit the first cache.
const LOOK_BITS: u32 = 11;
const ENTRIES: usize = 1 << LOOK_BITS;

/// End of the block, in an entry's step.
pub(super) const END: usize = 128;

/// A code laid out for decoding.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// What it was made from: counts, then symbols.
    key: Vec<u8>,
    /// By the next bits, a whole coefficient: bits in all, step << 8, value << 16. No bits where the
    /// coefficient is longer.
    one: Box<[u32; ENTRIES]>,
    /// By the next bits, all whole coefficients in them: bits in all, step << 8. Only for AC.
    many: Box<[u16; ENTRIES]>,
    /// Of each length of code: the greatest code, left-aligned in 16 bits, plus 1.
    limit: [u32; 17],
    /// Of each length: the place of its first symbol minus its first code.
    offset: [i32; 17],
    symbols: [u8; 256],
    is_ac: bool,
}

/// One coefficient: bits in all, step, value.
type Coefficient = (u32, usize, i32);

impl Default for Table {
    fn default() -> Table {
        Table {
            key: Vec::new(),
            one: Box::new([0; ENTRIES]),
            many: Box::new([0; ENTRIES]),
            limit: [0; 17],
            offset: [0; 17],
            symbols: [0; 256],
            is_ac: false,
        }
    }
}

impl Table {
    /// Becomes the table of a code, unless it is that already. Nothing for a code that is none, or
    /// has symbols that no 8-bit image needs.
    pub fn set(&mut self, code: Code, is_ac: bool) -> Option<()> {
        let (counts, symbols) = self.key.split_at(self.key.len().min(16));
        if counts == code.counts && symbols == code.symbols && self.is_ac == is_ac {
            return Some(());
        }
        self.key.clear();
        if code.symbols.len() > 256 {
            return None;
        }
        let allowed = |&symbol: &u8| if is_ac { symbol & 15 <= 10 } else { symbol <= 11 };
        if !code.symbols.iter().all(allowed) {
            return None;
        }
        self.symbols = [0; 256];
        self.symbols[..code.symbols.len()].copy_from_slice(code.symbols);
        self.is_ac = is_ac;
        let (mut next, mut place) = (0u32, 0);
        for length in 1..=16 {
            let count = u32::from(code.counts[length - 1]);
            self.offset[length] = place - next as i32;
            next += count;
            place += count as i32;
            // A code of ones only is not allowed, nor are more codes than a length has.
            if next > (1 << length) - u32::from(count > 0) {
                return None;
            }
            self.limit[length] = next << (16 - length);
            next <<= 1;
        }
        for (bits, entry) in self.one.iter_mut().enumerate() {
            let coefficient =
                decode(&self.limit, &self.offset, &self.symbols, is_ac, (bits as u64) << (64 - LOOK_BITS));
            *entry = match coefficient {
                Some((length, step, value)) if length <= LOOK_BITS => {
                    length | (step as u32) << 8 | (value as u32) << 16
                }
                _ => 0,
            };
        }
        if is_ac {
            for (bits, entry) in self.many.iter_mut().enumerate() {
                *entry = many(&self.one, bits);
            }
        }
        self.key.extend_from_slice(code.counts);
        self.key.extend_from_slice(code.symbols);
        Some(())
    }

    /// The next coefficient: how far it steps in zigzag order ([`END`] and more for the end of the
    /// block), and its value. Needs 27 bits.
    #[inline(always)]
    pub fn next(&self, bits: &mut Bits) -> Option<(usize, i32)> {
        let entry = self.one[(bits.word >> (64 - LOOK_BITS)) as usize];
        let length = entry & 0xff;
        if length == 0 {
            // By value: bits whose address is known to others would not stay in registers.
            let (length, step, value) = self.next_long(bits.word)?;
            bits.drop(length);
            return Some((step, value));
        }
        bits.drop(length);
        Some(((entry >> 8 & 0xff) as usize, entry as i32 >> 16))
    }

    #[inline(never)]
    fn next_long(&self, word: u64) -> Option<Coefficient> {
        decode(&self.limit, &self.offset, &self.symbols, self.is_ac, word)
    }

    /// Skips the coefficients from `k` to the end of a block. Nothing when they go beyond it.
    #[inline(always)]
    pub fn skip_block(&self, bits: &mut Bits) -> Option<()> {
        let mut k = 1;
        while k < 64 {
            bits.refill();
            for _ in 0..2 {
                let entry = u32::from(self.many[(bits.word >> (64 - LOOK_BITS)) as usize]);
                let end = k + (entry >> 8) as usize;
                // At the end of a block the bits may hold what is not its own.
                if entry & 0xff != 0 && (end < 64 || (end & END != 0 && end - END < 64)) {
                    bits.drop(entry & 0xff);
                    k = end;
                } else {
                    k += self.next(bits)?.0;
                }
                if k >= 64 {
                    break;
                }
            }
        }
        (k == 64 || k >= END).then_some(())
    }
}

/// The coefficient at the beginning of a word.
fn decode(
    limit: &[u32; 17],
    offset: &[i32; 17],
    symbols: &[u8; 256],
    is_ac: bool,
    word: u64,
) -> Option<Coefficient> {
    let code = (word >> 48) as u32;
    let length = (1..=16).find(|&length| code < limit[length])?;
    let place = (code >> (16 - length)) as i32 + offset[length];
    let symbol = *symbols.get(usize::try_from(place).ok()?)?;
    let size = u32::from(symbol & 15);
    let length = length as u32;
    let value = match size {
        0 => 0,
        size => {
            let magnitude = (word << length >> (64 - size)) as i32;
            if magnitude >> (size - 1) == 1 { magnitude } else { magnitude - (1 << size) + 1 }
        }
    };
    let step = match (is_ac, symbol) {
        (false, _) => 0,
        (true, 0) => END,
        // Other runs without a value end the block too, says libjpeg; only a progressive image has them.
        (true, symbol) if size == 0 && symbol != 0xf0 => return None,
        (true, symbol) => 1 + usize::from(symbol >> 4),
    };
    Some((length + size, step, value))
}

/// An entry of [`Table::many`].
fn many(one: &[u32; ENTRIES], bits: usize) -> u16 {
    let (mut used, mut steps) = (0, 0);
    while steps < 64 {
        let entry = one[bits << used & (ENTRIES - 1)];
        let length = entry & 0xff;
        // The bits after the last are zeros here, and anything in the file.
        if length == 0 || used + length > LOOK_BITS {
            break;
        }
        used += length;
        steps += entry >> 8 & 0xff;
    }
    if steps & 0x7f >= 64 { 0 } else { (used | steps << 8) as u16 }
}

/// The bits of a scan, without its stuffing.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    place: usize,
    /// The next bits, from the highest on; below them, zeros or a part of what `place` points at.
    word: u64,
    count: u32,
}

/// Bytes that follow the bits of a scan, which [`Bits`] may look at.
pub(super) const PADDING: usize = 8;

impl<'a> Bits<'a> {
    /// The bits of `bytes`, of which the last [`PADDING`] are not meant.
    pub fn new(bytes: &'a [u8]) -> Bits<'a> {
        assert!(bytes.len() >= PADDING, "the bits are padded");
        Bits { bytes, place: 0, word: 0, count: 0 }
    }

    /// Makes at least 56 bits ready. Beyond the end there is anything.
    #[inline(always)]
    pub fn refill(&mut self) {
        let place = self.place.min(self.bytes.len() - PADDING);
        let next: [u8; 8] = self.bytes[place..place + 8].try_into().expect("eight bytes");
        self.word |= u64::from_be_bytes(next) >> self.count;
        self.place += ((63 - self.count) >> 3) as usize;
        self.count |= 56;
    }

    /// Whether more was taken than there is.
    pub fn overran(&self) -> bool {
        self.place - (self.count >> 3) as usize > self.bytes.len() - PADDING
    }

    #[inline(always)]
    fn drop(&mut self, count: u32) {
        self.word <<= count;
        self.count -= count;
    }
}
