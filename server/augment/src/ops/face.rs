//! What every op shows to the rest of the crate.

use crate::call::Action;
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::level::Level;
use crate::simd::lookup::portable::LookupTable;

/// An op as the rest of the crate knows it.
pub(crate) struct Face {
    /// Does it to an image.
    pub(crate) apply: fn(&Action, &mut Rgba, &mut Scratch),
    /// What that means for an image of the dataset.
    pub(crate) effect: fn(&Action) -> Effect,
    /// The physical parameter, for people; empty where there is none.
    pub(crate) caption: fn(&Action) -> String,
}

/// The tables of red, green and blue by which an action changes an opaque image.
pub(crate) type Tables = fn(&Action, Level, &[[u8; 3]]) -> [LookupTable; 3];

/// What an action does to an image of the dataset, which is opaque.
#[derive(Clone, Copy)]
pub(crate) enum Effect {
    /// Nothing.
    Nothing,
    /// It looks bytes up in tables that its parameter fixes; the image may be any.
    Tables(Tables),
    /// It looks bytes up in tables that all pixels together fix.
    TablesOfImage(Tables),
    /// It does more than to look bytes up.
    Pixels,
}

impl Effect {
    /// This effect, but nothing where the parameter leaves every pixel as it is.
    pub(super) fn unless(self, idle: bool) -> Effect {
        if idle { Effect::Nothing } else { self }
    }
}
