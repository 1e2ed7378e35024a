//! Bounds that hold in every crate. What only one crate knows of is bounded there.

/// Most samples in a batch.
pub const BATCH_SIZE_MAX: u32 = 65_536;

/// Longest side of an image that is augmented, in pixels.
///
/// The coordinates of the affine ops are 32-bit with 16 fractional bits, as in Pillow: they hold
/// any point of an image of this size after any of our rotations and shears.
pub const SIDE_MAX: u32 = 16_384;

/// Most epochs of a training run; keeps epoch arithmetic far from overflow.
pub const EPOCHS_MAX: u32 = 1_000_000;

/// Longest name of a schedule, a dataset or a job, in bytes: names become file names.
pub const NAME_BYTES_MAX: usize = 64;
