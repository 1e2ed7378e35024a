//! Dataset readers, and the packed on-disk format.
//!
//! [`open`] detects the format of what is at a path, imports it once, and keeps the result *packed*
//! in a cache: one Arrow IPC file per split, memory-mapped. After that, opening is instant, replicas
//! on one machine share its pages, and datasets larger than memory work.
//!
//! ```no_run
//! # use std::{ops::ControlFlow, path::Path};
//! use pba_datasets::{SplitName, open};
//! let (data, cache) = (Path::new("data/cifar10"), Path::new("cache"));
//! let dataset = open("cifar10", data, cache, &|_| ControlFlow::Continue(()))?;
//! if let Some(train) = dataset.split(SplitName::Train) {
//!     let train = train.as_ref().map_err(Clone::clone)?;
//!     let first = train.read([0], |samples| samples.label(0))?;
//!     println!("{} images of {:?}, the first a {first}", train.len(), train.shape());
//! }
//! # Ok::<(), pba_datasets::DatasetError>(())
//! ```

mod cache;
mod dataset;
mod decode;
mod error;
mod formats;
mod import;
pub mod packed;
mod parallel;
mod sync;

pub use dataset::{BUILT_IN, Dataset, Normalization};
pub use decode::DECODER_VERSION;
pub use decode::image::{ENCODED_BYTES_MAX, IMAGE_SIDE_MAX, Image, ImageError, decode, image_size};
pub use decode::region::{DecodedRegion, RegionDecoder};
pub use error::{DatasetError, Fault};
pub use import::{format, open, open_packed, repair, shapes};
pub use packed::spec::{CLASSES_MAX, PackSpec};
pub use packed::split::{Decoded, Encoded, Images, Samples, Split, SplitState};
pub use packed::target::Progress;
pub use packed::write::{Measured, Packer, remove_earlier_versions, remove_partials};
pub use pba_types::SplitName;
