//! Encoded images in, RGB pixels out.

pub(crate) mod image;
mod jpeg;
pub(crate) mod region;
