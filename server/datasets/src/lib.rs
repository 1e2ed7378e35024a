//! Dataset readers, and the packed on-disk format.
//!
//! [`open`] finds out what a path holds, decodes it once, and keeps the result *packed* in a
//! cache: one Arrow IPC file per split, memory-mapped. After that, opening is instant, replicas
//! on one machine share its pages, and datasets larger than memory work.
//!
//! ```no_run
//! # use std::path::Path;
//! use pba_datasets::{SplitName, open};
//! let dataset = open("cifar10", Path::new("data/cifar10"), Path::new("cache"), &|_| ())?;
//! if let Some(train) = dataset.split(SplitName::Train) {
//!     let train = train.ready().map_err(Clone::clone)?;
//!     println!("{} images of {:?}, the first a {}", train.len(), train.shape(), train.label(0));
//! }
//! # Ok::<(), pba_datasets::DatasetError>(())
//! ```

mod cifar;
mod dataset;
mod detect;
mod encoded;
mod error;
mod folder;
mod image;
mod import;
mod jpeg;
mod map;
mod moments;
mod output;
mod pack;
pub mod packed;
mod parquet;
mod region;
pub mod shapes;
mod split;
mod target;

pub use dataset::{BUILT_IN, Dataset, Normalization};
pub use detect::{format, open};
pub use encoded::{EncodedPacker, Seen};
pub use error::DatasetError;
pub use image::{ENCODED_BYTES_MAX, Image, ImageError, decode, image_size};
pub use import::Progress;
pub use output::remove_partials;
pub use pack::{CLASSES_MAX, IMAGE_SIDE_MAX, PackSpec, Packer};
pub use pba_types::SplitName;
pub use region::{DecodedRegion, Region, RegionDecoder};
pub use shapes::shapes;
pub use split::{Decoded, Encoded, Images, Split, SplitState};
