//! Contact sheets: a preview of the images that a stream would send.
//!
//! Below each image are its class and the ops that the policy applied to it.

use std::convert::Infallible;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::{FONT_6X10, FONT_9X15_BOLD};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::{DrawTarget, Drawable, OriginDimensions, Pixel, Point, RgbColor, Size};
use embedded_graphics::text::{Baseline, Text};
use pba_augment::caption;

use crate::stream::epoch::Epoch;
use crate::stream::work::Work;
use crate::stream::workspace::Workspace;
use crate::sync::lock;

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

/// Where everything is on the sheet of some images.
struct Grid {
    tile: Tile,
    columns: u32,
    rows: u32,
    cell_width: u32,
    cell_height: u32,
    title: String,
    subtitle: String,
}

impl Grid {
    fn of(epoch: &Epoch, number: u32, images: usize) -> Grid {
        let recipe = &epoch.recipe;
        let shape = recipe.shape();
        let columns = (images as f64).sqrt().ceil().clamp(1.0, 32.0) as u32;
        let tile = Tile::of(shape.height, shape.width);
        // The class and the ops are written below an image.
        let lines = 1 + recipe.calls_max().max(OPS_MIN) as u32;
        Grid {
            columns,
            rows: (images as u32).div_ceil(columns),
            cell_width: tile.width.max(TILE_SIDE) + GAP,
            cell_height: tile.height + lines * LINE + 4 + GAP,
            tile,
            title: format!("{}  epoch {number}", epoch.dataset),
            subtitle: format!("schedule {}   base {}", epoch.schedule, recipe.spec().base),
        }
    }

    /// Width and height of the sheet.
    fn size(&self) -> (u32, u32) {
        let text = (9 * self.title.len() as u32).max(GLYPH_WIDTH * self.subtitle.len() as u32) + 2 * GAP;
        ((self.columns * self.cell_width + GAP).max(text), HEADER + self.rows * self.cell_height + GAP)
    }

    fn canvas(&self) -> Canvas {
        let (width, height) = self.size();
        let mut canvas = Canvas::new(width, height);
        canvas.text(&self.title, GAP, 9, MonoTextStyle::new(&FONT_9X15_BOLD, TITLE));
        canvas.text(&self.subtitle, GAP, 27, MonoTextStyle::new(&FONT_6X10, CLASS));
        // The shard has none, or the start is after its last batch.
        if self.rows == 0 {
            canvas.text("no images", GAP, HEADER, MonoTextStyle::new(&FONT_6X10, CLASS));
        }
        canvas
    }
}

/// Bytes of memory that a sheet of `count` images takes at most: its pixels, a PNG that may have grown to twice
/// as much, and the images that workers are about to put on it.
pub(crate) fn bytes(epoch: &Epoch, count: usize) -> u64 {
    let (width, height) = Grid::of(epoch, 0, count).size();
    let of_part = epoch.images_of_part(count) * epoch.recipe.shape().rgb_bytes();
    3 * 3 * u64::from(width) * u64::from(height) + (of_part * epoch.engine.limits.threads) as u64
}

/// The sheet of the first images of an epoch, as work for the pool: a few images at a time. What comes of it is
/// to be encoded. `H` is whatever is held until that is done, or given up.
pub(crate) struct Sheet<H> {
    epoch: Arc<Epoch>,
    indices: Vec<u64>,
    images_of_part: usize,
    grid: Grid,
    /// None before the first part begins, and after the last.
    canvas: Mutex<Option<Canvas>>,
    held: Mutex<Option<H>>,
}

impl<H> Sheet<H> {
    /// The sheet of `count` images, or of all if there are fewer.
    pub(crate) fn new(epoch: Arc<Epoch>, number: u32, count: usize, held: H) -> Sheet<H> {
        let plan = &epoch.plan;
        let indices: Vec<u64> = (0..plan.batches()).flat_map(|n| plan.indices(n)).take(count).collect();
        Sheet {
            images_of_part: epoch.images_of_part(indices.len()),
            grid: Grid::of(&epoch, number, indices.len()),
            indices,
            epoch,
            canvas: Mutex::default(),
            held: Mutex::new(Some(held)),
        }
    }

    /// Draws one image of the sheet, with what is known of it.
    fn draw(&self, canvas: &mut Canvas, position: usize, (index, label): (u64, i64), pixels: &[[u8; 3]]) {
        let Epoch { recipe, split, .. } = &*self.epoch;
        let Grid { tile, columns, cell_width, cell_height, .. } = &self.grid;
        let letters = (cell_width - GAP) / GLYPH_WIDTH;
        let x = GAP + position as u32 % columns * cell_width;
        let y = HEADER + position as u32 / columns * cell_height;
        canvas.image(pixels, recipe.shape().width, tile, x, y);
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
}

impl<H: Send + 'static> Work for Sheet<H> {
    type Output = anyhow::Result<Encoding<H>>;

    fn parts(&self) -> usize {
        self.indices.len().div_ceil(self.images_of_part).max(1)
    }

    fn run(&self, part: usize, workspace: &mut Workspace) -> ControlFlow<Self::Output> {
        let first = part * self.images_of_part;
        let last = (first + self.images_of_part).min(self.indices.len());
        let indices = &self.indices[first..last];
        let image_bytes = self.epoch.recipe.shape().rgb_bytes();
        let mut pixels = vec![0; indices.len() * image_bytes];
        let rendered = match self.epoch.render(indices, &mut pixels, workspace) {
            Ok(rendered) => rendered,
            Err(error) => return ControlFlow::Break(Err(error)),
        };
        let samples = indices.iter().copied().zip(rendered.labels);
        let mut canvas = lock(&self.canvas);
        let canvas = canvas.get_or_insert_with(|| self.grid.canvas());
        for (position, (sample, pixels)) in samples.zip(pixels.chunks_exact(image_bytes)).enumerate() {
            self.draw(canvas, first + position, sample, pixels.as_chunks().0);
        }
        ControlFlow::Continue(())
    }

    fn finish(&self, _: &mut Workspace) -> Self::Output {
        let canvas = lock(&self.canvas).take().expect("every part draws on it");
        Encoding::new(canvas, lock(&self.held).take().expect("it is held to the end"))
    }
}

/// Pixels of a sheet that are encoded in one step: some 10 ms.
const STEP_PIXELS: usize = 1 << 18;

/// What comes of a step: the PNG and what was held, or what is left to be encoded.
type Step<H> = ControlFlow<(Vec<u8>, H), Encoding<H>>;

/// A sheet on its way to a PNG.
pub(crate) struct Encoding<H> {
    canvas: Canvas,
    /// Pixels that are encoded.
    done: usize,
    writer: png::StreamWriter<'static, Sink>,
    png: Sink,
    held: H,
}

impl<H> Encoding<H> {
    fn new(canvas: Canvas, held: H) -> anyhow::Result<Encoding<H>> {
        let png = Sink::default();
        let mut encoder = png::Encoder::new(png.clone(), canvas.width, canvas.height);
        encoder.set_color(png::ColorType::Rgb);
        let writer = encoder.write_header().and_then(png::Writer::into_stream_writer);
        Ok(Encoding { writer: writer.context("cannot encode the PNG")?, canvas, done: 0, png, held })
    }

    /// Encodes some more of it; breaks with the PNG, and with what was held.
    ///
    /// # Errors
    /// When it cannot be encoded, which is a bug.
    pub(crate) fn step(mut self) -> anyhow::Result<Step<H>> {
        let end = (self.done + STEP_PIXELS).min(self.canvas.rgb.len());
        let pixels = self.canvas.rgb[self.done..end].as_flattened();
        self.writer.write_all(pixels).context("cannot encode the PNG")?;
        self.done = end;
        if end < self.canvas.rgb.len() {
            return Ok(ControlFlow::Continue(self));
        }
        self.writer.finish().context("cannot encode the PNG")?;
        let png = std::mem::take(&mut *lock(&self.png.0));
        Ok(ControlFlow::Break((png, self.held)))
    }
}

/// Where a PNG is written.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
