//! From a request for an epoch to the batches that answer it.
//!
//! [`EpochRequest`] is what the client wrote; [`Epoch`] is what the server trusts: every name is
//! resolved and every number in range, so that what follows cannot fail for the client's fault.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use arrow_ipc::CompressionType;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use pba_augment::{
    Base, ImageShape, Plan, PlanError, PlanSpec, Policies, Recipe, RecipeSpec, Shard, hole_color,
};
use pba_datasets::{Images, Normalization, Split};
use pba_schedules::{Ablation, Digest, EpochPolicies, Policy, Schedule};
use pba_types::SplitName;
use pba_types::limits::BATCH_SIZE_MAX;
use pba_wire::epoch::EpochRequest;
use pba_wire::stream;

use crate::buffers::BufferPool;
use crate::catalog::{Catalog, Entry, SplitHandle};
use crate::decoded_cache::DecodedCache;
use crate::encode::{Codec, Layout, batch_header, compressed_batch, record_batch, schema_message};
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::pool::Workspace;
use crate::registry::Registry;
use crate::samples::{self, Rendered};

/// Room for a batch's header in front of its body, in a slot; a whole page, so that bodies begin at
/// pages. Headers take some 500 bytes.
const SLOT_HEADER_BYTES: usize = 4096;

/// A checked epoch: which samples, in which batches, augmented how.
pub struct Epoch {
    dataset: String,
    split_name: SplitName,
    split: SplitHandle,
    decoded: Arc<DecodedCache>,
    recipe: Recipe,
    plan: Plan,
    schema: SchemaRef,
    codec: Codec,
    /// Of each batch but perhaps the last, which may be shorter.
    header: Bytes,
    /// What the images' policies come from, for captions.
    schedule: String,
}

/// One encoded batch: the bytes that go out, in one or two parts.
pub struct EncodedBatch {
    /// The message's header, or the whole message when it is compressed.
    pub head: Bytes,
    /// The message's body.
    pub body: Option<Bytes>,
}

/// What an epoch is resolved against.
pub struct Resolver<'a> {
    /// The datasets.
    pub catalog: &'a Catalog,
    /// The schedules.
    pub registry: &'a Registry,
    /// Decoded pixels of images that are kept encoded.
    pub decoded: &'a Arc<DecodedCache>,
    /// The largest batch in memory.
    pub batch_bytes_max: u64,
}

/// Which policies, and the name and digest to tell the client.
struct Chosen {
    policies: Policies,
    digest: String,
    name: String,
    untouched: bool,
}

impl Resolver<'_> {
    /// Checks a request.
    ///
    /// # Errors
    /// `404` for unknown names, `422` for a split that could not be read, `400` for anything else.
    pub fn resolve(
        &self,
        dataset: &str,
        epoch: u32,
        request: &EpochRequest,
        codec: Codec,
    ) -> Result<Epoch, ApiError> {
        let entry = self.catalog.get(dataset)?;
        let split = entry.split(request.split)?;
        let chosen = self.policies(epoch, request)?;
        let base = base(request, &chosen, entry.base_of(request.split))?;
        let shape = shape(request, &base, &entry, &split)?;
        let Normalization { mean, std } = entry.normalization(request.split).expect("the split can be read");

        let plan = plan(split.len(), epoch, request)?;
        let rows_max = plan_rows_max(&plan);
        let batch_bytes = rows_max * (shape.rgb_bytes() as u64 + 16);
        if batch_bytes > self.batch_bytes_max {
            let rows = (self.batch_bytes_max / (shape.rgb_bytes() as u64 + 16)).max(1);
            return Err(ApiError::parameter(
                "batch_size",
                request.batch_size.to_string(),
                format!(
                    "a batch of {batch_bytes} bytes is over this server's bound of {}",
                    self.batch_bytes_max
                ),
                format!("1..={rows} for images of {}x{}", shape.height, shape.width),
            ));
        }

        let recipe = Recipe::new(RecipeSpec {
            policies: chosen.policies,
            base,
            seed: request.seed,
            epoch,
            mean: hole_color(mean),
            shape,
        })
        .map_err(|error| {
            ApiError::parameter(
                "base",
                request.base.clone().unwrap_or_default(),
                error.to_string(),
                "steps that fit the images",
            )
        })?;

        let json = |values: [f64; 3]| serde_json::to_string(&values).expect("numbers are JSON");
        let metadata = BTreeMap::from([
            (stream::VERSION, env!("CARGO_PKG_VERSION").to_owned()),
            (stream::DATASET, split.digest().to_string()),
            (stream::SCHEDULE, chosen.digest),
            (stream::EPOCH, epoch.to_string()),
            (stream::SEED, request.seed.to_string()),
            (stream::BATCHES, plan.batches().to_string()),
            (stream::ROWS, plan.rows().to_string()),
            (stream::MEAN, json(mean)),
            (stream::STD, json(std)),
            (stream::CLASSES, serde_json::to_string(split.classes()).expect("names are JSON")),
        ]);
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let rows_max = rows_max as usize;
        Ok(Epoch {
            header: batch_header(rows_max, &Layout::new(rows_max, shape.rgb_bytes())),
            dataset: dataset.to_owned(),
            schema: Arc::new(stream::schema(shape.height, shape.width, metadata)),
            split_name: request.split,
            split,
            decoded: Arc::clone(self.decoded),
            recipe,
            plan,
            codec,
            schedule: chosen.name,
        })
    }

    fn policies(&self, epoch: u32, request: &EpochRequest) -> Result<Chosen, ApiError> {
        if let Some(epochs) = request.epochs
            && epoch >= epochs
        {
            return Err(epoch_out_of_range(epoch, epochs));
        }
        let ablation = ablation(request)?;
        match (&request.policy, request.schedule.as_deref()) {
            (Some(policy), Some(schedule)) => Err(ApiError::parameter(
                "policy",
                policy,
                format!("given beside schedule={schedule:?}; a policy is used instead of a schedule"),
                "one of policy and schedule",
            )),
            (Some(text), None) => {
                let policy = Policy::from_csv(text).map_err(|error| {
                    ApiError::parameter(
                        "policy",
                        text,
                        error.to_string(),
                        "60 comma-separated integers: probability 0..=10 and magnitude 0..=9 of each slot",
                    )
                })?;
                no_ablation(ablation, request, "policy")?;
                let levels = policy.hyperparameters();
                let digest = Digest::of(format!("pba-policy/1\n{levels:?}\n")).to_string();
                Ok(Chosen {
                    policies: Policies::One(policy),
                    digest,
                    name: "a policy".to_owned(),
                    untouched: false,
                })
            }
            (None, None | Some("none")) => {
                no_ablation(ablation, request, "schedule=none")?;
                Ok(Chosen {
                    policies: Policies::None,
                    digest: "none".to_owned(),
                    name: "none".to_owned(),
                    untouched: false,
                })
            }
            (None, Some("identity")) => {
                no_ablation(ablation, request, "schedule=identity")?;
                let name = "identity".to_owned();
                Ok(Chosen { policies: Policies::None, digest: name.clone(), name, untouched: true })
            }
            (None, Some(name)) => {
                let schedule = self.registry.get(name).map_err(|_| {
                    let known = self.registry.list();
                    let known = known.iter().map(|schedule| schedule.name());
                    // Whoever mistypes a schedule wants augmentation.
                    ApiError::not_found("schedule", name, known).or_one_of(&["none", "identity"])
                })?;
                let epochs = request.epochs.unwrap_or(schedule.epochs());
                let policies =
                    scheduled(&schedule, ablation.unwrap_or_default(), epoch, epochs, request.seed)?;
                Ok(Chosen {
                    policies,
                    digest: schedule.digest().to_string(),
                    name: schedule.name().to_owned(),
                    untouched: false,
                })
            }
        }
    }
}

fn epoch_out_of_range(epoch: u32, epochs: u32) -> ApiError {
    ApiError::parameter(
        "epoch",
        epoch.to_string(),
        format!("out of range for a run of {epochs} epochs"),
        format!("0..={}, or a larger epochs", epochs - 1),
    )
}

fn scheduled(
    schedule: &Arc<Schedule>,
    ablation: Ablation,
    epoch: u32,
    epochs: u32,
    seed: u64,
) -> Result<Policies, ApiError> {
    match schedule.ablated(ablation, epoch, epochs, seed) {
        Ok(EpochPolicies::One(policy)) => Ok(Policies::One(policy.clone())),
        Ok(EpochPolicies::AnyEpochOf(_)) => Ok(Policies::AnyEpochOf(Arc::clone(schedule))),
        Err(_) => Err(epoch_out_of_range(epoch, epochs)),
    }
}

fn ablation(request: &EpochRequest) -> Result<Option<Ablation>, ApiError> {
    let Some(text) = &request.ablation else { return Ok(None) };
    let known = Ablation::ALL.iter().find(|(_, name)| name == text);
    match known {
        Some((ablation, _)) => Ok(Some(*ablation)),
        None => {
            let names = Ablation::ALL.map(|(_, name)| name).join(", ");
            Err(ApiError::parameter("ablation", text, "unknown ablation", names))
        }
    }
}

/// An ablation bends a schedule; without one it would be silently ignored.
fn no_ablation(ablation: Option<Ablation>, request: &EpochRequest, with: &str) -> Result<(), ApiError> {
    match ablation {
        None | Some(Ablation::Scheduled) => Ok(()),
        Some(_) => Err(ApiError::parameter(
            "ablation",
            request.ablation.clone().unwrap_or_default(),
            format!("there is no schedule to ablate with {with}"),
            "an ablation beside the name or digest of a schedule",
        )),
    }
}

fn base(request: &EpochRequest, chosen: &Chosen, own: Base) -> Result<Base, ApiError> {
    let base = match &request.base {
        Some(text) => text.parse::<Base>().map_err(|error| {
            ApiError::parameter(
                "base",
                text,
                error.to_string(),
                "identity, or some of random_resized_crop:N (or resize:N,center_crop:N), pad_crop:N, flip and cutout:N \
                 in this order, separated by commas",
            )
        })?,
        None if chosen.untouched => Base::IDENTITY,
        None => own,
    };
    if chosen.untouched && base != Base::IDENTITY {
        return Err(ApiError::parameter(
            "base",
            request.base.clone().unwrap_or_default(),
            "schedule=identity leaves pixels untouched",
            "identity, or schedule=none for base augmentation only",
        ));
    }
    Ok(base)
}

/// Size of every image that goes out: what the base augmentation makes, or else what all have.
fn shape(request: &EpochRequest, base: &Base, entry: &Entry, split: &Split) -> Result<ImageShape, ApiError> {
    if let Some(made) = base.frame.shape() {
        return Ok(made);
    }
    match split.images() {
        Images::Decoded(images) => Ok(images.shape()),
        Images::Encoded(images) => {
            let (name, (smallest, largest)) = (request.split, (images.smallest(), images.largest()));
            let why = format!(
                "images of split {name} of dataset {:?} differ in size ({}..={} x {}..={} pixels), and those of a batch cannot",
                entry.name(),
                smallest.height,
                largest.height,
                smallest.width,
                largest.width
            );
            let own = Some(entry.base_of(name)).filter(|own| own.frame.shape().is_some());
            let own = own.map_or("random_resized_crop:224,flip".to_owned(), |own| own.to_string());
            let allowed = format!(
                "steps that begin with random_resized_crop:N or resize:N,center_crop:N, as {own}, beside schedule=none or a schedule"
            );
            Err(ApiError::parameter("base", base.to_string(), why, allowed))
        }
    }
}

fn plan(samples: u64, epoch: u32, request: &EpochRequest) -> Result<Plan, ApiError> {
    Plan::new(PlanSpec {
        samples,
        seed: request.seed,
        epoch,
        shuffle: request.shuffle.unwrap_or(request.split == SplitName::Train),
        shard: Shard { index: request.shard.0, count: request.shard.1 },
        batch_size: request.batch_size,
        drop_last: request.drop_last,
        start: request.start,
        step: request.step,
    })
    .map_err(|error| {
        let (parameter, value, allowed) = match &error {
            PlanError::Start { start, batches } => ("start", start.to_string(), format!("0..={batches}")),
            PlanError::BatchSize { batch_size } => {
                ("batch_size", batch_size.to_string(), format!("1..={BATCH_SIZE_MAX}"))
            }
            PlanError::Step => ("step", request.step.to_string(), "1 and more".to_owned()),
            _ => {
                ("shard", format!("{}/{}", request.shard.0, request.shard.1), "i/n with i in 0..n".to_owned())
            }
        };
        ApiError::parameter(parameter, value, error.to_string(), allowed)
    })
}

/// Rows of the largest batch of a plan.
fn plan_rows_max(plan: &Plan) -> u64 {
    if plan.batches() == 0 { 0 } else { plan.len_of(0) as u64 }
}

impl Epoch {
    /// Name of the dataset.
    pub fn dataset(&self) -> &str {
        &self.dataset
    }

    /// The split's samples.
    pub fn split(&self) -> &SplitHandle {
        &self.split
    }

    /// Renders samples of this epoch into `out`, one after another.
    ///
    /// # Errors
    /// When an image does not decode any more, with dataset, split and sample.
    pub fn render(
        &self,
        indices: impl Iterator<Item = u64>,
        out: &mut [u8],
        workspace: &mut Workspace,
    ) -> anyhow::Result<Rendered> {
        samples::render(&self.recipe, &self.split, &self.decoded, indices, out, workspace)
            .with_context(|| format!("dataset {:?}, split {}", self.dataset, self.split_name))
    }

    /// How pixels are made.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Which samples stand in which batch.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Name of the schedule, or `none`, `identity`, `a policy`.
    pub fn schedule(&self) -> &str {
        &self.schedule
    }

    /// The message that opens the stream.
    ///
    /// # Errors
    /// When Arrow refuses the schema, which is our fault.
    pub fn schema_message(&self) -> anyhow::Result<Bytes> {
        schema_message(&self.schema)
    }

    /// Augments and encodes the n-th batch of this answer: the whole work of one job.
    ///
    /// # Errors
    /// When an image does not decode any more, or compression fails.
    pub fn batch(
        &self,
        n: u64,
        workspace: &mut Workspace,
        buffers: &BufferPool,
        metrics: &Metrics,
    ) -> anyhow::Result<EncodedBatch> {
        let layout = self.layout(n);
        let mut buffer = buffers.take(layout.len);
        self.write_body(n, &layout, buffer.as_mut(), workspace, metrics)?;

        let start = Instant::now();
        let body = Bytes::from_owner(buffer);
        let batch = match self.codec {
            Codec::Plain => EncodedBatch { head: self.header(n, &layout), body: Some(body) },
            Codec::Lz4 => self.compressed(&layout, body, CompressionType::LZ4_FRAME)?,
            Codec::Zstd => self.compressed(&layout, body, CompressionType::ZSTD)?,
        };
        metrics.stage_encode.observe(start.elapsed().as_secs_f64());
        Ok(batch)
    }

    /// Whether batches are sent as they are.
    pub fn is_plain(&self) -> bool {
        self.codec == Codec::Plain
    }

    /// Bytes that [`Epoch::batch_into`] needs for any batch of this answer.
    pub fn slot_bytes(&self) -> usize {
        SLOT_HEADER_BYTES + if self.plan.batches() == 0 { 0 } else { self.layout(0).len }
    }

    /// Writes the n-th batch of this answer into a slot, uncompressed. Gives the part of the slot
    /// that is the batch's message; the rest is left as it is.
    ///
    /// # Errors
    /// When an image does not decode any more, or the message's header has no room, which is our fault.
    pub fn batch_into(
        &self,
        n: u64,
        slot: &mut [u8],
        workspace: &mut Workspace,
        metrics: &Metrics,
    ) -> anyhow::Result<Range<usize>> {
        let layout = self.layout(n);
        let (head, body) = slot.split_at_mut(SLOT_HEADER_BYTES);
        let body = &mut body[..layout.len];
        self.write_body(n, &layout, body, workspace, metrics)?;

        let start = Instant::now();
        let header = self.header(n, &layout);
        anyhow::ensure!(header.len() <= head.len(), "the header of a batch takes {} bytes", header.len());
        let message = SLOT_HEADER_BYTES - header.len()..SLOT_HEADER_BYTES + layout.len;
        head[message.start..].copy_from_slice(&header);
        metrics.stage_encode.observe(start.elapsed().as_secs_f64());
        Ok(message)
    }

    fn header(&self, n: u64, layout: &Layout) -> Bytes {
        match self.plan.len_of(n) {
            rows if rows == self.plan.len_of(0) => self.header.clone(),
            rows => batch_header(rows, layout),
        }
    }

    fn layout(&self, n: u64) -> Layout {
        Layout::new(self.plan.len_of(n), self.recipe.shape().rgb_bytes())
    }

    /// Augments the n-th batch into the body of its message: every byte of it is written.
    ///
    /// # Errors
    /// When an image does not decode any more.
    fn write_body(
        &self,
        n: u64,
        layout: &Layout,
        body: &mut [u8],
        workspace: &mut Workspace,
        metrics: &Metrics,
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
        for (index, value) in indices().zip(labels) {
            *value = self.split.label(index).to_le_bytes();
        }
        // What lies between the columns is sent too, so it must not depend on the buffer's past.
        body[layout.image.end..layout.label.start].fill(0);
        body[layout.label.end..layout.index.start].fill(0);
        body[layout.index.end..].fill(0);
        metrics.stage_augment.observe(start.elapsed().as_secs_f64());
        let rows = self.plan.len_of(n) as u64;
        metrics.images_augmented.with_label_values(&[self.dataset.as_str()]).inc_by(rows);
        metrics.count_ops(rendered.ops.iter());
        if let Some(decoding) = rendered.decoded {
            metrics.stage_decode.observe(decoding.time.as_secs_f64());
            metrics.decoded_cache_hits.inc_by(decoding.hits);
            metrics.decoded_cache_misses.inc_by(decoding.misses);
        }
        Ok(())
    }

    fn compressed(
        &self,
        layout: &Layout,
        body: Bytes,
        codec: CompressionType,
    ) -> anyhow::Result<EncodedBatch> {
        let batch = record_batch(&self.schema, layout, body)?;
        Ok(EncodedBatch { head: compressed_batch(&batch, codec)?, body: None })
    }
}
