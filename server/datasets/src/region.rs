//! Decoding a part of an image, at a part of its size.

use crate::image::{Format, Image, ImageError, decode_reduced};
use crate::jpeg;

/// A box of pixels in an image, after its reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// Its first column.
    pub left: u32,
    /// Its first row.
    pub top: u32,
    /// Its columns.
    pub width: u32,
    /// Its rows.
    pub height: u32,
}

/// Decodes parts of images, in memory that it keeps: one per worker thread. What it decoded before
/// never affects a result.
#[derive(Debug, Default)]
pub struct RegionDecoder {
    pixels: Vec<u8>,
    jpeg: jpeg::Memory,
}

/// A decoded part of an image.
#[derive(Clone, Copy, Debug)]
pub struct DecodedRegion<'a> {
    /// Where it lies in the reduced image. It holds at least what was needed.
    pub place: Region,
    /// RGB, row by row: `place.width * place.height * 3` bytes.
    pub pixels: &'a [u8],
}

impl RegionDecoder {
    /// Without memory yet.
    pub fn new() -> RegionDecoder {
        RegionDecoder::default()
    }

    /// Decodes at least the pixels of `needed` of a JPEG or PNG image, reduced to 1/1, 1/2, 1/4 or 1/8
    /// of its size.
    ///
    /// An image of W x H pixels reduced by r has ceil(W / r) x ceil(H / r) pixels. Reduced by 1, its
    /// pixels are those of [`decode`](crate::decode()). JPEG is reduced as libjpeg does, by a smaller
    /// inverse DCT; of PNG, r x r pixels are averaged. The pixels of a region are those that the same
    /// box of the whole reduced image has, whatever is needed.
    ///
    /// # Errors
    /// When the bytes are not an image, are damaged as far as was looked, or have no such region. What
    /// is damaged beyond the region may go unnoticed.
    ///
    /// # Panics
    /// When `reduction` is not 1, 2, 4 or 8, and when `needed` has no pixel.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        needed: Region,
        reduction: u32,
    ) -> Result<DecodedRegion<'_>, ImageError> {
        assert!(matches!(reduction, 1 | 2 | 4 | 8), "a reduction by {reduction}");
        assert!(needed.width > 0 && needed.height > 0, "an empty region {needed:?}");
        if reduction == 1
            && matches!(Format::of(bytes)?, Format::Jpeg)
            && self.jpeg.decode(bytes, needed, &mut self.pixels).is_some()
        {
            return Ok(DecodedRegion { place: needed, pixels: &self.pixels });
        }
        let Image { height, width, pixels } = decode_reduced(bytes, None, reduction)?;
        check_within(needed, height, width)?;
        self.pixels = pixels;
        let place = Region { left: 0, top: 0, width, height };
        Ok(DecodedRegion { place, pixels: &self.pixels })
    }
}

/// That an image of this size has these pixels.
fn check_within(needed: Region, height: u32, width: u32) -> Result<(), ImageError> {
    let Region { left, top, .. } = needed;
    let end = |first: u32, count: u32| u64::from(first) + u64::from(count);
    if end(left, needed.width) <= width.into() && end(top, needed.height) <= height.into() {
        return Ok(());
    }
    Err(ImageError::NoRegion { left, top, size: (needed.height, needed.width), image: (height, width) })
}
