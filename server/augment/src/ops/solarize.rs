//! Solarize: inverts the values at or above a threshold.
//!
//! `ImageOps.solarize(image, threshold)` on RGB; alpha becomes 255.

use super::face::{Effect, Face};
use super::invert::invert;
use super::table::map_opaque;
use crate::call::Action;
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::level::{Level, per_level};
use crate::simd::lookup::portable::{LookupTable, table};

pub(super) const FACE: Face = Face {
    apply: |action, image, scratch| solarize(image, threshold(action), scratch),
    effect: |action| Effect::Tables(tables).unless(threshold(action) == 256),
    caption: |action| threshold(action).to_string(),
};

fn threshold(action: &Action) -> u32 {
    action.parameter as u32
}

fn tables(action: &Action, _: Level, _: &[[u8; 3]]) -> [LookupTable; 3] {
    let threshold = threshold(action);
    [table(|value| if u32::from(value) >= threshold { !value } else { value }); 3]
}

/// Inverts each of red, green and blue that is at least `threshold`: at 0 all of them, at 256 none.
pub fn solarize(image: &mut Rgba, threshold: u32, scratch: &mut Scratch) {
    match threshold.checked_sub(1) {
        None => invert(image, scratch),
        Some(kept) => invert_over(scratch.level(), image.pixels_mut(), kept.min(255) as u8),
    }
}

per_level! {
    /// Inverts the values over `kept`, the largest that stays: a threshold that is a byte.
    fn invert_over(pixels: &mut [[u8; 4]], kept: u8) {
        map_opaque(pixels, |value| if value > kept { !value } else { value });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::one_pixel;

    #[test]
    fn bright_values_are_inverted() {
        let of = |threshold| {
            one_pixel([255, 128, 127, 0], |image| solarize(image, threshold, &mut Scratch::new()))
        };
        assert_eq!(of(128), [0, 127, 127, 255]);
        assert_eq!(of(256), [255, 128, 127, 255]);
        assert_eq!(of(255), [0, 128, 127, 255]);
        assert_eq!(of(0), [0, 127, 128, 255]);
    }
}
