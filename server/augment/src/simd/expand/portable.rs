//! In plain Rust, four pixels at a time.

pub(crate) fn expand(rgb: &[u8], out: &mut [[u8; 4]]) {
    let (quads, rest) = rgb.as_chunks::<12>();
    let (quads_out, rest_out) = out.as_chunks_mut::<4>();
    for (quad, out) in quads.iter().zip(quads_out) {
        *out = unpack(quad).map(|pixel| (pixel | 0xFF00_0000).to_le_bytes());
    }
    for (rgb, out) in rest.as_chunks::<3>().0.iter().zip(rest_out) {
        *out = [rgb[0], rgb[1], rgb[2], 255];
    }
}

/// Four pixels of three bytes as words, red lowest. Their high bytes are anything: the words that
/// are read overlap.
#[inline(always)]
pub(crate) fn unpack(quad: &[u8; 12]) -> [u32; 4] {
    let word = |i: usize| u32::from_le_bytes([quad[i], quad[i + 1], quad[i + 2], quad[i + 3]]);
    [word(0), word(3), word(6), word(8) >> 8]
}
