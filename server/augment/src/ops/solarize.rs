//! Solarize: inverts the values at or above a threshold.
//!
//! `ImageOps.solarize(image, threshold)` on RGB; alpha becomes 255.

use super::table::map_opaque;
use crate::image::Rgba;

/// Inverts each of red, green and blue that is at least `threshold`: at 0 all of them, at 256 none.
pub fn solarize(image: &mut Rgba, threshold: u32) {
    // In bytes: a value is inverted when it is over `kept`, the largest that stays.
    match threshold.checked_sub(1) {
        None => map_opaque(image, |value| !value),
        Some(kept) => {
            let kept = kept.min(255) as u8;
            map_opaque(image, |value| if value > kept { !value } else { value });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::one_pixel;

    #[test]
    fn bright_values_are_inverted() {
        let of = |threshold| one_pixel([255, 128, 127, 0], |image| solarize(image, threshold));
        assert_eq!(of(128), [0, 127, 127, 255]);
        assert_eq!(of(256), [255, 128, 127, 255]);
        assert_eq!(of(255), [0, 128, 127, 255]);
        assert_eq!(of(0), [0, 127, 128, 255]);
    }
}
