//! The vocabulary that every crate shares, server and client alike.
//!
//! A value that two crates must agree on is defined here once: what a digest is, where a random
//! number comes from ([`rng`]), how splits are named, how the size of an image and a box in it are
//! written, and the bounds that hold everywhere ([`limits`]).

mod digest;
mod image;
pub mod limits;
mod name;
mod named;
pub mod rng;
mod sound;
mod split;
mod text;

pub use digest::{Digest, ParseDigestError};
pub use image::{ImageShape, PixelBox, ShapeError};
pub use name::{NameError, check_name, names_allowed};
pub use sound::Sound;
pub use split::SplitName;
pub use text::{NAME_SHOWN, VALUE_SHOWN, shortened};
