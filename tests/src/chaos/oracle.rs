//! What must come: the plan and the pure library's pixels, sample by sample.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt8Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use pba_augment::{
    Base, Level, OpCounts, PixelBox, Plan, PlanSpec, Policies, Recipe, RecipeSpec, Scratch, Shard, Source,
    hole_color, render_image, render_source,
};
use pba_client::{EpochRequest, Query as _};
use pba_datasets::{Dataset, Images, RegionDecoder, SplitName};
use sha2::{Digest, Sha256};

use crate::chaos::harm::{Column, Harm, harness};

/// One batch as it must be.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) indices: Vec<u64>,
    pub(crate) labels: Vec<i64>,
    pub(crate) pixels: Vec<u8>,
}

impl Rows {
    /// SHA-256 over indices, labels (8 bytes each, little-endian) and pixels.
    pub(crate) fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        self.indices.iter().for_each(|index| hasher.update(index.to_le_bytes()));
        self.labels.iter().for_each(|label| hasher.update(label.to_le_bytes()));
        hasher.update(&self.pixels);
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// An epoch that a client asks for, and what must come.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) dataset: String,
    pub(crate) epoch: u32,
    pub(crate) request: EpochRequest,
    pub(crate) expected: Arc<Vec<Rows>>,
}

impl Order {
    /// An epoch with a schedule of the library, or none. The query must name its base augmentation.
    ///
    /// # Errors
    /// When the library refuses to make it: an image cannot be decoded.
    pub(crate) fn new(dataset: &Dataset, epoch: u32, query: &str) -> Result<Order, Harm> {
        let request = EpochRequest::from_query(query).map_err(|error| harness!("{query}: {error}"))?;
        let expected = Arc::new(expected(dataset, epoch, &request).map_err(|error| harness!("{error}"))?);
        Ok(Order { dataset: dataset.name.clone(), epoch, request, expected })
    }

    /// Its target, relative to the server.
    pub(crate) fn target(&self) -> String {
        format!("/v1/datasets/{}/epochs/{}/batches?{}", self.dataset, self.epoch, self.request.to_query())
    }

    /// Its samples.
    pub(crate) fn rows(&self) -> u64 {
        self.expected.iter().map(|rows| rows.indices.len() as u64).sum()
    }

    /// Bytes of its pixels.
    pub(crate) fn bytes(&self) -> u64 {
        self.expected.iter().map(|rows| rows.pixels.len() as u64).sum()
    }
}

/// A dataset as the library reads it, with a cache of its own.
pub(crate) fn dataset(name: &str, path: &Path, cache: &Path) -> Result<Dataset, String> {
    pba_datasets::open(name, path, cache, &|_| ControlFlow::Continue(())).map_err(|error| error.to_string())
}

/// The built-in dataset, from a data directory in which it is drawn.
pub(crate) fn shapes(data: &Path) -> Dataset {
    pba_datasets::shapes(&data.join("datasets"), &|_| ControlFlow::Continue(())).expect("it is drawn already")
}

/// The batches of a request.
pub(crate) fn expected(dataset: &Dataset, epoch: u32, request: &EpochRequest) -> Result<Vec<Rows>, String> {
    let name = request.split;
    let split = dataset.split(name).ok_or("no such split")?;
    let split = split.as_ref().map_err(ToString::to_string)?;
    let normalization = dataset.normalization(name).ok_or("the training split cannot be read")?;
    let base: Base = request.base.as_deref().ok_or("no base")?.parse().map_err(|error| format!("{error}"))?;
    let policies = match request.schedule.as_deref() {
        None | Some("none" | "identity") => Policies::None,
        Some(name) => {
            let schedule = pba_schedules::library::named(name).ok().flatten().ok_or("no such schedule")?;
            let epochs = request.epochs.unwrap_or(schedule.run_epochs(epoch));
            Policies::One(schedule.at(epoch, epochs).map_err(|error| error.to_string())?.clone())
        }
    };
    let shape = base.frame.shape().or(split.shape()).ok_or("images of different sizes")?;
    let mean = hole_color(normalization.mean);
    let recipe = Recipe::new(RecipeSpec { policies, base, seed: request.seed, epoch, mean, shape })
        .map_err(|error| error.to_string())?;
    let spec = PlanSpec {
        samples: split.len(),
        seed: request.seed,
        epoch,
        shuffle: request.shuffle.unwrap_or(name == SplitName::Train),
        shard: Shard { index: request.shard.0, count: request.shard.1 },
        batch_size: request.batch_size,
        drop_last: request.drop_last,
        start: request.start,
        step: request.step,
    };
    let plan = Plan::after(request.skip, spec).map_err(|error| error.to_string())?;
    // Plain code, image by image, where the server has SIMD and whole batches.
    let (mut scratch, mut counts) = (Scratch::with_level(Level::PORTABLE), OpCounts::default());
    let mut decoder = RegionDecoder::new();
    let mut batches = Vec::new();
    for number in 0..plan.batches() {
        let indices: Vec<u64> = plan.indices(number).collect();
        let mut pixels = vec![0; indices.len() * shape.rgb_bytes()];
        let labels = split.read(indices.iter().copied(), |samples| {
            for (&index, out) in indices.iter().zip(pixels.chunks_exact_mut(shape.rgb_bytes())) {
                match samples.images() {
                    Images::Decoded(images) if recipe.spec().base.frame.shape().is_none() => {
                        render_image(&recipe, index, images.image(index), out, &mut scratch, &mut counts);
                    }
                    Images::Decoded(images) => {
                        let place = PixelBox::whole(images.shape());
                        let source = Source { pixels: images.image(index), place, reduction: 1 };
                        let view = recipe.view(index, images.shape());
                        render_source(&recipe, index, &view, &source, out, &mut scratch, &mut counts);
                    }
                    Images::Encoded(images) => {
                        let view = recipe.view(index, images.size(index));
                        let reduction = view.reduction();
                        let bytes = images.bytes(index).map_err(|error| error.to_string())?;
                        let part = decoder.decode(bytes, view.pixels(reduction), reduction);
                        let part = part.map_err(|error| format!("sample {index}: {error}"))?;
                        let source = Source { pixels: part.pixels, place: part.place, reduction };
                        render_source(&recipe, index, &view, &source, out, &mut scratch, &mut counts);
                    }
                }
            }
            Ok::<_, String>(indices.iter().map(|&index| samples.label(index)).collect())
        });
        let labels = labels.map_err(|error| error.to_string())??;
        batches.push(Rows { indices, labels, pixels });
    }
    Ok(batches)
}

/// Judges the batches of an epoch as they come.
pub(crate) struct Judge {
    expected: Arc<Vec<Rows>>,
    pub(crate) received: usize,
    seen: HashSet<u64>,
}

impl Judge {
    pub(crate) fn new(order: &Order) -> Judge {
        Judge { expected: Arc::clone(&order.expected), received: 0, seen: HashSet::new() }
    }

    /// The batch that has to come next; none when all have.
    pub(crate) fn due(&self) -> Option<&Rows> {
        self.expected.get(self.received)
    }

    /// Takes the next batch, whose indices are these; `is_right` says whether all else is as it should be.
    pub(crate) fn take(&mut self, indices: &[u64], is_right: impl Fn(&Rows) -> bool) -> Result<(), Harm> {
        let number = self.received;
        if let Some(repeated) = indices.iter().find(|index| self.seen.contains(index)) {
            return Err(Harm::new(Column::Repeated, format!("sample {repeated} again in batch {number}")));
        }
        let Some(due) = self.due() else {
            return Err(Harm::new(Column::Repeated, format!("a batch after the last, number {number}")));
        };
        if due.indices != indices {
            let missing = due.indices.iter().find(|index| !indices.contains(index));
            return Err(Harm::new(Column::Lost, format!("sample {missing:?} is not in batch {number}")));
        }
        if !is_right(due) {
            return Err(Harm::new(Column::WrongPixels, format!("in batch {number}")));
        }
        self.seen.extend(indices);
        self.received += 1;
        Ok(())
    }

    /// Takes the next batch as it came, compared column by column.
    pub(crate) fn take_columns(&mut self, batch: &RecordBatch) -> Result<(), Harm> {
        let column = |name| batch.column_by_name(name).ok_or_else(|| harness!("no column {name}"));
        let images = column("image")?.as_fixed_size_list();
        let (start, length) = (images.value_offset_at(0), images.value_length() as usize);
        let pixels = &images.values().as_primitive::<UInt8Type>().values()[start..];
        let labels = column("label")?.as_primitive::<Int64Type>().values();
        self.take(column("index")?.as_primitive::<UInt64Type>().values(), |due| {
            labels[..] == due.labels[..] && pixels[..length * images.len()] == due.pixels[..]
        })
    }

    /// The epoch has come to its end.
    pub(crate) fn end(&self) -> Result<(), Harm> {
        match self.due() {
            None => Ok(()),
            Some(_) => {
                let (received, expected) = (self.received, self.expected.len());
                Err(Harm::new(
                    Column::Lost,
                    format!("the epoch ended after {received} of {expected} batches"),
                ))
            }
        }
    }
}
