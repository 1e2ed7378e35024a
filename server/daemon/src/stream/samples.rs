//! Renders a split's samples to images, whether the split is stored as pixels or encoded.
//!
//! What is rendered is what was packed ([`Split::read`]); decoded pixels are kept once that is known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pba_augment::{ImageShape, OpCounts, PixelBox, Recipe, Source, render_batch, render_source};
use pba_datasets::{DatasetError, Encoded, ImageError, Images, Samples, Split, image_size};

use crate::stream::budget::Reservation;
use crate::stream::decoded_cache::{DecodedCache, Key};
use crate::stream::workspace::Workspace;

/// A sample that cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SampleError {
    /// Its image could be decoded when it was packed, but no longer can.
    #[error("sample {sample} can no longer be decoded: {error}")]
    Undecodable {
        /// Its index.
        sample: u64,
        /// Why.
        error: ImageError,
    },
    /// The packed file is damaged where it lies, or is being written to.
    #[error(transparent)]
    Damaged(#[from] DatasetError),
}

/// Statistics of rendering.
#[derive(Default)]
pub(crate) struct Rendered {
    pub(crate) ops: OpCounts,
    /// The class of each sample, compared with its checksum as its image is.
    pub(crate) labels: Vec<i64>,
    /// Of encoded images.
    pub(crate) decoded: Option<Decoding>,
}

/// How the pixels of encoded images were obtained.
#[derive(Default)]
pub(crate) struct Decoding {
    /// Time spent decoding, which is part of the time of rendering.
    pub(crate) time: Duration,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
}

/// Renders samples one after another into `out`, with the recipe's shape for each.
///
/// # Errors
/// When the packed file is damaged where one of them lies, or at the first image that does not decode.
///
/// # Panics
/// When `out` does not hold exactly one image for each index, or an index is out of range; and when
/// images differ in size and the recipe has no frame, which request validation prevents.
pub(crate) fn render(
    recipe: &Recipe,
    split: &Split,
    cache: &DecodedCache,
    indices: &[u64],
    out: &mut [u8],
    workspace: &mut Workspace,
) -> Result<Rendered, SampleError> {
    let mut decoded = Vec::new();
    let rendered = split.read(indices.iter().copied(), |samples| {
        decoded.clear();
        attempt(recipe, split, samples, cache, indices, out, workspace, &mut decoded)
    })??;
    for (room, key, pixels) in decoded {
        cache.keep(room, key, pixels);
    }
    Ok(rendered)
}

/// Pixels to be kept, and the room for them.
type Decoded = (Reservation, Key, Arc<[u8]>);

/// Renders from a file that may be changing.
#[allow(clippy::too_many_arguments, reason = "those of `render`, and what it holds")]
fn attempt(
    recipe: &Recipe,
    split: &Split,
    samples: Samples<'_>,
    cache: &DecodedCache,
    indices: &[u64],
    out: &mut [u8],
    workspace: &mut Workspace,
    decoded: &mut Vec<Decoded>,
) -> Result<Rendered, SampleError> {
    let labels = indices.iter().map(|&index| samples.label(index)).collect();
    let mut rendered = Rendered { labels, ..Rendered::default() };
    let ops = &mut rendered.ops;
    let rows = out.chunks_exact_mut(recipe.shape().rgb_bytes());
    let indices = indices.iter().copied();
    match (samples.images(), recipe.spec().base.frame.shape()) {
        (Images::Decoded(images), None) => {
            let image = |index| images.image(index);
            render_batch(recipe, indices, image, out, &mut workspace.scratch, ops);
        }
        (Images::Decoded(images), Some(_)) => {
            let shape = images.shape();
            for (sample, out) in indices.zip(rows) {
                let source =
                    Source { pixels: images.image(sample), place: PixelBox::whole(shape), reduction: 1 };
                let view = recipe.view(sample, shape);
                render_source(recipe, sample, &view, &source, out, &mut workspace.scratch, ops);
            }
        }
        (Images::Encoded(images), _) => {
            let decoding = Decoding::default();
            let mut photos = Photos { recipe, split, images, cache, decoding, decoded };
            for (sample, out) in indices.zip(rows) {
                photos.render(sample, out, workspace, ops)?;
            }
            rendered.decoded = Some(photos.decoding);
        }
    }
    Ok(rendered)
}

/// Encoded images of a split on their way into a batch.
struct Photos<'a> {
    recipe: &'a Recipe,
    split: &'a Split,
    images: Encoded<'a>,
    cache: &'a DecodedCache,
    decoding: Decoding,
    /// What the cache has room for.
    decoded: &'a mut Vec<Decoded>,
}

impl Photos<'_> {
    fn render(
        &mut self,
        sample: u64,
        out: &mut [u8],
        workspace: &mut Workspace,
        ops: &mut OpCounts,
    ) -> Result<(), SampleError> {
        let shape = self.images.size(sample);
        let undecodable = |error| SampleError::Undecodable { sample, error };
        if shape.height == 0 || shape.width == 0 {
            // The file was cut after it was checked, and is read as zeros; it will be found damaged.
            return Err(undecodable(ImageError::Refused("has no pixels".to_owned())));
        }
        let view = self.recipe.view(sample, shape);
        // From here on, the image is what it is after its reduction. That is a function of the view
        // alone, so it is the same whatever the cache holds.
        let reduction = view.reduction();
        let whole =
            ImageShape { height: shape.height.div_ceil(reduction), width: shape.width.div_ceil(reduction) };
        // Pixels may lie in the decoder while the scratch is worked in.
        let Workspace { scratch, decoder } = workspace;
        let start = Instant::now();
        let key = Key { split: self.split.digest(), sample, reduction };
        let (complete, part);
        let (pixels, place) = match self.cache.get(&key) {
            Some(pixels) => {
                self.decoding.hits += 1;
                complete = pixels;
                (&*complete, PixelBox::whole(whole))
            }
            None => {
                self.decoding.misses += 1;
                let bytes = self.images.bytes(sample)?;
                let found = image_size(bytes).map_err(undecodable)?;
                if found != shape {
                    return Err(undecodable(ImageError::OtherSize { found, expected: shape }));
                }
                // When the cache has no room, only the needed part is decoded.
                let room = self.cache.room(whole.rgb_bytes());
                let pixels = if room.is_some() { PixelBox::whole(whole) } else { view.pixels(reduction) };
                part = decoder.decode(bytes, pixels, reduction).map_err(undecodable)?;
                if let Some(room) = room {
                    self.decoded.push((room, key, part.pixels.into()));
                }
                (part.pixels, part.place)
            }
        };
        self.decoding.time += start.elapsed();
        let source = Source { pixels, place, reduction };
        render_source(self.recipe, sample, &view, &source, out, scratch, ops);
        Ok(())
    }
}
