//! In plain Rust, too slow to be used: what the others are compared with.

/// Eight words of each of a counter's four lanes.
pub(crate) type Words = [[u32; 8]; 4];

/// Sixteen Philox blocks, whose counters have their first words of their own and the others in common:
/// which words of the first eight are at most `last` (as bits, lane j of block i at 4 i + j), and the
/// words of the other eight.
#[cfg(test)]
pub(crate) fn philox(key: [u32; 2], counters: &[u32; 16], rest: [u32; 3], last: &Words) -> (u32, Words) {
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
