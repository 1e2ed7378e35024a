//! Resolves a request for an epoch.
//!
//! [`EpochRequest`] is what the client wrote; [`Epoch`] is what the server trusts: every name is
//! resolved and every number in range, so that nothing later can fail because of the client.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_ipc::CompressionType;
use bytes::Bytes;
use pba_augment::{
    Base, ImageShape, Plan, PlanError, PlanSpec, Policies, Recipe, RecipeSpec, Shard, hole_color,
};
use pba_datasets::{Normalization, Split};
use pba_schedules::{Ablation, Digest, Pairs, Policy};
use pba_types::SplitName;
use pba_types::limits::BATCH_SIZE_MAX;
use pba_wire::{EpochRequest, stream};

use crate::catalog::datasets::Catalog;
use crate::catalog::schedules::Registry;
use crate::error::Error;
use crate::stream::budget::Reservation;
use crate::stream::encode::{Layout, batch_head, schema_message};
use crate::stream::engine::{Engine, SMALL_OPENING_BYTES};
use crate::stream::epoch::Epoch;
use crate::stream::recipe_digest::RecipeDigest;

/// Largest batch that is compressed, in bytes before that. A column is compressed in one step, for which it takes a
/// worker a quarter of a second at most.
const COMPRESSED_BYTES_MAX: u64 = 64 << 20;

/// Memory that the message takes which opens a stream while it is made, in bytes for each byte of the classes' names.
const OPENING_TIMES: u64 = 5;

/// The schedule that leaves images as they are.
const IDENTITY: &str = "identity";

/// What may be asked for in place of a schedule.
pub(crate) const UNSCHEDULED: [&str; 2] = ["none", IDENTITY];

/// Everything that is needed to resolve a request.
pub(crate) struct Resolver<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) registry: &'a Registry,
    pub(crate) engine: &'a Arc<Engine>,
}

/// The policies, with the name and digest to report to the client.
struct Chosen {
    policies: Policies,
    digest: String,
    name: String,
    /// Epochs of the run, where the policies depend on them.
    epochs: Option<u32>,
    ablation: Ablation,
}

impl Resolver<'_> {
    /// Checks a request.
    ///
    /// # Errors
    /// For a name that is unknown, a split that could not be read, or a parameter that is wrong.
    pub(crate) fn resolve(
        &self,
        dataset: &str,
        epoch: u32,
        request: &EpochRequest,
        codec: Option<CompressionType>,
    ) -> Result<Epoch, Error> {
        let served = self.catalog.get(dataset)?.served()?;
        let (split, Normalization { mean, std }) = served.split(request.split)?;
        let chosen = self.policies(epoch, request)?;
        let own = served.base_of(request.split)?;
        let base = base(request, own)?;
        let shape = shape(dataset, request, &base, own, &split)?;

        let plan = plan(split.len(), epoch, request)?;
        let rows_max = if plan.batches() == 0 { 0 } else { plan.len_of(0) };
        let row_bytes = shape.rgb_bytes() as u64 + 16;
        let bytes_max = self.engine.limits.batch_bytes_max;
        let (bytes_max, kind) = match codec {
            Some(_) => (bytes_max.min(COMPRESSED_BYTES_MAX), " for a compressed one"),
            None => (bytes_max, ""),
        };
        let batch_bytes = rows_max as u64 * row_bytes;
        if batch_bytes > bytes_max {
            let rows = (bytes_max / row_bytes).max(1);
            return Err(Error::parameter(
                "batch_size",
                request.batch_size,
                format!("a batch of {batch_bytes} bytes exceeds this server's limit of {bytes_max}{kind}"),
                format!("1..={rows} for images of {}x{}", shape.height, shape.width),
            ));
        }

        let recipe_digest = RecipeDigest {
            dataset: split.digest(),
            samples: split.len(),
            shape,
            schedule: &chosen.digest,
            epochs: chosen.epochs,
            ablation: chosen.ablation,
            base,
            seed: request.seed,
            is_shuffled: is_shuffled(request),
            drops_last: request.drop_last,
            mean,
            std,
        };
        let recipe_digest = recipe_digest.digest();
        let recipe = Recipe::new(RecipeSpec {
            policies: chosen.policies,
            base,
            seed: request.seed,
            epoch,
            mean: hole_color(mean),
            shape,
        });
        let given = request.base.as_deref().unwrap_or("");
        let recipe =
            recipe.map_err(|error| Error::parameter("base", given, error, "steps that fit the images"))?;

        let names = split.classes().iter().map(|name| name.len() as u64 + 3).sum::<u64>();
        let opening_memory = self.engine.memory_for_opening(OPENING_TIMES * names)?;
        let json = |values: [f64; 3]| serde_json::to_string(&values).expect("numbers are JSON");
        let metadata = [
            (stream::VERSION, crate::version::VERSION.to_owned()),
            (stream::DATASET, split.digest().to_string()),
            (stream::SCHEDULE, chosen.digest),
            (stream::RECIPE, recipe_digest.to_string()),
            (stream::EPOCH, epoch.to_string()),
            (stream::SEED, request.seed.to_string()),
            // Of which part of the epoch it is: so no two streams of a run have the same schema.
            (stream::SHARD, format!("{}/{}", request.shard.0, request.shard.1)),
            (stream::BATCH_SIZE, request.batch_size.to_string()),
            (stream::SKIP, request.skip.to_string()),
            (stream::START, request.start.to_string()),
            (stream::STEP, request.step.to_string()),
            (stream::BATCHES, plan.batches().to_string()),
            (stream::ROWS, plan.rows().to_string()),
            (stream::MEAN, json(mean)),
            (stream::STD, json(std)),
            (stream::CLASSES, serde_json::to_string(split.classes()).expect("names are JSON")),
        ];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).into();
        let schema = |metadata| stream::schema(shape.height, shape.width, metadata);
        let (bytes, checksum) = schema_message(&schema(metadata)).map_err(Error::internal)?;
        let opening = (with_memory(bytes, opening_memory), checksum);
        let layout = Layout::new(rows_max, shape.rgb_bytes());
        Ok(Epoch {
            engine: Arc::clone(self.engine),
            head: batch_head(rows_max, &layout, opening.1),
            opening,
            dataset: dataset.to_owned(),
            schema: Arc::new(schema(BTreeMap::new())),
            split_name: request.split,
            split,
            recipe,
            plan,
            codec,
            schedule: chosen.name,
            epochs: chosen.epochs,
        })
    }

    fn policies(&self, epoch: u32, request: &EpochRequest) -> Result<Chosen, Error> {
        let out_of_range = |epochs: u32| {
            let allowed = format!("0..={}, or increase epochs", epochs - 1);
            Error::parameter("epoch", epoch, format!("out of range for a run of {epochs} epochs"), allowed)
        };
        if let Some(epochs) = request.epochs.filter(|epochs| epoch >= *epochs) {
            return Err(out_of_range(epochs));
        }
        let ablation = ablation(request)?;
        let unscheduled = |with: &str, policies, digest: &str, name: &str| match ablation {
            Ablation::Scheduled => {
                let (digest, name) = (digest.to_owned(), name.to_owned());
                Ok(Chosen { policies, digest, name, epochs: None, ablation })
            }
            // It alters a schedule; without one it would be silently ignored.
            _ => Err(Error::parameter(
                "ablation",
                request.ablation.as_deref().unwrap_or(""),
                format!("there is no schedule to ablate with {with}"),
                "an ablation together with the name or digest of a schedule",
            )),
        };
        match (&request.policy, request.schedule.as_deref()) {
            (Some(policy), Some(schedule)) => Err(Error::parameter(
                "policy",
                policy,
                format!("given together with schedule={schedule:?}; a policy replaces a schedule"),
                "either policy or schedule",
            )),
            (Some(text), None) => {
                let policy = Pairs::from_csv(text).map(Policy::Pairs).map_err(|error| {
                    let allowed =
                        "60 comma-separated integers: probability 0..=10 and magnitude 0..=9 of each slot";
                    Error::parameter("policy", text, error, allowed)
                })?;
                let digest = Digest::of(format!("pba-policy/1\n{:?}\n", policy.hyperparameters()));
                let digest = digest.to_string();
                unscheduled("policy", Policies::One(policy), &digest, &digest)
            }
            (None, None | Some("none")) => unscheduled("schedule=none", Policies::None, "none", "none"),
            (None, Some(IDENTITY)) => unscheduled("schedule=identity", Policies::None, IDENTITY, IDENTITY),
            (None, Some(name)) => {
                // A mistyped schedule is an error: the client wants augmentation.
                let schedule = self.registry.get(name).map_err(|error| error.or_one_of(&UNSCHEDULED))?;
                let epochs = request.epochs.unwrap_or(schedule.run_epochs(epoch));
                let policies = match schedule.ablated(ablation, epoch, epochs, request.seed) {
                    Ok(Some(policy)) => Policies::One(policy.clone()),
                    Ok(None) => Policies::AnyEpochOf(Arc::clone(&schedule)),
                    Err(_) => return Err(out_of_range(epochs)),
                };
                let (digest, name) = (schedule.digest().to_string(), schedule.name().to_owned());
                let epochs = (!schedule.is_constant()).then_some(epochs);
                Ok(Chosen { policies, digest, name, epochs, ablation })
            }
        }
    }
}

/// The message that opens a stream, with its memory until it is sent, unless it is small.
fn with_memory(bytes: Bytes, memory: Option<Reservation>) -> Bytes {
    let Some(mut memory) = memory.filter(|_| bytes.len() as u64 > SMALL_OPENING_BYTES) else { return bytes };
    memory.shrink_to(bytes.len() as u64);
    Bytes::from_owner(Opening { bytes, _memory: memory })
}

struct Opening {
    bytes: Bytes,
    _memory: Reservation,
}

impl AsRef<[u8]> for Opening {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn ablation(request: &EpochRequest) -> Result<Ablation, Error> {
    let Some(text) = &request.ablation else { return Ok(Ablation::default()) };
    Ablation::named(text)
        .ok_or_else(|| Error::parameter("ablation", text, "unknown ablation", Ablation::names()))
}

fn base(request: &EpochRequest, own: Base) -> Result<Base, Error> {
    let is_untouched = request.schedule.as_deref() == Some(IDENTITY);
    let Some(text) = &request.base else { return Ok(if is_untouched { Base::IDENTITY } else { own }) };
    let wrong = |reason: &str, allowed: &str| Error::parameter("base", text, reason, allowed);
    match text.parse::<Base>() {
        Err(error) => Err(wrong(
            &error.to_string(),
            "identity, or some of random_resized_crop:N (or resize:N,center_crop:N), pad_crop:N, flip and cutout:N \
             in this order, separated by commas",
        )),
        Ok(base) if is_untouched && base != Base::IDENTITY => Err(wrong(
            "schedule=identity leaves pixels untouched",
            "identity, or schedule=none for base augmentation only",
        )),
        Ok(base) => Ok(base),
    }
}

/// Size of every image sent: that of the base augmentation's output, or else that of all images.
fn shape(
    dataset: &str,
    request: &EpochRequest,
    base: &Base,
    own: Base,
    split: &Split,
) -> Result<ImageShape, Error> {
    if let Some(made) = base.frame.shape() {
        return Ok(made);
    }
    if let Some(shape) = split.shape() {
        return Ok(shape);
    }
    let (name, [smallest, largest]) = (request.split, split.sizes());
    let why = format!(
        "images of split {name} of dataset {dataset:?} differ in size ({}..={} x {}..={} pixels), \
         but those of a batch must not",
        smallest.height, largest.height, smallest.width, largest.width
    );
    let own = if own.frame.shape().is_some() { &own.to_string() } else { "random_resized_crop:224,flip" };
    let allowed = format!(
        "steps that begin with random_resized_crop:N or resize:N,center_crop:N, \
         such as {own}, with schedule=none or a schedule"
    );
    Err(Error::parameter("base", base, why, allowed))
}

fn is_shuffled(request: &EpochRequest) -> bool {
    request.shuffle.unwrap_or(request.split == SplitName::Train)
}

fn plan(samples: u64, epoch: u32, request: &EpochRequest) -> Result<Plan, Error> {
    let spec = PlanSpec {
        samples,
        seed: request.seed,
        epoch,
        shuffle: is_shuffled(request),
        shard: Shard { index: request.shard.0, count: request.shard.1 },
        batch_size: request.batch_size,
        drop_last: request.drop_last,
        start: request.start,
        step: request.step,
    };
    Plan::after(request.skip, spec).map_err(|error| {
        let wrong =
            |parameter, value: String, allowed: &str| Error::parameter(parameter, value, &error, allowed);
        match &error {
            PlanError::Start { start, batches } => {
                wrong("start", start.to_string(), &format!("0..={batches}"))
            }
            PlanError::Skip { skip, samples } => wrong("skip", skip.to_string(), &format!("0..={samples}")),
            PlanError::BatchSize { batch_size } => {
                wrong("batch_size", batch_size.to_string(), &format!("1..={BATCH_SIZE_MAX}"))
            }
            PlanError::Step => wrong("step", request.step.to_string(), "1 or more"),
            _ => wrong("shard", format!("{}/{}", request.shard.0, request.shard.1), "i/n with i in 0..n"),
        }
    })
}
