//! What the enhancing ops share: an op blends the image with a duller one ([`blend`](crate::simd::blend)).

use crate::call::Action;
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::blend::portable::{ShortBlend, blend_shortly, blend_table};
use crate::simd::level::Instructions;
use crate::simd::lookup::look_up;

/// The factor of an enhancing op.
pub(super) fn factor(action: &Action) -> f32 {
    action.parameter as f32
}

/// Blends red, green and blue with one value.
pub(super) fn blend_with(image: &mut Rgba, dull: u8, factor: f32, scratch: &mut Scratch) {
    let level = scratch.level();
    match (level.instructions(), ShortBlend::of(factor)) {
        // Arithmetic on whole vectors is faster than looking bytes up one by one.
        (Instructions::Avx2, Some(short)) => blend_shortly(level, image.pixels_mut(), dull, short),
        _ => look_up(level, image.pixels_mut(), [&blend_table(level, dull, factor); 3], 0),
    }
}
