//! Decoding a part of an image, at a part of its size.

use pba_types::PixelBox;

use crate::decode::image::{Codec, Image, ImageError, decode_reduced};
use crate::decode::jpeg;

/// Decodes parts of images in buffers that it reuses; one per worker thread. What it decoded before
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
    pub place: PixelBox,
    /// RGB, row by row: `place.width * place.height * 3` bytes.
    pub pixels: &'a [u8],
}

impl RegionDecoder {
    /// A decoder without buffers yet.
    pub fn new() -> RegionDecoder {
        RegionDecoder::default()
    }

    /// One that uses no vector instructions, which never affect a result; for tests.
    pub fn without_vectors() -> RegionDecoder {
        RegionDecoder { jpeg: jpeg::Memory::without_vectors(), ..RegionDecoder::default() }
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
    /// When the bytes are not an image, are damaged in the part that was decoded, or have no such region.
    /// Damage beyond the region may go unnoticed.
    ///
    /// # Panics
    /// When `reduction` is not 1, 2, 4 or 8, and when `needed` has no pixel.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        needed: PixelBox,
        reduction: u32,
    ) -> Result<DecodedRegion<'_>, ImageError> {
        assert!(matches!(reduction, 1 | 2 | 4 | 8), "a reduction by {reduction}");
        assert!(needed.width > 0 && needed.height > 0, "an empty region {needed:?}");
        if reduction == 1
            && matches!(Codec::of(bytes)?, Codec::Jpeg)
            && self.jpeg.decode(bytes, needed, &mut self.pixels).is_some()
        {
            return Ok(DecodedRegion { place: needed, pixels: &self.pixels });
        }
        let Image { shape, pixels } = decode_reduced(bytes, None, reduction)?;
        let place = PixelBox::whole(shape);
        if !place.contains(needed) {
            let PixelBox { left, top, width, height } = needed;
            return Err(ImageError::Refused(format!(
                "is {}x{} (height x width) as it is decoded; no {height}x{width} pixels from row {top}, \
                 column {left} on are in it",
                shape.height, shape.width
            )));
        }
        self.pixels = pixels;
        Ok(DecodedRegion { place, pixels: &self.pixels })
    }
}
