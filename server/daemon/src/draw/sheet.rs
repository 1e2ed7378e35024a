//! Contact sheets: a preview of the images that a stream would send.
//!
//! Below each image are its class and the ops that the policy applied to it.

use std::convert::Infallible;

use anyhow::Context;
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::{FONT_6X10, FONT_9X15_BOLD};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::{DrawTarget, Drawable, OriginDimensions, Pixel, Point, RgbColor, Size};
use embedded_graphics::text::{Baseline, Text};
use pba_augment::caption;

use crate::stream::epoch::Epoch;
use crate::stream::pool::Workspace;

const BACKGROUND: Rgb888 = Rgb888::new(0x14, 0x18, 0x1d);
const TITLE: Rgb888 = Rgb888::new(0xf2, 0xf4, 0xf7);
const CLASS: Rgb888 = Rgb888::new(0xd5, 0xda, 0xe1);
const OPS: Rgb888 = Rgb888::new(0x7f, 0xb3, 0xff);
const NO_OPS: Rgb888 = Rgb888::new(0x5b, 0x64, 0x70);

/// Small images are enlarged, and large ones thinned, to about this side.
const TILE_SIDE: u32 = 96;
const GAP: u32 = 12;
const LINE: u32 = 11;
/// Ops that are written below an image at least, or their place.
const OPS_MIN: usize = 2;
const HEADER: u32 = 44;
const GLYPH_WIDTH: u32 = 6;
/// Draws the first `count` images of an epoch as a PNG.
///
/// # Errors
/// When an image can no longer be decoded, or the PNG cannot be encoded.
pub(crate) fn draw(
    epoch: &Epoch,
    number: u32,
    count: usize,
    workspace: &mut Workspace,
) -> anyhow::Result<Vec<u8>> {
    let Epoch { plan, recipe, split, .. } = epoch;
    let indices: Vec<u64> = (0..plan.batches()).flat_map(|n| plan.indices(n)).take(count).collect();
    let shape = recipe.shape();
    let mut pixels = vec![0; indices.len() * shape.rgb_bytes()];
    epoch.render(indices.iter().copied(), &mut pixels, workspace)?;

    let columns = (indices.len() as f64).sqrt().ceil().clamp(1.0, 32.0) as u32;
    let rows = (indices.len() as u32).div_ceil(columns);
    let tile = Tile::of(shape.height, shape.width);
    let cell_width = tile.width.max(TILE_SIDE) + GAP;
    // The class and the ops are written below an image.
    let lines = 1 + recipe.calls_max().max(OPS_MIN) as u32;
    let cell_height = tile.height + lines * LINE + 4 + GAP;
    let title = format!("{}  epoch {number}", epoch.dataset);
    let subtitle = format!("schedule {}   base {}", epoch.schedule, recipe.spec().base);
    let text_width = (9 * title.len() as u32).max(GLYPH_WIDTH * subtitle.len() as u32) + 2 * GAP;
    let mut canvas =
        Canvas::new((columns * cell_width + GAP).max(text_width), HEADER + rows * cell_height + GAP);

    canvas.text(&title, GAP, 9, MonoTextStyle::new(&FONT_9X15_BOLD, TITLE));
    canvas.text(&subtitle, GAP, 27, MonoTextStyle::new(&FONT_6X10, CLASS));
    // The shard has none, or the start is after its last batch.
    if indices.is_empty() {
        canvas.text("no images", GAP, HEADER, MonoTextStyle::new(&FONT_6X10, CLASS));
    }
    let letters = (cell_width - GAP) / GLYPH_WIDTH;
    for (position, (&index, pixels)) in indices.iter().zip(pixels.chunks_exact(shape.rgb_bytes())).enumerate()
    {
        let x = GAP + position as u32 % columns * cell_width;
        let y = HEADER + position as u32 / columns * cell_height;
        canvas.image(pixels.as_chunks().0, shape.width, &tile, x, y);
        let label = split.label(index);
        let class = usize::try_from(label).ok().and_then(|label| split.classes().get(label));
        let class = shortened(&class.cloned().unwrap_or_else(|| label.to_string()), letters);
        let y = y + tile.height + 4;
        canvas.text(&class, x, y, MonoTextStyle::new(&FONT_6X10, CLASS));
        let calls = recipe.op_calls(index);
        for (line, action) in calls.actions().iter().enumerate() {
            let y = y + (line as u32 + 1) * LINE;
            canvas.text(&shortened(&caption(action), letters), x, y, MonoTextStyle::new(&FONT_6X10, OPS));
        }
        if calls.actions().is_empty() {
            canvas.text("-", x, y + LINE, MonoTextStyle::new(&FONT_6X10, NO_OPS));
        }
    }
    png(canvas.width, canvas.height, png::ColorType::Rgb, canvas.rgb.as_flattened())
}

/// Cuts a text to a number of letters, all in the font, which covers ISO 8859-1.
fn shortened(text: &str, letters: u32) -> String {
    text.chars()
        .take(letters as usize)
        .map(|c| if matches!(c, ' '..='~' | '\u{a0}'..='\u{ff}') { c } else { '?' })
        .collect()
}

/// How one image is scaled: every pixel `grow` times, or every `thin`-th pixel.
struct Tile {
    width: u32,
    height: u32,
    grow: u32,
    thin: u32,
}

impl Tile {
    fn of(height: u32, width: u32) -> Tile {
        let side = height.max(width);
        let grow = (TILE_SIDE / side).max(1);
        // Up to twice the tile's side, an image is not scaled.
        let thin = side.div_ceil(3 * TILE_SIDE);
        Tile { width: width.div_ceil(thin) * grow, height: height.div_ceil(thin) * grow, grow, thin }
    }
}

/// An RGB picture that text can be drawn on.
struct Canvas {
    width: u32,
    height: u32,
    rgb: Vec<[u8; 3]>,
}

impl Canvas {
    fn new(width: u32, height: u32) -> Canvas {
        Canvas { width, height, rgb: vec![rgb(BACKGROUND); (width * height) as usize] }
    }

    fn text(&mut self, text: &str, x: u32, y: u32, style: MonoTextStyle<'_, Rgb888>) {
        let position = Point::new(x as i32, y as i32);
        let Ok(_) = Text::with_baseline(text, position, style, Baseline::Top).draw(self);
    }

    fn image(&mut self, pixels: &[[u8; 3]], width: u32, tile: &Tile, left: u32, top: u32) {
        for y in 0..tile.height {
            for x in 0..tile.width {
                let source = |along: u32| along / tile.grow * tile.thin;
                let pixel = pixels[(source(y) * width + source(x)) as usize];
                self.rgb[((top + y) * self.width + left + x) as usize] = pixel;
            }
        }
    }
}

fn rgb(color: Rgb888) -> [u8; 3] {
    [color.r(), color.g(), color.b()]
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(point, color) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y)) else { continue };
            if x < self.width && y < self.height {
                self.rgb[(y * self.width + x) as usize] = rgb(color);
            }
        }
        Ok(())
    }
}

/// Encodes a picture of 8 bits per channel.
///
/// # Errors
/// When the number of pixels does not match the size.
pub(crate) fn png(width: u32, height: u32, color: png::ColorType, pixels: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(pixels)?;
        writer.finish()
    });
    written.context("cannot encode the PNG")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_keep_a_sensible_size() {
        for (height, width, expected) in
            [(32, 32, (96, 96)), (1, 1, (96, 96)), (224, 224, (224, 224)), (4000, 2000, (286, 143))]
        {
            let tile = Tile::of(height, width);
            assert_eq!((tile.height, tile.width), expected, "{height}x{width}");
        }
    }

    #[test]
    fn long_and_foreign_names_are_cut_to_the_font() {
        assert_eq!(shortened("Motorrad für zwei", 11), "Motorrad fü");
        assert_eq!(shortened("kočka\n猫", 10), "ko?ka??");
    }
}
