//! Splits at rest: the packed format, written once and memory-mapped.
//!
//! A packed split is an Arrow IPC file with uncompressed record batches. There are two forms:
//!
//! | images | `image` | other columns | record batches |
//! | --- | --- | --- | --- |
//! | of one size | `arrow.fixed_shape_tensor` over `FixedSizeList<uint8>`: pixels | `label` (int64) | of equal size but for the last |
//! | of different sizes | binary: JPEG or PNG files | `label` (int64), `height` and `width` (uint32) | of about 16 MiB |
//!
//! The schema's metadata says the rest: format and version, digest, statistics, classes, rows, source.

pub(crate) mod hash;
mod map;
mod moments;
pub(crate) mod read;
pub(crate) mod spec;
pub(crate) mod split;
pub(crate) mod target;
pub(crate) mod write;

pub use read::open;
