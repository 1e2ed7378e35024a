//! Crop, flip and cutout: an image placed in the output.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod portable;

use portable::{LanesShown, Placement};

use crate::simd::level::{Level, at_level};
use crate::simd::lookup::portable::LookupTable;

impl Placement<'_> {
    /// Writes the output from an image as it stands in the dataset.
    pub(crate) fn write_rgb(&self, level: Level, pixels: &[[u8; 3]], out: &mut [u8], shown: &mut LanesShown) {
        at_level!(level, {
            avx512 if self.shift != (0, 0) || self.flip || !self.hole.0.is_empty() => {
                avx512::place_rgb(self, shown, pixels, out);
            },
            avx2 => self.write(pixels, out, |source, out, mirrored| match mirrored {
                true => avx2::mirror_row(source, out),
                false => portable::copy_row(source, out, false),
            }),
            _ => self.write(pixels, out, portable::copy_row),
        })
    }

    /// Writes the output from an image as it stands in the dataset, through tables.
    pub(crate) fn write_looked_up(
        &self,
        level: Level,
        tables: [&LookupTable; 3],
        pixels: &[[u8; 3]],
        out: &mut [u8],
        shown: &mut LanesShown,
    ) {
        at_level!(level, {
            avx512 => avx512::place_rgb_looked_up(self, shown, pixels, tables, out),
            _ => self.write(pixels, out, |source, out, mirrored| {
                portable::copy_row(source, out, mirrored);
                for pixel in out.as_chunks_mut::<3>().0 {
                    let [r, g, b] = *pixel;
                    let [red, green, blue] = tables;
                    *pixel = [red[usize::from(r)], green[usize::from(g)], blue[usize::from(b)]];
                }
            }),
        })
    }

    /// Writes the output from a working image, with its holes in the mean colour.
    pub(crate) fn write_rgba(
        &self,
        level: Level,
        pixels: &[[u8; 4]],
        out: &mut [u8],
        shown: &mut LanesShown,
    ) {
        at_level!(level, {
            avx512 => avx512::place_rgba(self, shown, pixels, out),
            avx2 => self.write(pixels, out, |source, out, mirrored| {
                avx2::pack_row(source, out, mirrored, self.mean);
            }),
            _ => self.write(pixels, out, |source, out, mirrored| {
                portable::pack_row(source, out, mirrored, self.mean);
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use pba_types::ImageShape;

    use super::*;
    use crate::image::Rgba;
    use crate::simd::level::tests::at_each_level;

    at_each_level! {
        fn as_in_plain_rust(level: Level) {
            for (height, width) in [(1usize, 1usize), (3, 7), (16, 16), (9, 33), (40, 50)] {
                let shape = ImageShape { height: height as u32, width: width as u32 };
                let rgba: Vec<u8> = (0..4 * shape.pixels())
                    .map(|i| if i % 4 == 3 { u8::from(i % 7 > 1) * 255 } else { (i * 37) as u8 })
                    .collect();
                let image = Rgba::from_rgba(shape, &rgba).unwrap();
                let rgb: Vec<_> = image.pixels().iter().map(|&[r, g, b, _]| [r, g, b]).collect();
                let tables = [3, 89, 251].map(|factor: u8| -> LookupTable {
                    std::array::from_fn(|value| (value as u8).wrapping_mul(factor))
                });
                let mean_row = [1, 2, 3].repeat(width);
                for i in 0..40isize {
                    let placement = Placement {
                        width,
                        height,
                        mean: [1, 2, 3],
                        mean_row: &mean_row,
                        shift: (i % 9 - 4, i % 5 - 2),
                        flip: i % 2 == 1,
                        hole: (width / 3..width / 2 + i as usize % 3 * width / 6, height / 3..height / 2),
                    };
                    let outputs = |level| {
                        let mut outs = [(); 3].map(|()| vec![77; 3 * rgb.len()]);
                        let [one, looked_up, masked] = &mut outs;
                        let mut shown = LanesShown::default();
                        placement.write_rgb(level, &rgb, one, &mut shown);
                        placement.write_looked_up(level, tables.each_ref(), &rgb, looked_up, &mut shown);
                        placement.write_rgba(level, image.pixels(), masked, &mut shown);
                        outs
                    };
                    assert!(outputs(level) == outputs(Level::PORTABLE), "{height}x{width}, {i}");
                }
            }
        }
    }
}
