//! In plain Rust, four pixels at a time.

pub(crate) fn expand(rgb: &[u8], out: &mut [[u8; 4]]) {
    let (quads, rest) = rgb.as_chunks::<3>().0.as_chunks::<4>();
    let (quads_out, rest_out) = out.as_chunks_mut::<4>();
    for (quad, out) in quads.iter().zip(quads_out) {
        *out = unpack(quad).map(|pixel| (pixel | 0xFF00_0000).to_le_bytes());
    }
    for (&[r, g, b], out) in rest.iter().zip(rest_out) {
        *out = [r, g, b, 255];
    }
}

/// Four pixels of three bytes as words, red lowest. Their high bytes are anything: the words that
/// are read overlap.
#[inline(always)]
pub(crate) fn unpack(quad: &[[u8; 3]; 4]) -> [u32; 4] {
    let bytes = quad.as_flattened();
    let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    [word(0), word(3), word(6), word(8) >> 8]
}
