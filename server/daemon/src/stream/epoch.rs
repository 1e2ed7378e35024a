//! One epoch of a stream: its samples, their batches and their augmentation.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use arrow_ipc::CompressionType;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use pba_augment::{Plan, Recipe};
use pba_types::SplitName;
use pba_wire::checksum::Head;

use crate::catalog::datasets::SplitHandle;
use crate::metrics::Stage;
use crate::stream::encode::{Layout, batch_head, compressed_batch, record_batch};
use crate::stream::engine::Engine;
use crate::stream::pool::Workspace;
use crate::stream::samples::{self, Rendered};

/// Bytes for a batch's header in front of its body, in a slot; one page, so that bodies are
/// page-aligned. Headers take some 500 bytes.
const SLOT_HEADER_BYTES: usize = 4096;

/// A checked epoch, made by [`Resolver`](crate::stream::resolve::Resolver).
pub(crate) struct Epoch {
    pub(super) engine: Arc<Engine>,
    pub(crate) dataset: String,
    pub(super) split_name: SplitName,
    pub(crate) split: SplitHandle,
    pub(crate) recipe: Recipe,
    pub(crate) plan: Plan,
    pub(super) schema: SchemaRef,
    /// Compression of the buffers inside the messages, if any.
    pub(crate) codec: Option<CompressionType>,
    /// The message that opens the stream, and its checksum.
    pub(super) opening: (Bytes, u64),
    /// Of each batch but perhaps the last, which may be shorter.
    pub(super) head: Head,
    /// Source of the images' policies, for captions: name of a schedule, or `none`, `identity`, `a policy`.
    pub(crate) schedule: String,
}

/// One encoded batch: the bytes that go out.
pub(crate) struct EncodedBatch {
    /// What precedes the body, with the message's checksum.
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
}

impl Epoch {
    /// Renders samples of this epoch into `out`, one after another.
    ///
    /// # Errors
    /// When an image can no longer be decoded, with dataset, split and sample.
    pub(crate) fn render(
        &self,
        indices: impl Iterator<Item = u64>,
        out: &mut [u8],
        workspace: &mut Workspace,
    ) -> anyhow::Result<Rendered> {
        samples::render(&self.recipe, &self.split, &self.engine.decoded, indices, out, workspace)
            .with_context(|| format!("dataset {:?}, split {}", self.dataset, self.split_name))
    }

    /// Augments and encodes the n-th batch of this answer: the work of one job.
    ///
    /// # Errors
    /// When an image can no longer be decoded, or compression fails.
    pub(crate) fn batch(&self, n: u64, workspace: &mut Workspace) -> anyhow::Result<EncodedBatch> {
        let layout = self.layout(n);
        let mut buffer = self.engine.buffers.take(layout.len);
        self.write_body(n, &layout, buffer.as_mut(), workspace)?;

        let start = Instant::now();
        let body = Bytes::from_owner(buffer);
        let batch = match self.codec {
            None => {
                let head = self.head(n, &layout);
                EncodedBatch { head: head.with(head.checksum(&body)).into(), body }
            }
            Some(codec) => {
                let batch = record_batch(&self.schema, &layout, body)?;
                let (head, body) = compressed_batch(&batch, codec, self.opening.1)?;
                EncodedBatch { head, body }
            }
        };
        self.engine.metrics.stage(Stage::Encode).observe(start.elapsed().as_secs_f64());
        Ok(batch)
    }

    /// Bytes that [`Epoch::batch_into`] needs for any batch of this answer.
    pub(crate) fn slot_bytes(&self) -> usize {
        SLOT_HEADER_BYTES + if self.plan.batches() == 0 { 0 } else { self.layout(0).len }
    }

    /// Writes the n-th batch of this answer into a slot, uncompressed. Returns the part of the slot
    /// that holds the batch's message; the rest is unchanged.
    ///
    /// # Errors
    /// When an image can no longer be decoded, or the message's header has no room, which is a bug.
    pub(crate) fn batch_into(
        &self,
        n: u64,
        slot: &mut [u8],
        workspace: &mut Workspace,
    ) -> anyhow::Result<Range<usize>> {
        let layout = self.layout(n);
        let (head, body) = slot.split_at_mut(SLOT_HEADER_BYTES);
        let body = &mut body[..layout.len];
        self.write_body(n, &layout, body, workspace)?;

        let start = Instant::now();
        let written = self.head(n, &layout);
        let written = written.unset();
        anyhow::ensure!(written.len() <= head.len(), "the head of a batch takes {} bytes", written.len());
        let message = SLOT_HEADER_BYTES - written.len()..SLOT_HEADER_BYTES + layout.len;
        head[message.start..].copy_from_slice(written);
        self.engine.metrics.stage(Stage::Encode).observe(start.elapsed().as_secs_f64());
        Ok(message)
    }

    fn head(&self, n: u64, layout: &Layout) -> Cow<'_, Head> {
        match self.plan.len_of(n) {
            rows if rows == self.plan.len_of(0) => Cow::Borrowed(&self.head),
            rows => Cow::Owned(batch_head(rows, layout, self.opening.1)),
        }
    }

    fn layout(&self, n: u64) -> Layout {
        Layout::new(self.plan.len_of(n), self.recipe.shape().rgb_bytes())
    }

    /// Augments the n-th batch into the body of its message: every byte of it is written.
    ///
    /// # Errors
    /// When an image can no longer be decoded.
    fn write_body(
        &self,
        n: u64,
        layout: &Layout,
        body: &mut [u8],
        workspace: &mut Workspace,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        // Finding a shuffled sample takes as long as copying some of its rows, so it is done once:
        // the other columns read the indices where they were written.
        let (columns, indices) = body.split_at_mut(layout.index.start);
        let (indices, _) = indices[..layout.index.len()].as_chunks_mut();
        for (index, value) in self.plan.indices(n).zip(indices.iter_mut()) {
            *value = u64::to_le_bytes(index);
        }
        let indices = || indices.iter().map(|value| u64::from_le_bytes(*value));
        let rendered = self.render(indices(), &mut columns[layout.image.clone()], workspace)?;
        let (labels, _) = columns[layout.label.clone()].as_chunks_mut();
        for (label, value) in rendered.labels.iter().zip(labels) {
            *value = label.to_le_bytes();
        }
        // What lies between the columns is sent too, so it must not depend on the buffer's past.
        body[layout.image.end..layout.label.start].fill(0);
        body[layout.label.end..layout.index.start].fill(0);
        body[layout.index.end..].fill(0);
        let metrics = &self.engine.metrics;
        metrics.stage(Stage::Augment).observe(start.elapsed().as_secs_f64());
        let rows = self.plan.len_of(n) as u64;
        metrics.images_augmented.with_label_values(&[self.dataset.as_str()]).inc_by(rows);
        metrics.count_ops(rendered.ops.iter());
        if let Some(decoding) = rendered.decoded {
            metrics.stage(Stage::Decode).observe(decoding.time.as_secs_f64());
            metrics.decoded_cache_hits.inc_by(decoding.hits);
            metrics.decoded_cache_misses.inc_by(decoding.misses);
        }
        Ok(())
    }
}
