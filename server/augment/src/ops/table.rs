//! What the look-up ops share: a table per channel, applied to every pixel.

use crate::image::Rgba;
use crate::simd::Level;
#[cfg(target_arch = "x86_64")]
use crate::simd::{self, Kind};

/// What a value becomes.
pub(crate) type Table = [u8; 256];

/// The table that changes nothing.
pub(super) const IDENTITY: Table = {
    let mut table = [0; 256];
    let mut value = 0;
    while value < 256 {
        table[value] = value as u8;
        value += 1;
    }
    table
};

/// The table of a function.
#[inline]
pub(crate) fn table(function: impl Fn(u8) -> u8) -> Table {
    let mut table = IDENTITY;
    for value in &mut table {
        *value = function(*value);
    }
    table
}

/// What a value becomes by one table and then another.
#[allow(unsafe_code)]
pub(crate) fn compose(level: Level, first: &Table, second: &Table) -> Table {
    match level.kind() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level that exists was detected.
        Kind::Avx512 => unsafe { simd::avx512::compose(first, second) },
        _ => first.map(|value| second[usize::from(value)]),
    }
}

/// What becomes of alpha.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alpha {
    /// It stays.
    Keep,
    /// It becomes 255: the op goes through RGB.
    Opaque,
}

/// Looks red, green and blue up in their tables.
#[allow(unsafe_code)]
pub(super) fn look_up(level: Level, image: &mut Rgba, tables: [&Table; 3], alpha: Alpha) {
    let opaque = if alpha == Alpha::Opaque { 0xFF } else { 0 };
    match level.kind() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level that exists was detected.
        Kind::Avx512 => unsafe { simd::avx512::look_up(image.pixels_mut(), tables, opaque) },
        _ => look_up_plainly(image.pixels_mut(), tables, opaque),
    }
    if alpha == Alpha::Opaque {
        image.set_opaque(true);
    }
}

/// Looks red, green and blue up; alpha gains the bits of `opaque`.
fn look_up_plainly(pixels: &mut [[u8; 4]], [red, green, blue]: [&Table; 3], opaque: u8) {
    for pixel in pixels {
        let [r, g, b, a] = *pixel;
        *pixel = [red[usize::from(r)], green[usize::from(g)], blue[usize::from(b)], a | opaque];
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
