//! Resolves a request for an epoch.
//!
//! [`EpochRequest`] is what the client wrote; [`Epoch`] is what the server trusts: every name is
//! resolved and every number in range, so that nothing later can fail because of the client.

use std::collections::BTreeMap;
use std::sync::Arc;

use pba_augment::{
    Base, ImageShape, Plan, PlanError, PlanSpec, Policies, Recipe, RecipeSpec, Shard, hole_color,
};
use pba_datasets::{Images, Normalization, Split};
use pba_schedules::{Ablation, Digest, Pairs, Policy, Schedule};
use pba_types::SplitName;
use pba_types::limits::BATCH_SIZE_MAX;
use pba_wire::{EpochRequest, stream};

use crate::catalog::datasets::Catalog;
use crate::catalog::schedules::Registry;
use crate::error::Error;
use crate::stream::encode::{Codec, Layout, batch_header};
use crate::stream::engine::Engine;
use crate::stream::epoch::Epoch;

/// Everything that is needed to resolve a request.
pub(crate) struct Resolver<'a> {
    /// The datasets.
    pub(crate) catalog: &'a Catalog,
    /// The schedules.
    pub(crate) registry: &'a Registry,
    /// The resources that the epoch will use.
    pub(crate) engine: &'a Engine,
}

/// The policies, with the name and digest to report to the client.
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
    /// For a name that is unknown, a split that could not be read, or a parameter that is wrong.
    pub(crate) fn resolve(
        &self,
        dataset: &str,
        epoch: u32,
        request: &EpochRequest,
        codec: Codec,
    ) -> Result<Epoch, Error> {
        let served = self.catalog.get(dataset)?.served()?;
        let (split, Normalization { mean, std }) = served.split(request.split)?;
        let chosen = self.policies(epoch, request)?;
        let own = served.base_of(request.split);
        let base = base(request, &chosen, own)?;
        let shape = shape(dataset, request, &base, own, &split)?;

        let plan = plan(split.len(), epoch, request)?;
        let rows_max = plan_rows_max(&plan);
        let batch_bytes = rows_max * (shape.rgb_bytes() as u64 + 16);
        if batch_bytes > self.engine.limits.batch_bytes_max {
            let rows = (self.engine.limits.batch_bytes_max / (shape.rgb_bytes() as u64 + 16)).max(1);
            return Err(Error::parameter(
                "batch_size",
                request.batch_size.to_string(),
                format!(
                    "a batch of {batch_bytes} bytes exceeds this server's limit of {}",
                    self.engine.limits.batch_bytes_max
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
            Error::parameter(
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
            decoded: Arc::clone(&self.engine.decoded),
            recipe,
            plan,
            codec,
            schedule: chosen.name,
        })
    }

    fn policies(&self, epoch: u32, request: &EpochRequest) -> Result<Chosen, Error> {
        if let Some(epochs) = request.epochs
            && epoch >= epochs
        {
            return Err(epoch_out_of_range(epoch, epochs));
        }
        let ablation = ablation(request)?;
        match (&request.policy, request.schedule.as_deref()) {
            (Some(policy), Some(schedule)) => Err(Error::parameter(
                "policy",
                policy,
                format!("given together with schedule={schedule:?}; a policy replaces a schedule"),
                "either policy or schedule",
            )),
            (Some(text), None) => {
                let policy = Pairs::from_csv(text).map(Policy::Pairs).map_err(|error| {
                    Error::parameter(
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
                    // A mistyped schedule is an error: the client wants augmentation.
                    Error::not_found("schedule", name, known).or_one_of(&["none", "identity"])
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

fn epoch_out_of_range(epoch: u32, epochs: u32) -> Error {
    Error::parameter(
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
) -> Result<Policies, Error> {
    match schedule.ablated(ablation, epoch, epochs, seed) {
        Ok(Some(policy)) => Ok(Policies::One(policy.clone())),
        Ok(None) => Ok(Policies::AnyEpochOf(Arc::clone(schedule))),
        Err(_) => Err(epoch_out_of_range(epoch, epochs)),
    }
}

fn ablation(request: &EpochRequest) -> Result<Option<Ablation>, Error> {
    let Some(text) = &request.ablation else { return Ok(None) };
    let unknown = || Error::parameter("ablation", text, "unknown ablation", Ablation::names());
    Ablation::named(text).ok_or_else(unknown).map(Some)
}

/// An ablation alters a schedule; without one it would be silently ignored.
fn no_ablation(ablation: Option<Ablation>, request: &EpochRequest, with: &str) -> Result<(), Error> {
    match ablation {
        None | Some(Ablation::Scheduled) => Ok(()),
        Some(_) => Err(Error::parameter(
            "ablation",
            request.ablation.clone().unwrap_or_default(),
            format!("there is no schedule to ablate with {with}"),
            "an ablation together with the name or digest of a schedule",
        )),
    }
}

fn base(request: &EpochRequest, chosen: &Chosen, own: Base) -> Result<Base, Error> {
    let base = match &request.base {
        Some(text) => text.parse::<Base>().map_err(|error| {
            Error::parameter(
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
        return Err(Error::parameter(
            "base",
            request.base.clone().unwrap_or_default(),
            "schedule=identity leaves pixels untouched",
            "identity, or schedule=none for base augmentation only",
        ));
    }
    Ok(base)
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
    match split.images() {
        Images::Decoded(images) => Ok(images.shape()),
        Images::Encoded(images) => {
            let (name, (smallest, largest)) = (request.split, (images.smallest(), images.largest()));
            let why = format!(
                "images of split {name} of dataset {:?} differ in size ({}..={} x {}..={} pixels), \
                 but those of a batch must not",
                dataset, smallest.height, largest.height, smallest.width, largest.width
            );
            let own = Some(own).filter(|own| own.frame.shape().is_some());
            let own = own.map_or("random_resized_crop:224,flip".to_owned(), |own| own.to_string());
            let allowed = format!(
                "steps that begin with random_resized_crop:N or resize:N,center_crop:N, \
                 such as {own}, with schedule=none or a schedule"
            );
            Err(Error::parameter("base", base.to_string(), why, allowed))
        }
    }
}

fn plan(samples: u64, epoch: u32, request: &EpochRequest) -> Result<Plan, Error> {
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
            PlanError::Step => ("step", request.step.to_string(), "1 or more".to_owned()),
            _ => {
                ("shard", format!("{}/{}", request.shard.0, request.shard.1), "i/n with i in 0..n".to_owned())
            }
        };
        Error::parameter(parameter, value, error.to_string(), allowed)
    })
}

/// Rows of the largest batch of a plan.
fn plan_rows_max(plan: &Plan) -> u64 {
    if plan.batches() == 0 { 0 } else { plan.len_of(0) as u64 }
}
