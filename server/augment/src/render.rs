//! From a sample's pixels to the pixels that go out.

use std::ops::Range;

use crate::apply::apply;
use crate::counts::OpCounts;
use crate::draws::BaseDraws;
use crate::frame::View;
use crate::image::{Rgba, pack, unpack};
use crate::recipe::Recipe;
use crate::resize::{Source, resize};
use crate::route::Route;
use crate::scratch::Scratch;
#[cfg(target_arch = "x86_64")]
use crate::simd;
use crate::simd::{Kind, prefetch};

/// Bytes of the next image that are asked for: all of a small one. Of a large one, the processor
/// notices by then that it is read in order.
const PREFETCHED_MAX: usize = 4096;

/// Renders one sample: policy, holes to the mean colour, then crop, flip and cutout.
///
/// `pixels` and `out` are interleaved red, green and blue bytes of the recipe's shape; `out` is
/// overwritten. `counts` gains one for each op that fired.
///
/// # Allocations
/// None, once `scratch` has met an image of this size.
///
/// # Panics
/// When `pixels` or `out` is not [`ImageShape::rgb_bytes`](crate::ImageShape::rgb_bytes) long.
///
/// ```
/// use pba_augment::{Base, ImageShape, OpCounts, Policies, Recipe, RecipeSpec, Scratch, render_image};
///
/// let shape = ImageShape { height: 2, width: 2 };
/// let recipe = Recipe::new(RecipeSpec {
///     policies: Policies::None,
///     base: "flip".parse()?,
///     seed: 0,
///     epoch: 0,
///     mean: [125, 123, 114],
///     shape,
/// })?;
/// let image = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
/// let mirrored = [4, 5, 6, 1, 2, 3, 10, 11, 12, 7, 8, 9];
///
/// let (mut scratch, mut counts) = (Scratch::new(), OpCounts::default());
/// for sample in 0..10 {
///     let mut out = [0; 12];
///     render_image(&recipe, sample, &image, &mut out, &mut scratch, &mut counts);
///     assert_eq!(out, if recipe.base_draws(sample).flip { mirrored } else { image });
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn render_image(
    recipe: &Recipe,
    sample: u64,
    pixels: &[u8],
    out: &mut [u8],
    scratch: &mut Scratch,
    counts: &mut OpCounts,
) {
    render_before(recipe, sample, pixels, &[], out, scratch, counts);
}

/// [`render_image`], which meanwhile asks for the pixels of the image `after` it. Part by part: a
/// processor that is asked for all of them at once waits for the first to come.
fn render_before(
    recipe: &Recipe,
    sample: u64,
    pixels: &[u8],
    after: &[u8],
    out: &mut [u8],
    scratch: &mut Scratch,
    counts: &mut OpCounts,
) {
    let shape = recipe.shape();
    assert_eq!(pixels.len(), shape.rgb_bytes(), "bytes of sample {sample}");
    assert_eq!(out.len(), shape.rgb_bytes(), "bytes of the output for sample {sample}");
    let level = scratch.level();
    let mut parts = after.chunks(after.len().div_ceil(3).max(1));
    let mut ask_for_more = || prefetch(level, parts.next().unwrap_or_default());
    ask_for_more();
    let (calls, draws) = recipe.draws(level, sample);
    let placement = Placement::new(recipe, draws);
    let (calls, rgb) = (calls.as_slice(), pixels.as_chunks().0);
    calls.iter().for_each(|call| counts.add(call.op));
    let route = Route::of(level, calls, rgb, &mut scratch.tables);
    ask_for_more();
    if route != Route::Work {
        ask_for_more(); // there will be no better moment
    }
    match route {
        Route::Copy => placement.write_rgb(rgb, out, scratch),
        Route::LookUp => placement.write_looked_up(rgb, out, scratch),
        Route::Work => {
            let mut image = std::mem::replace(&mut scratch.image, Rgba::EMPTY);
            image.load_rgb(level, shape, pixels);
            calls.iter().for_each(|call| apply(call, &mut image, scratch));
            ask_for_more();
            placement.write_rgba(&mut image, out, scratch);
            scratch.image = image;
        }
    }
}

/// Renders one sample from a source of any size: its view, then all that [`render_image`] does.
///
/// `view` is what [`Recipe::view`] gives for this sample and the source's size; `source` holds at
/// least its [`View::pixels`].
///
/// # Allocations
/// None, once `scratch` has met images and views of this size.
///
/// # Panics
/// As [`resize`] and [`render_image`], when the lengths do not agree.
pub fn render_source(
    recipe: &Recipe,
    sample: u64,
    view: &View,
    source: &Source,
    out: &mut [u8],
    scratch: &mut Scratch,
    counts: &mut OpCounts,
) {
    let mut framed = std::mem::take(&mut scratch.framed);
    framed.resize(view.target.rgb_bytes(), 0);
    resize(view, source, &mut framed, scratch);
    render_image(recipe, sample, &framed, out, scratch, counts);
    scratch.framed = framed;
}

/// Renders samples one after another into one buffer: row n of `out` is the n-th sample.
///
/// `image` gives a sample's pixels. Everything else is as for [`render_image`].
///
/// # Panics
/// When `out` does not hold exactly one image for each index, and as [`render_image`].
pub fn render_batch<'a>(
    recipe: &Recipe,
    indices: impl Iterator<Item = u64>,
    image: impl Fn(u64) -> &'a [u8],
    out: &mut [u8],
    scratch: &mut Scratch,
    counts: &mut OpCounts,
) {
    let mut images = out.chunks_mut(recipe.shape().rgb_bytes());
    let mut samples = indices.map(|index| (index, image(index)));
    // Shuffled images are all over the memory: ask for the next one while this one is made. Before
    // that, the processor has to find its pages, which takes as long again: that begins one earlier.
    let beginning = |sample: Option<(u64, &'a [u8])>| {
        sample.map_or(&[][..], |(_, pixels)| &pixels[..pixels.len().min(PREFETCHED_MAX)])
    };
    let [mut next, mut second] = [samples.next(), samples.next()];
    while let Some((index, pixels)) = next {
        (next, second) = (second, samples.next());
        if let [first, .., last] = beginning(second) {
            prefetch(scratch.level(), std::slice::from_ref(first));
            prefetch(scratch.level(), std::slice::from_ref(last));
        }
        let out = images.next().expect("the output holds one image for each index");
        render_before(recipe, index, pixels, beginning(next), out, scratch, counts);
    }
    assert!(images.next().is_none(), "the output holds more images than there are indices");
}

/// Crop, flip and cutout of one sample, as what each row of the output is made of.
pub(crate) struct Placement<'a> {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) mean: [u8; 3],
    mean_row: &'a [u8],
    /// Output column or row minus source column or row, before the flip.
    pub(crate) shift: (isize, isize),
    pub(crate) flip: bool,
    /// Columns and rows that the cutout erases, after the flip.
    pub(crate) hole: (Range<usize>, Range<usize>),
}

impl<'a> Placement<'a> {
    fn new(recipe: &'a Recipe, draws: BaseDraws) -> Placement<'a> {
        let (shape, base) = (recipe.shape(), &recipe.spec().base);
        let (width, height) = (shape.width as usize, shape.height as usize);
        let padding = base.pad_crop.unwrap_or(0) as isize;
        let hole = match base.cutout {
            Some(size) => (span(draws.cutout.0, size, shape.width), span(draws.cutout.1, size, shape.height)),
            None => (0..0, 0..0),
        };
        Placement {
            width,
            height,
            mean: recipe.spec().mean,
            mean_row: recipe.mean_row(),
            shift: (padding - draws.crop.0 as isize, padding - draws.crop.1 as isize),
            flip: draws.flip,
            hole,
        }
    }

    /// Whether there is nothing to do but to copy.
    #[cfg(target_arch = "x86_64")]
    fn rests(&self) -> bool {
        self.shift == (0, 0) && !self.flip && self.hole.0.is_empty()
    }

    /// Writes the output from an image as it stands in the dataset.
    #[allow(unsafe_code)]
    fn write_rgb(&self, pixels: &[[u8; 3]], out: &mut [u8], scratch: &mut Scratch) {
        match scratch.level().kind() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level that exists was detected.
            Kind::Avx512 if !self.rests() => unsafe {
                simd::avx512::place_rgb(self, &mut scratch.shown, pixels, out)
            },
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => self.write(pixels, out, |source, out, mirrored| {
                // SAFETY: a level that exists was detected.
                let done = if mirrored { unsafe { simd::avx2::mirror(source, out) } } else { 0 };
                copy_row(&source[..source.len() - done], &mut out[3 * done..], mirrored);
            }),
            _ => self.write(pixels, out, copy_row),
        }
    }

    /// Writes the output from an image as it stands in the dataset, through tables.
    #[allow(unsafe_code)]
    fn write_looked_up(&self, pixels: &[[u8; 3]], out: &mut [u8], scratch: &mut Scratch) {
        let tables = &scratch.tables;
        match scratch.level().kind() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level that exists was detected.
            Kind::Avx512 => unsafe {
                simd::avx512::place_rgb_looked_up(self, &mut scratch.shown, pixels, tables.each_ref(), out);
            },
            _ => self.write(pixels, out, |source, out, mirrored| {
                copy_row(source, out, mirrored);
                for pixel in out.as_chunks_mut::<3>().0 {
                    let [r, g, b] = *pixel;
                    let [red, green, blue] = tables;
                    *pixel = [red[usize::from(r)], green[usize::from(g)], blue[usize::from(b)]];
                }
            }),
        }
    }

    /// Writes the output from a working image, with its holes in the mean colour.
    #[allow(unsafe_code)]
    fn write_rgba(&self, image: &mut Rgba, out: &mut [u8], scratch: &mut Scratch) {
        match scratch.level().kind() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level that exists was detected.
            Kind::Avx512 => unsafe {
                simd::avx512::place_rgba(self, &mut scratch.shown, image.pixels(), out);
            },
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => self.write(image.pixels(), out, |source, out, mirrored| {
                // SAFETY: a level that exists was detected.
                let done = unsafe { simd::avx2::pack(source, out, mirrored, self.mean) };
                let left = if mirrored { 0..source.len() - done } else { done..source.len() };
                pack_row(&source[left], &mut out[3 * done..], mirrored, self.mean);
            }),
            Kind::Portable => {
                image.fill_holes(self.mean);
                self.write(image.pixels(), out, drop_alpha);
            }
        }
    }

    /// Writes the output. `write_row` writes some neighbouring pixels of a row, mirrored or not.
    fn write<const CHANNELS: usize>(
        &self,
        pixels: &[[u8; CHANNELS]],
        out: &mut [u8],
        write_row: impl Fn(&[[u8; CHANNELS]], &mut [u8], bool),
    ) {
        let width = self.width;
        if self.shift == (0, 0) && !self.flip {
            write_row(pixels, out, false);
        } else {
            self.write_rows(pixels, out, write_row);
        }
        let (columns, rows) = self.hole.clone();
        for y in rows {
            self.erase(&mut out[3 * width * y..3 * width * (y + 1)], columns.clone());
        }
    }

    /// Crop and flip, row by row.
    fn write_rows<const CHANNELS: usize>(
        &self,
        pixels: &[[u8; CHANNELS]],
        out: &mut [u8],
        write_row: impl Fn(&[[u8; CHANNELS]], &mut [u8], bool),
    ) {
        let width = self.width;
        let (columns, rows) = (overlap(self.shift.0, width), overlap(self.shift.1, self.height));
        let first_column = columns.start.wrapping_add_signed(-self.shift.0);
        // Where the columns that show the image stand after the flip.
        let shown = if self.flip { width - columns.end..width - columns.start } else { columns.clone() };
        for (y, out) in out.chunks_exact_mut(3 * width).enumerate() {
            if rows.contains(&y) && !columns.is_empty() {
                let first = y.wrapping_add_signed(-self.shift.1) * width + first_column;
                let source = &pixels[first..first + columns.len()];
                write_row(source, &mut out[3 * shown.start..3 * shown.end], self.flip);
                self.erase(out, 0..shown.start);
                self.erase(out, shown.end..width);
            } else {
                self.erase(out, 0..width);
            }
        }
    }

    fn erase(&self, row: &mut [u8], columns: Range<usize>) {
        if columns.is_empty() {
            return;
        }
        row[3 * columns.start..3 * columns.end].copy_from_slice(&self.mean_row[..3 * columns.len()]);
    }
}

/// What of `0..len` is covered by `0..len` moved by `shift`.
fn overlap(shift: isize, len: usize) -> Range<usize> {
    let distance = shift.unsigned_abs();
    match distance < len {
        false => 0..0,
        true if shift < 0 => 0..len - distance,
        true => distance..len,
    }
}

/// The part inside `0..len` of `size` pixels about `centre`.
pub(crate) fn span(centre: u32, size: u32, len: u32) -> Range<usize> {
    let half = size / 2;
    let end = centre.saturating_add(size - half).min(len);
    centre.saturating_sub(half).min(end) as usize..end as usize
}

/// Copies pixels, mirrored or not.
fn copy_row(source: &[[u8; 3]], out: &mut [u8], mirrored: bool) {
    if !mirrored {
        return out.copy_from_slice(source.as_flattened());
    }
    let (quads_out, rest_out) = out.as_chunks_mut::<12>();
    let (rest, quads) = source.as_rchunks::<4>();
    for (quad, out) in quads.iter().rev().zip(quads_out) {
        let [a, b, c, d] = unpack(quad.as_flattened().as_array().expect("four times three bytes"));
        *out = pack([d, c, b, a]);
    }
    for (pixel, out) in rest.iter().rev().zip(rest_out.as_chunks_mut().0) {
        *out = *pixel;
    }
}

/// Writes pixels without their alpha, mirrored or not, with a colour for the holes.
#[cfg(target_arch = "x86_64")]
fn pack_row(source: &[[u8; 4]], out: &mut [u8], mirrored: bool, colour: [u8; 3]) {
    for (i, out) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let [r, g, b, a] = source[if mirrored { source.len() - 1 - i } else { i }];
        *out = if a == 0 { colour } else { [r, g, b] };
    }
}

/// Copies pixels without their alpha, mirrored or not.
fn drop_alpha(source: &[[u8; 4]], out: &mut [u8], mirrored: bool) {
    let (quads_out, rest_out) = out.as_chunks_mut::<12>();
    let rest_out = rest_out.as_chunks_mut::<3>().0;
    let words = |quad: [[u8; 4]; 4]| quad.map(u32::from_le_bytes);
    if mirrored {
        let (rest, quads) = source.as_rchunks::<4>();
        for (&[a, b, c, d], out) in quads.iter().rev().zip(quads_out) {
            *out = pack(words([d, c, b, a]));
        }
        for (&[r, g, b, _], out) in rest.iter().rev().zip(rest_out) {
            *out = [r, g, b];
        }
    } else {
        let (quads, rest) = source.as_chunks::<4>();
        for (&quad, out) in quads.iter().zip(quads_out) {
            *out = pack(words(quad));
        }
        for (&[r, g, b, _], out) in rest.iter().zip(rest_out) {
            *out = [r, g, b];
        }
    }
}
