//! The parameters of `POST /v1/apply`.

use pba_schedules::MAGNITUDE_MAX;

use crate::query::{integer, optional, text};

crate::query! {
    /// Ops to apply to an image: either one `op`, or several `ops`.
    pub struct Apply {
        /// Name of one op
        op: Option<String> = None, optional(text());
        /// Magnitude level of the op [default: 0]
        magnitude: Option<u8> = None, optional(integer(0..=MAGNITUDE_MAX));
        /// Direction of the op: 1 or -1 [default: 1]
        sign: Option<String> = None, optional(text());
        /// Column of the centre of Cutout [default: the image's centre]
        x: Option<u32> = None, optional(integer(0..=u32::MAX));
        /// Row of the centre of Cutout [default: the image's centre]
        y: Option<u32> = None, optional(integer(0..=u32::MAX));
        /// Ops to apply one after another, such as Rotate:5:-1,Posterize:3
        ops: Option<String> = None, optional(text());
    }
}
