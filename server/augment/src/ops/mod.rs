//! The ops: one file each, with the same face.
//!
//! Each is one function over an image and physical parameters, and does exactly what Pillow does
//! to all four channels: colour under an alpha of 0 matters, because a later op may expose it.
//! Its `FACE` says what an [`Action`] does, and is listed in `faces!`.

mod affine;
mod angles;
mod auto_contrast;
mod blend;
mod brightness;
mod color;
mod contrast;
pub(crate) mod cutout;
mod equalize;
pub(crate) mod face;
mod invert;
mod posterize;
mod rotate;
mod sharpness;
mod shear_x;
mod shear_y;
mod solarize;
mod table;
mod translate_x;
mod translate_y;

use pba_schedules::Op;

use crate::call::Action;
use crate::image::Rgba;
use crate::scratch::Scratch;
use face::Effect;

pub use auto_contrast::auto_contrast;
pub use brightness::brightness;
pub use color::color;
pub use contrast::contrast;
pub use cutout::cutout;
pub use equalize::equalize;
pub use invert::invert;
pub use posterize::posterize;
pub use rotate::rotate;
pub use sharpness::sharpness;
pub use shear_x::{SLOPE_MAX, shear_x};
pub use shear_y::shear_y;
pub use solarize::solarize;
pub use translate_x::translate_x;
pub use translate_y::translate_y;

/// Joins the ops with their files. Each face is a constant, so that its functions are called directly.
macro_rules! faces {
    ($($op:ident = $module:ident,)+) => {
        /// Applies one op to an image, exactly as Pillow does: all four channels, at any size. It is
        /// given as an [`Action`], or as an [`OpCall`](crate::OpCall) with a level of the paper's.
        ///
        /// # Panics
        /// When a magnitude is over 9, or a parameter is one that the op does not take.
        ///
        /// ```
        /// use pba_augment::{ImageShape, OpCall, Rgba, Scratch, Sign, apply};
        /// use pba_schedules::Op;
        ///
        /// let mut image = Rgba::from_rgb(ImageShape { height: 1, width: 3 }, &[1, 1, 1, 2, 2, 2, 3, 3, 3])?;
        /// let call = OpCall { op: Op::TranslateX, magnitude: 1, sign: Sign::Plus, centre: (0, 0) };
        /// apply(&call, &mut image, &mut Scratch::new());
        /// assert_eq!(image.pixels(), [[2, 2, 2, 255], [3, 3, 3, 255], [0, 0, 0, 0]]);
        /// # Ok::<(), pba_augment::ShapeError>(())
        /// ```
        pub fn apply(action: impl Into<Action>, image: &mut Rgba, scratch: &mut Scratch) {
            perform(&action.into(), image, scratch);
        }

        /// Does an action to an image.
        pub(crate) fn perform(action: &Action, image: &mut Rgba, scratch: &mut Scratch) {
            match action.op {
                $(Op::$op => ($module::FACE.apply)(action, image, scratch),)+
            }
        }

        /// What an action does to an image of the dataset.
        pub(crate) fn effect(action: &Action) -> Effect {
            match action.op {
                $(Op::$op => ($module::FACE.effect)(action),)+
            }
        }

        /// An op with its physical parameter, for people: `Rotate -27`, `Color x1.72`, `Invert`.
        ///
        /// # Panics
        /// When a magnitude of the paper's is over 9.
        pub fn caption(action: impl Into<Action>) -> String {
            let action = action.into();
            let parameter = match action.op {
                $(Op::$op => ($module::FACE.caption)(&action),)+
            };
            format!("{} {parameter}", action.op).trim_end().to_owned()
        }
    };
}

faces! {
    Rotate = rotate,
    TranslateX = translate_x,
    TranslateY = translate_y,
    Brightness = brightness,
    Color = color,
    Invert = invert,
    Sharpness = sharpness,
    Posterize = posterize,
    ShearX = shear_x,
    Solarize = solarize,
    ShearY = shear_y,
    Equalize = equalize,
    AutoContrast = auto_contrast,
    Cutout = cutout,
    Contrast = contrast,
}

/// Small images for the tests of the ops.
#[cfg(test)]
mod test_images {
    use crate::image::Rgba;
    use pba_types::ImageShape;

    /// What [`reds`] gives for a hole.
    pub(super) const HOLE: i32 = -1;

    /// An image whose red counts its pixels.
    pub(super) fn ramp(height: u32, width: u32) -> Rgba {
        let shape = ImageShape { height, width };
        let rgb: Vec<u8> = (0..shape.pixels()).flat_map(|i| [i as u8, (i / 3) as u8, 9]).collect();
        Rgba::from_rgb(shape, &rgb).unwrap()
    }

    /// Red of each pixel.
    pub(super) fn reds(image: &Rgba) -> Vec<i32> {
        image.pixels().iter().map(|pixel| if pixel[3] == 0 { HOLE } else { pixel[0].into() }).collect()
    }

    /// What an op makes of a single pixel.
    pub(super) fn one_pixel(pixel: [u8; 4], op: impl Fn(&mut Rgba)) -> [u8; 4] {
        let mut image = Rgba::from_rgba(ImageShape { height: 1, width: 1 }, &pixel).unwrap();
        op(&mut image);
        image.pixels()[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{OpCall, Sign};

    #[test]
    fn captions_say_the_physical_parameter() {
        let captions =
            Op::PAPER.map(|op| caption(&OpCall { op, magnitude: 9, sign: Sign::Minus, centre: (0, 0) }));
        let expected = "Rotate -27, TranslateX -9px, TranslateY -9px, Brightness x1.72, Color x1.72, Invert, \
                        Sharpness x1.72, Posterize 1 bits, ShearX -0.27, Solarize 26, ShearY -0.27, Equalize, \
                        AutoContrast, Cutout 18px, Contrast x1.72";
        assert_eq!(captions.join(", "), expected);
    }
}
