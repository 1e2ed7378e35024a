//! Splits at rest: the packed format, written once and memory-mapped.
//!
//! A packed split is an Arrow IPC file with uncompressed record batches. There are two forms:
//!
//! | images | `image` | other columns | record batches |
//! | --- | --- | --- | --- |
//! | of one size | `arrow.fixed_shape_tensor` over `FixedSizeList<uint8>`: pixels | `label` (int64) | of equal size but for the last |
//! | of different sizes | binary: JPEG or PNG files | `label` (int64), `height` and `width` (uint32), `checksum` (uint64) of the image | of about 16 MiB |
//!
//! The schema's metadata says the rest: format and version, digest, statistics, classes, rows, source.
//!
//! Everything has a checksum (XXH3, 64 bits). An encoded image has its own, in a column; in the footer's metadata
//! are those of each 256 KiB of the pixels of a record batch, of the columns beside the images of each record
//! batch, and of the footer and the head of the file. What opening reads is
//! compared at once, an encoded image each time it is read, pixels when they are first touched, and all again when
//! the file has changed (`checks.rs`). Only files that this crate has written or copied into a cache are mapped, and
//! one that is cut all the same ends no process (`map.rs`).

mod area;
mod checks;
pub(crate) mod copy;
pub(crate) mod hash;
mod map;
mod moments;
pub(crate) mod read;
pub(crate) mod spec;
pub(crate) mod split;
pub(crate) mod target;
pub(crate) mod write;

pub use read::open;
