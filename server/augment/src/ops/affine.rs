//! What the affine ops share: Pillow's nearest-neighbour transform ([`gather`]). A pixel whose
//! source lies outside becomes (0, 0, 0, 0).

use crate::call::Action;
use crate::image::Rgba;
use crate::scratch::Scratch;
use crate::simd::gather::gather;
use crate::simd::gather::portable::FixedAffine;
use crate::simd::level::Instructions;

/// The shift of TranslateX or TranslateY.
pub(super) fn pixels(action: &Action) -> i32 {
    action.parameter as i32
}

/// The slope of ShearX or ShearY.
pub(super) fn slope(action: &Action) -> f64 {
    action.parameter
}

/// Transforms an image.
pub(super) fn transform(affine: &FixedAffine, image: &mut Rgba, scratch: &mut Scratch) {
    let (level, width) = (scratch.level(), image.shape().width as usize);
    image.rewrite(&mut scratch.pixels, |pixels, out| gather(level, affine, pixels, out, width));
}

/// Transforms an image each of whose rows moves as a unit, to the left or right.
pub(super) fn shift_rows(affine: &FixedAffine, image: &mut Rgba, scratch: &mut Scratch) {
    let width = image.shape().width as usize;
    // Each call of the library's moves has its price, and is fast then.
    if scratch.level().instructions() == Instructions::Avx512 && width <= 128 {
        return transform(affine, image, scratch);
    }
    let mut start = affine.start.0;
    for row in image.pixels_mut().chunks_exact_mut(width) {
        shift_row(row, i64::from(start >> 16));
        start += affine.per_row.0;
    }
}

/// Moves a row so that `row[x]` becomes what `row[x + distance]` was, or (0, 0, 0, 0).
pub(super) fn shift_row(row: &mut [[u8; 4]], distance: i64) {
    let moved = distance.unsigned_abs().min(row.len() as u64) as usize;
    let left = row.len() - moved;
    if distance >= 0 {
        row.copy_within(moved.., 0);
        row[left..].fill([0; 4]);
    } else {
        row.copy_within(..left, moved);
        row[..moved].fill([0; 4]);
    }
}
