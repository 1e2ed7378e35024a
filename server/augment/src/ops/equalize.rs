//! Equalize: flattens the histogram of each channel.
//!
//! `ImageOps.equalize` on RGB; alpha becomes 255. For each channel with a histogram h:
//!
//! ```text
//! step = floor((pixels - h[greatest value that occurs]) / 255)
//! table[value] = min(255, floor((floor(step / 2) + h[0] + ... + h[value - 1]) / step))
//! ```
//! A channel of one value, or with a step of 0, stays.

use super::face::{Effect, Face};
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::flatten::flatten;
use crate::simd::flatten::portable::Histogram;
use crate::simd::lookup::look_up;

pub(super) const FACE: Face = Face {
    apply: |_, image, scratch| equalize(image, scratch),
    effect: |_| Effect::TablesOfImage(|_, level, rgb| flatten(level, &histograms(rgb), rgb.len() as u32)),
    caption: |_| String::new(),
};

/// Flattens the histograms of red, green and blue.
pub fn equalize(image: &mut Rgba, scratch: &mut Scratch) {
    let level = scratch.level();
    let tables = flatten(level, &histograms(image.pixels()), image.pixels().len() as u32);
    look_up(level, image.pixels_mut(), tables.each_ref(), 0xFF);
}

/// How often each value occurs in red, green and blue.
fn histograms<const CHANNELS: usize>(pixels: &[[u8; CHANNELS]]) -> [Histogram; 3] {
    // Neighbours are often equal. Counting them apart keeps an increment from waiting for the
    // one before it.
    let mut counts = [[[0u32; 256]; 3]; 2];
    let (pairs, rest) = pixels.as_chunks::<2>();
    let [even, odd] = &mut counts;
    for [one, other] in pairs {
        for channel in 0..3 {
            even[channel][usize::from(one[channel])] += 1;
            odd[channel][usize::from(other[channel])] += 1;
        }
    }
    for pixel in rest {
        for channel in 0..3 {
            even[channel][usize::from(pixel[channel])] += 1;
        }
    }
    for (even, odd) in even.as_flattened_mut().iter_mut().zip(odd.as_flattened()) {
        *even += odd;
    }
    counts[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use pba_types::ImageShape;

    #[test]
    fn a_ramp_is_flat_already_and_small_images_stay() {
        let shape = ImageShape { height: 16, width: 16 };
        let rgb: Vec<u8> = (0..=255).flat_map(|value| [value, value / 2, 9]).collect();
        let mut image = Rgba::from_rgb(shape, &rgb).unwrap();
        equalize(&mut image, &mut Scratch::new());
        // Red has a step of 1: each value becomes the number of pixels below it. Green, where each
        // value occurs twice, has a step of 0.
        let expected: Vec<_> = (0..=255u8).map(|value| [value, value / 2, 9, 255]).collect();
        assert_eq!(image.pixels(), expected);
        let shape = ImageShape { height: 1, width: 2 };
        let mut image = Rgba::from_rgba(shape, &[1, 2, 3, 0, 4, 5, 6, 255]).unwrap();
        equalize(&mut image, &mut Scratch::new());
        assert_eq!(image.pixels(), [[1, 2, 3, 255], [4, 5, 6, 255]]);
    }
}
