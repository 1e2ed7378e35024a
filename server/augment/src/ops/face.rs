//! What every op shows to the rest of the crate.

use crate::call::OpCall;
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::level::Level;
use crate::simd::lookup::portable::LookupTable;

/// An op as the rest of the crate knows it. This is where magnitude levels become physical
/// parameters ([`magnitude`](crate::magnitude)).
pub(crate) struct Face {
    /// Applies a call to an image.
    pub(crate) apply: fn(&OpCall, &mut Rgba, &mut Scratch),
    /// What a call does to an image of the dataset.
    pub(crate) effect: fn(&OpCall) -> Effect,
    /// The physical parameter of a call, for people; empty where there is none.
    pub(crate) caption: fn(&OpCall) -> String,
}

/// The tables of red, green and blue by which a call changes an opaque image.
pub(crate) type Tables = fn(&OpCall, Level, &[[u8; 3]]) -> [LookupTable; 3];

/// What a call does to an image of the dataset, which is opaque.
#[derive(Clone, Copy)]
pub(crate) enum Effect {
    /// Nothing.
    Nothing,
    /// It looks bytes up in tables that its magnitude fixes; the image may be any.
    Tables(Tables),
    /// It looks bytes up in tables that all pixels together fix.
    TablesOfImage(Tables),
    /// It does more than to look bytes up.
    Pixels,
}

impl Effect {
    /// This effect, but nothing where the call's parameter leaves every pixel as it is.
    pub(super) fn unless(self, idle: bool) -> Effect {
        if idle { Effect::Nothing } else { self }
    }
}
