//! What the look-up ops share: a table per channel, applied to every pixel.

use crate::image::Rgba;
use crate::simd::level::Level;
use crate::simd::lookup;
use crate::simd::lookup::portable::LookupTable;

/// What becomes of alpha.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alpha {
    /// It stays.
    Keep,
    /// It becomes 255: the op goes through RGB.
    Opaque,
}

/// Looks red, green and blue up in their tables.
pub(super) fn look_up(level: Level, image: &mut Rgba, tables: [&LookupTable; 3], alpha: Alpha) {
    let opaque = if alpha == Alpha::Opaque { 0xFF } else { 0 };
    lookup::look_up(level, image.pixels_mut(), tables, opaque);
    if alpha == Alpha::Opaque {
        image.set_opaque(true);
    }
}

/// Maps red, green and blue with a function that vectorises better than a table; alpha becomes
/// 255.
#[inline(always)]
pub(super) fn map_opaque(pixels: &mut [[u8; 4]], function: impl Fn(u8) -> u8) {
    // Byte by byte in blocks of a constant size, which is what the compiler makes vectors of.
    const ALPHA: [u8; 64] = {
        let mut alpha = [0; 64];
        let mut i = 3;
        while i < 64 {
            alpha[i] = 255;
            i += 4;
        }
        alpha
    };
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
