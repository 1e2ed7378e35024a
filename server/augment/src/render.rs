//! From a sample's pixels to the pixels that go out.

use crate::call::OpCounts;
use crate::draws::BaseDraws;
use crate::frame::View;
use crate::image::Rgba;
use crate::ops::cutout::span;
use crate::ops::perform;
use crate::recipe::Recipe;
use crate::route::Route;
use crate::scratch::Scratch;
use crate::simd::level::prefetch;
use crate::simd::place::portable::Placement;
use crate::simd::resize::Source;

/// Bytes of the next image that are asked for: all of a small one. Of a large one, the processor
/// notices by then that it is read in order.
const PREFETCHED_MAX: usize = 4096;

/// Renders one sample: its policy, and crop, flip and cutout in the order that [`Base`](crate::Base) says.
///
/// `pixels` and `out` are interleaved red, green and blue bytes of the recipe's shape; `out` is
/// overwritten. `counts` gains one for each op that fired.
///
/// # Allocations
/// None, once `scratch` has met an image of this size.
///
/// # Panics
/// When `pixels` or `out` is not [`ImageShape::rgb_bytes`](crate::ImageShape::rgb_bytes) long.
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
    let draws = recipe.draw(level, sample, &mut scratch.calls);
    scratch.calls.actions().iter().for_each(|action| counts.add(action.op));
    let (placement, rgb) = (placed(recipe, draws), pixels.as_chunks().0);
    match scratch.calls.follows_base() {
        false => act(rgb, &placement, out, scratch, ask_for_more),
        true => act_on_placed(rgb, placement, out, scratch, ask_for_more),
    }
}

/// Crop and flip, then what is left to do.
#[inline(never)]
fn act_on_placed(
    rgb: &[[u8; 3]],
    placement: Placement,
    out: &mut [u8],
    scratch: &mut Scratch,
    ask_for_more: impl FnMut(),
) {
    let mut placed = std::mem::take(&mut scratch.placed);
    placed.resize(out.len(), 0);
    let (moves, cutout) = placement.split();
    moves.write_rgb(scratch.level(), rgb, &mut placed, &mut scratch.shown);
    act(placed.as_chunks().0, &cutout, out, scratch, ask_for_more);
    scratch.placed = placed;
}

/// The ops of an image, and what of its base augmentation comes after them.
#[inline(always)]
fn act(
    rgb: &[[u8; 3]],
    placement: &Placement,
    out: &mut [u8],
    scratch: &mut Scratch,
    mut ask_for_more: impl FnMut(),
) {
    let level = scratch.level();
    let route = Route::of(level, scratch.calls.actions(), rgb, &mut scratch.tables);
    ask_for_more();
    if route != Route::Work {
        ask_for_more(); // there will be no better moment
    }
    match route {
        Route::Copy => placement.write_rgb(level, rgb, out, &mut scratch.shown),
        Route::LookUp => {
            let Scratch { tables, shown, .. } = scratch;
            placement.write_looked_up(level, tables.each_ref(), rgb, out, shown);
        }
        Route::Work => {
            let mut image = std::mem::replace(&mut scratch.image, Rgba::EMPTY);
            image.load_rgb(level, placement.shape(), rgb.as_flattened());
            for at in 0..scratch.calls.actions().len() {
                let action = scratch.calls.actions()[at];
                perform(&action, &mut image, scratch);
            }
            if scratch.calls.follows_base() {
                // What an op exposed is black, as with torchvision.
                image.make_opaque(level);
            }
            ask_for_more();
            placement.write_rgba(level, image.pixels(), out, &mut scratch.shown);
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

/// Fills `out` with what `view` shows of `source`.
///
/// `out` holds interleaved red, green and blue bytes of the view's target, and is overwritten. What
/// `source` holds beyond [`View::pixels`] does not matter.
///
/// # Allocations
/// None, once `scratch` has met a view of this size.
///
/// # Panics
/// When `out` has another length, when the source's pixels do not fill its place, or do not contain
/// [`View::pixels`].
pub fn resize(view: &View, source: &Source, out: &mut [u8], scratch: &mut Scratch) {
    scratch.resizer.resize(scratch.level(), view, source, out);
}

/// Where the base augmentation places a sample.
fn placed(recipe: &Recipe, draws: BaseDraws) -> Placement<'_> {
    let (shape, base) = (recipe.shape(), &recipe.spec().base);
    let (width, height) = (shape.width as usize, shape.height as usize);
    let padding = base.pad_crop.unwrap_or(0) as isize;
    let hole = base.cutout.map_or((0..0, 0..0), |size| {
        (span(draws.cutout.0, size, shape.width), span(draws.cutout.1, size, shape.height))
    });
    Placement {
        width,
        height,
        mean: recipe.spec().mean,
        mean_row: &recipe.mean_row,
        shift: (padding - draws.crop.0 as isize, padding - draws.crop.1 as isize),
        flip: draws.flip,
        hole,
    }
}
