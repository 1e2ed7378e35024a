//! The working image that the ops change.

use pba_types::{ImageShape, ShapeError};

use crate::simd::expand::expand;
use crate::simd::level::{Level, per_level};

/// A working image: interleaved red, green, blue and alpha bytes.
///
/// Alpha is a mask. It is 255 where a pixel shows the image and 0 where an op exposed what lies
/// outside of it; a hole becomes the dataset's mean colour once the policy is done. An image read
/// from a user may hold other values, which the ops treat as Pillow does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgba {
    shape: ImageShape,
    pixels: Vec<[u8; 4]>,
}

impl Rgba {
    /// No image yet: what a buffer holds before its first one.
    pub(crate) const EMPTY: Rgba = Rgba { shape: ImageShape { height: 0, width: 0 }, pixels: Vec::new() };

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
        Ok(Rgba { shape, pixels: rgba.as_chunks().0.to_vec() })
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

    /// The pixels to write to.
    pub(crate) fn pixels_mut(&mut self) -> &mut [[u8; 4]] {
        &mut self.pixels
    }

    /// Replaces the pixels by what `op` writes of them, with a buffer that holds anything.
    pub(crate) fn rewrite(&mut self, buffer: &mut Vec<[u8; 4]>, op: impl FnOnce(&[[u8; 4]], &mut [[u8; 4]])) {
        buffer.resize(self.pixels.len(), [0; 4]);
        op(&self.pixels, buffer);
        std::mem::swap(&mut self.pixels, buffer);
    }

    /// Makes holes part of the image, in the colour that they have.
    pub(crate) fn make_opaque(&mut self, level: Level) {
        set_alpha(level, &mut self.pixels);
    }

    /// Becomes an opaque image of these red, green and blue bytes, in the memory it has.
    pub(crate) fn load_rgb(&mut self, level: Level, shape: ImageShape, rgb: &[u8]) {
        assert_eq!(rgb.len(), shape.rgb_bytes(), "bytes of an RGB image of {shape:?}");
        self.shape = shape;
        self.pixels.resize(shape.pixels(), [0; 4]);
        expand(level, rgb, &mut self.pixels);
    }
}

per_level! {
    fn set_alpha(pixels: &mut [[u8; 4]]) {
        for pixel in pixels {
            pixel[3] = 255;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pba_types::limits::SIDE_MAX;

    #[test]
    fn shapes_are_bounded() {
        let check = |height, width| ImageShape { height, width }.check();
        assert!(check(1, 1).is_ok() && check(SIDE_MAX, 1).is_ok());
        assert_eq!(check(0, 5), Err(ShapeError { height: 0, width: 5 }));
        let error = check(5, SIDE_MAX + 1).unwrap_err().to_string();
        assert_eq!(error, "an image of 5 rows and 16385 columns; allowed are 1..=16384 of each");
    }
}
