//! What the ops share that change each byte by itself.

/// Maps red, green and blue with a function that vectorises better than a table; alpha becomes
/// 255.
#[inline(always)]
pub(super) fn map_opaque(pixels: &mut [[u8; 4]], function: impl Fn(u8) -> u8) {
    // Byte by byte in blocks of a constant size, which is what the compiler makes vectors of.
    const ALPHA: [u8; 64] = *[[0, 0, 0, 255]; 16].as_flattened().first_chunk().expect("64 bytes");
    let (blocks, rest) = pixels.as_flattened_mut().as_chunks_mut::<64>();
    for block in blocks {
        for (byte, alpha) in block.iter_mut().zip(ALPHA) {
            *byte = function(*byte) | alpha;
        }
    }
    for (byte, alpha) in rest.iter_mut().zip(ALPHA) {
        *byte = function(*byte) | alpha;
    }
}
