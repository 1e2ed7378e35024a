//! The resources that a worker lends to its tasks.

use pba_augment::Scratch;
use pba_datasets::RegionDecoder;

/// What a worker has of its own.
#[derive(Default)]
pub(crate) struct Workspace {
    /// Buffers of the augmentation.
    pub(crate) scratch: Scratch,
    /// Decoder of encoded images, with its buffers.
    pub(crate) decoder: RegionDecoder,
}
