//! Encoded images in, RGB pixels out.

pub(crate) mod image;
mod jpeg;
pub(crate) mod region;
mod work;

/// Rises whenever an image of some dataset is decoded to other pixels than before, as by another version of
/// a codec. It is part of a stream's recipe digest.
pub const DECODER_VERSION: u32 = 1;
