//! What the enhancing ops share: Pillow's blend, and its gray.
//!
//! An enhancing op blends a duller image with the image itself, `dull + factor * (image - dull)`:
//! a factor below 1 goes towards the dull one, 1 changes nothing, and above 1 goes away from it.

/// Blends one byte in single precision, then cuts the fraction off and clips to 0..=255, as
/// `Image.blend` does. The alpha channel of the dull image is the image's own, so it stays.
#[inline]
pub(super) fn blend(dull: u8, value: u8, factor: f32) -> u8 {
    // `as` clips, which is what Pillow does outside of factors 0..=1; within them nothing is
    // ever out of range.
    (f32::from(dull) + factor * (f32::from(value) - f32::from(dull))) as u8
}

/// Pillow's gray of a pixel: ITU-R 601-2 luma in 16 fractional bits, rounded.
#[inline]
pub(super) fn gray(pixel: u32) -> u32 {
    let (red, green, blue) = (pixel & 0xFF, pixel >> 8 & 0xFF, pixel >> 16 & 0xFF);
    (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
}
