//! The working image that the ops change.

use pba_types::{ImageShape, ShapeError};

#[cfg(target_arch = "x86_64")]
use crate::simd;
use crate::simd::{Kind, Level};

/// A working image: interleaved red, green, blue and alpha bytes.
///
/// Alpha is a mask. It is 255 where a pixel shows the image and 0 where an op exposed what lies
/// outside of it; a hole becomes the dataset's mean colour once the policy is done. An image read
/// from a user may hold other values, which the ops treat as Pillow does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgba {
    shape: ImageShape,
    pixels: Vec<[u8; 4]>,
    /// Every alpha is known to be 255. False says nothing.
    opaque: bool,
}

impl Rgba {
    /// No image yet: what a buffer holds before its first one.
    pub(crate) const EMPTY: Rgba =
        Rgba { shape: ImageShape { height: 0, width: 0 }, pixels: Vec::new(), opaque: true };

    /// An opaque image from interleaved red, green and blue bytes.
    ///
    /// # Errors
    /// When a side of `shape` is out of range.
    ///
    /// # Panics
    /// When `rgb` is not [`ImageShape::rgb_bytes`] long.
    pub fn from_rgb(shape: ImageShape, rgb: &[u8]) -> Result<Rgba, ShapeError> {
        let mut image = Rgba::EMPTY;
        image.load_rgb(Level::PORTABLE, shape.check()?, rgb);
        Ok(image)
    }

    /// An image from interleaved red, green, blue and alpha bytes.
    ///
    /// # Errors
    /// When a side of `shape` is out of range.
    ///
    /// # Panics
    /// When `rgba` does not hold four bytes for each pixel.
    pub fn from_rgba(shape: ImageShape, rgba: &[u8]) -> Result<Rgba, ShapeError> {
        let shape = shape.check()?;
        assert_eq!(rgba.len(), 4 * shape.pixels(), "bytes of an RGBA image of {shape:?}");
        Ok(Rgba { shape, pixels: rgba.as_chunks().0.to_vec(), opaque: false })
    }

    /// Height and width.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// The pixels, row by row.
    pub fn pixels(&self) -> &[[u8; 4]] {
        &self.pixels
    }

    /// The pixels as interleaved bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.pixels.as_flattened()
    }

    /// The pixels to write to. Whoever writes a lower alpha than 255 says so with
    /// [`Rgba::set_opaque`].
    pub(crate) fn pixels_mut(&mut self) -> &mut [[u8; 4]] {
        &mut self.pixels
    }

    /// Says whether every alpha is known to be 255.
    pub(crate) fn set_opaque(&mut self, opaque: bool) {
        self.opaque = opaque;
    }

    /// Exchanges the pixels for others of the same number.
    pub(crate) fn swap_pixels(&mut self, pixels: &mut Vec<[u8; 4]>) {
        debug_assert_eq!(pixels.len(), self.pixels.len(), "an op keeps the size");
        std::mem::swap(&mut self.pixels, pixels);
    }

    /// Becomes an opaque image of these red, green and blue bytes, in the memory it has.
    pub(crate) fn load_rgb(&mut self, level: Level, shape: ImageShape, rgb: &[u8]) {
        assert_eq!(rgb.len(), shape.rgb_bytes(), "bytes of an RGB image of {shape:?}");
        self.shape = shape;
        self.opaque = true;
        self.pixels.resize(shape.pixels(), [0; 4]);
        expand(level, rgb, &mut self.pixels);
    }

    /// Gives every pixel whose alpha is 0 another colour, and the image no alpha.
    pub(crate) fn fill_holes(&mut self, colour: [u8; 3]) {
        if self.opaque {
            return;
        }
        let colour = u32::from_le_bytes([colour[0], colour[1], colour[2], 255]);
        for pixel in &mut self.pixels {
            let word = u32::from_le_bytes(*pixel);
            *pixel = (if word >> 24 == 0 { colour } else { word | 0xFF00_0000 }).to_le_bytes();
        }
        self.opaque = true;
    }
}

/// Pixels of red, green and blue become opaque pixels of four bytes.
#[allow(unsafe_code)]
fn expand(level: Level, rgb: &[u8], out: &mut [[u8; 4]]) {
    match level.kind() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level that exists was detected.
        Kind::Avx512 => unsafe { simd::avx512::expand(rgb, out) },
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => {
            // SAFETY: a level that exists was detected.
            let done = unsafe { simd::avx2::expand(rgb, out) };
            expand_plainly(&rgb[3 * done..], &mut out[done..]);
        }
        Kind::Portable => expand_plainly(rgb, out),
    }
}

fn expand_plainly(rgb: &[u8], out: &mut [[u8; 4]]) {
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

/// Four pixels from words, red lowest, without their high bytes.
#[inline(always)]
pub(crate) fn pack(quad: [u32; 4]) -> [u8; 12] {
    let [a, b, c, d] = quad.map(|pixel| u64::from(pixel & 0xFF_FFFF));
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&(a | b << 24 | c << 48).to_le_bytes());
    bytes[8..].copy_from_slice(&((c >> 16 | d << 8) as u32).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use pba_types::limits::SIDE_MAX;

    #[test]
    fn rgb_bytes_become_opaque_pixels_at_any_length() {
        for (width, level) in
            (1..=70).flat_map(|width| Level::available().into_iter().map(move |l| (width, l)))
        {
            let shape = ImageShape { height: 1, width };
            let rgb: Vec<u8> = (0..shape.rgb_bytes()).map(|i| (i * 37) as u8).collect();
            let mut image = Rgba::EMPTY;
            image.load_rgb(level, shape, &rgb);
            let expected: Vec<_> = rgb.chunks(3).map(|p| [p[0], p[1], p[2], 255]).collect();
            assert_eq!(image.pixels(), expected, "{width} pixels, {level}");
        }
    }

    #[test]
    fn only_holes_are_filled() {
        let shape = ImageShape { height: 1, width: 3 };
        let mut image = Rgba::from_rgba(shape, &[1, 2, 3, 0, 4, 5, 6, 255, 7, 8, 9, 1]).unwrap();
        image.fill_holes([10, 11, 12]);
        assert_eq!(image.pixels(), [[10, 11, 12, 255], [4, 5, 6, 255], [7, 8, 9, 255]]);
    }

    #[test]
    fn shapes_are_bounded() {
        let check = |height, width| ImageShape { height, width }.check();
        assert!(check(1, 1).is_ok() && check(SIDE_MAX, 1).is_ok());
        assert_eq!(check(0, 5), Err(ShapeError { height: 0, width: 5 }));
        let error = check(5, SIDE_MAX + 1).unwrap_err().to_string();
        assert_eq!(error, "an image of 5 rows and 16385 columns; allowed are 1..=16384 of each");
    }
}
