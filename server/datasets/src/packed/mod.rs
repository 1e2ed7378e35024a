//! Splits at rest: the packed format, written once and memory-mapped.
//!
//! A packed split is an Arrow IPC file with uncompressed record batches. There are two forms:
//!
//! | images | `image` | other columns | record batches |
//! | --- | --- | --- | --- |
//! | of one size ([`Packer`]) | `arrow.fixed_shape_tensor` over `FixedSizeList<uint8>`: pixels | `label` (int64) | of equal size but for the last |
//! | of different sizes ([`EncodedPacker`]) | binary: JPEG or PNG files | `label` (int64), `height` and `width` (uint32) | of about 16 MiB |
//!
//! The schema's metadata says the rest: format and version, digest, statistics, classes, rows, source.
//!
//! [`Packer`]: crate::Packer
//! [`EncodedPacker`]: crate::EncodedPacker

pub(crate) mod decoded;
pub(crate) mod encoded;
pub(crate) mod hash;
mod map;
mod moments;
pub(crate) mod output;
pub(crate) mod read;
pub(crate) mod spec;
pub(crate) mod split;
pub(crate) mod target;

pub use read::open;
