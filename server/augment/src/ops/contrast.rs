//! Contrast: blends with the mean gray.
//!
//! `ImageEnhance.Contrast(image).enhance(factor)`; alpha is kept. The mean is over the gray of all
//! pixels, whatever their alpha.

use super::blend::{blend_with, factor};
use super::face::{Effect, Face};
use crate::call::Action;
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::blend::gray_sum_of_rgb;
use crate::simd::blend::portable::{blend_table, gray_sum};
use crate::simd::level::Level;
use crate::simd::lookup::portable::LookupTable;

pub(super) const FACE: Face = Face {
    apply: |action, image, scratch| contrast(image, factor(action), scratch),
    effect: |action| Effect::TablesOfImage(tables).unless(factor(action) == 1.0),
    caption: |action| format!("x{:.2}", factor(action)),
};

fn tables(action: &Action, level: Level, rgb: &[[u8; 3]]) -> [LookupTable; 3] {
    let mean = mean_gray(rgb, |block| gray_sum_of_rgb(level, block));
    [blend_table(level, mean, factor(action)); 3]
}

/// Moves red, green and blue away from the mean gray, to `factor` times the distance: 0 is gray,
/// 1 is the image, more has more contrast.
pub fn contrast(image: &mut Rgba, factor: f32, scratch: &mut Scratch) {
    if factor != 1.0 {
        let mean = mean_gray(image.pixels(), |block| gray_sum(scratch.level(), block));
        blend_with(image, mean, factor, scratch);
    }
}

/// The rounded mean gray, by the sums of up to 2^16 pixels, which stay in 32 bits.
fn mean_gray<T>(pixels: &[T], sum: impl Fn(&[T]) -> u32) -> u8 {
    let sum: u64 = pixels.chunks(1 << 16).map(|block| u64::from(sum(block))).sum();
    (sum as f64 / pixels.len() as f64 + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use pba_types::ImageShape;

    #[test]
    fn values_move_away_from_the_mean() {
        let shape = ImageShape { height: 1, width: 2 };
        let of = |factor| {
            let mut image = Rgba::from_rgba(shape, &[10, 10, 10, 0, 101, 101, 101, 255]).unwrap();
            contrast(&mut image, factor, &mut Scratch::new());
            image.pixels().to_vec()
        };
        // Gray 10 and 101: mean 55.5, rounded to 56.
        assert_eq!(of(0.0), [[56, 56, 56, 0], [56, 56, 56, 255]]);
        assert_eq!(of(1.72), [[0, 0, 0, 0], [133, 133, 133, 255]]);
        assert_eq!(of(1.0), [[10, 10, 10, 0], [101, 101, 101, 255]]);
    }
}
