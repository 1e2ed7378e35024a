//! What the look-up ops share: a table per channel, applied to every pixel.

use crate::image::Rgba;

/// What a value becomes.
pub(super) type Table = [u8; 256];

/// What becomes of alpha.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alpha {
    /// It stays.
    Keep,
    /// It becomes 255: the op goes through RGB.
    Opaque,
}

/// Looks red, green and blue up in their tables.
pub(super) fn look_up(image: &mut Rgba, [red, green, blue]: [&Table; 3], alpha: Alpha) {
    let opaque = if alpha == Alpha::Opaque { 0xFF00_0000 } else { 0 };
    for pixel in image.pixels_mut() {
        let [r, g, b, a] = *pixel;
        let colour = [red[usize::from(r)], green[usize::from(g)], blue[usize::from(b)], a];
        *pixel = (u32::from_le_bytes(colour) | opaque).to_le_bytes();
    }
    if alpha == Alpha::Opaque {
        image.set_opaque(true);
    }
}

/// Maps red, green and blue with a function that vectorises better than a table; alpha becomes
/// 255.
#[inline]
pub(super) fn map_opaque(image: &mut Rgba, function: impl Fn(u8) -> u8) {
    for byte in image.pixels_mut().as_flattened_mut() {
        *byte = function(*byte);
    }
    for pixel in image.pixels_mut() {
        *pixel = (u32::from_le_bytes(*pixel) | 0xFF00_0000).to_le_bytes();
    }
    image.set_opaque(true);
}
