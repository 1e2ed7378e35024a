//! The ops: one file each, with the same face.
//!
//! Each is one function over an image and physical parameters, and does exactly what Pillow does
//! to all four channels: colour under an alpha of 0 matters, because a later op may expose it.
//! What a magnitude level means stands in [`magnitude`](crate::magnitude).
//!
//! Three kinds share their inner loops: the affine ops move pixels (`affine`), the enhancing ops
//! blend the image with a duller one (`blend`), and the others look each byte up in a table
//! (`table`).

mod affine;
mod auto_contrast;
mod blend;
mod brightness;
mod color;
mod contrast;
mod cutout;
mod equalize;
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

#[cfg(target_arch = "x86_64")]
pub(crate) use affine::FixedAffine;
pub use auto_contrast::auto_contrast;

pub(crate) use auto_contrast::auto_contrast_tables;
#[cfg(target_arch = "x86_64")]
pub(crate) use blend::ShortBlend;
pub(crate) use blend::blend_table;
pub use brightness::brightness;
pub use color::color;
pub use contrast::contrast;
pub(crate) use contrast::mean_gray_of_rgb;
pub use cutout::cutout;
pub use equalize::equalize;
pub(crate) use equalize::equalize_tables;
pub use invert::invert;
pub use posterize::posterize;
pub use rotate::{DEGREES_MAX, rotate};
pub use sharpness::sharpness;
pub use shear_x::{SLOPE_MAX, shear_x};
pub use shear_y::shear_y;
pub use solarize::solarize;
pub(crate) use table::{Table, compose, table};
pub use translate_x::translate_x;
pub use translate_y::translate_y;

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
