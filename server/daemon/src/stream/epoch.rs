//! One epoch of a stream: its samples, their batches and their augmentation.

use std::borrow::Cow;
use std::sync::Arc;

use anyhow::Context;
use arrow_ipc::CompressionType;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use pba_augment::{Plan, Recipe};
use pba_types::SplitName;
use pba_wire::checksum::Head;

use crate::catalog::served::SplitHandle;
use crate::stream::encode::{Layout, batch_head};
use crate::stream::engine::{Engine, SMALL_OPENING_BYTES};
use crate::stream::samples::{self, Rendered};
use crate::stream::workspace::Workspace;

/// Most pixels that one worker renders before it does something else, of sources or of what comes of them,
/// but at least one image: a usual batch of 128 images of 32x32 is one part, and takes 0.1 ms.
const PART_PIXELS_MAX: usize = 256 * 32 * 32;

/// A checked epoch, made by [`Resolver`](crate::stream::resolve::Resolver).
pub(crate) struct Epoch {
    pub(crate) engine: Arc<Engine>,
    pub(crate) dataset: String,
    pub(crate) split_name: SplitName,
    pub(crate) split: SplitHandle,
    pub(crate) recipe: Recipe,
    pub(crate) plan: Plan,
    /// The columns, without the metadata, which only the opening message has.
    pub(super) schema: SchemaRef,
    /// Compression of the buffers inside the messages, if any.
    pub(crate) codec: Option<CompressionType>,
    /// The message that opens the stream, and its checksum.
    pub(super) opening: (Bytes, u64),
    /// Of each batch but perhaps the last, which may be shorter.
    pub(super) head: Head,
    /// Source of the images' policies, for captions: name of a schedule, or `none`, `identity`, `a policy`.
    pub(crate) schedule: String,
    /// Epochs of the run, where the policies depend on them.
    pub(crate) epochs: Option<u32>,
}

impl Epoch {
    /// Renders samples of this epoch into `out`, one after another.
    ///
    /// # Errors
    /// When an image can no longer be decoded, with dataset, split and sample.
    pub(crate) fn render(
        &self,
        indices: &[u64],
        out: &mut [u8],
        workspace: &mut Workspace,
    ) -> anyhow::Result<Rendered> {
        samples::render(&self.recipe, &self.split, &self.engine.decoded, indices, out, workspace)
            .with_context(|| format!("dataset {:?}, split {}", self.dataset, self.split_name))
    }

    /// The message that opens the stream.
    pub(crate) fn schema_message(&self) -> &[u8] {
        &self.opening.0
    }

    /// Memory that the message takes which opens the stream, if it is counted.
    pub(crate) fn opening_bytes(&self) -> u64 {
        let bytes = self.opening.0.len() as u64;
        if bytes > SMALL_OPENING_BYTES { bytes } else { 0 }
    }

    /// Length of the largest body of this answer: of each batch but perhaps the last.
    pub(crate) fn body_bytes_max(&self) -> usize {
        if self.plan.batches() == 0 { 0 } else { self.layout(0).len }
    }

    /// How many of so many images are rendered by one worker at a time, about as many each time: at least 1.
    pub(crate) fn images_of_part(&self, images: usize) -> usize {
        let [_, source] = self.split.sizes();
        let pixels = [source, self.recipe.shape()].map(|shape| shape.height as usize * shape.width as usize);
        let images_max = (PART_PIXELS_MAX / pixels[0].max(pixels[1]).max(1)).max(1);
        images.div_ceil(images.div_ceil(images_max).max(1)).max(1)
    }

    /// The head of the n-th batch's message, whose checksum is open.
    pub(super) fn head(&self, n: u64, layout: &Layout) -> Cow<'_, Head> {
        match self.plan.len_of(n) {
            rows if rows == self.plan.len_of(0) => Cow::Borrowed(&self.head),
            rows => Cow::Owned(batch_head(rows, layout, self.opening.1)),
        }
    }

    /// The layout of the n-th batch's body.
    pub(super) fn layout(&self, n: u64) -> Layout {
        Layout::new(self.plan.len_of(n), self.recipe.shape().rgb_bytes())
    }
}
