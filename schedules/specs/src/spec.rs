//! The specs of searches and evaluations, checked once, on arrival.
//!
//! A spec arrives as a JSON object in which every field is optional. `Fields` is the input;
//! [`SearchSpec`] and [`EvaluationSpec`] are checked. An invalid value is refused with a [`SpecError`]
//! that names the field, the value and the allowed values.

use std::fmt;
use std::ops::RangeInclusive;

use pba_schedules::{Ablation, Op};
use pba_types::limits::{BATCH_SIZE_MAX, EPOCHS_MAX};
use pba_types::{check_name, names_allowed};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::model::{ModelName, UnknownModel};

/// Most members of a population. More would not fit a device, and events list every member.
const POPULATION_MAX: u64 = 256;
/// Most images of a split; keeps arithmetic far from overflow.
const IMAGES_MAX: u64 = 1 << 32;
/// Most bytes of a text; texts that are only passed on are bounded too.
const TEXT_LENGTH_MAX: usize = 1024;

/// An invalid field, with its value and the allowed values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}; allowed: {allowed}")]
pub struct SpecError {
    /// Name of the field.
    pub field: String,
    /// The value, as JSON.
    pub value: String,
    /// The allowed values.
    pub allowed: String,
}

impl SpecError {
    /// An invalid `value` in `field`.
    pub fn new(field: &str, value: impl fmt::Display, allowed: impl Into<String>) -> SpecError {
        SpecError { field: field.to_owned(), value: value.to_string(), allowed: allowed.into() }
    }
}

/// The device that a model trains on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device if there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with this number.
    Cuda(u32),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// How the members of a population share a device. All strategies give the same result, up to rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The fastest strategy on the device.
    Auto,
    /// One network per member: one after another on a GPU, one per core on a CPU.
    Sequential,
    /// All members in one network of grouped convolutions.
    Stacked,
    /// One CUDA graph per member, on streams of their own.
    Graphs,
}

impl Strategy {
    /// Every strategy with its name; `auto` first.
    pub const ALL: [(Strategy, &str); 4] = [
        (Strategy::Auto, "auto"),
        (Strategy::Sequential, "sequential"),
        (Strategy::Stacked, "stacked"),
        (Strategy::Graphs, "graphs"),
    ];
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = Strategy::ALL.into_iter().find(|(strategy, _)| strategy == self).expect("listed");
        f.pad(name)
    }
}

/// How the learning rate decreases.
#[derive(Clone, Debug, PartialEq)]
pub enum LrSchedule {
    /// From `lr` to 0 along half a cosine, per step.
    Cosine,
    /// Multiplied by `factor` at the start of each listed epoch.
    Steps {
        /// Epochs, 0-based, ascending.
        steps: Vec<u32>,
        /// Factor that the rate is multiplied by.
        factor: f64,
    },
}

impl LrSchedule {
    /// The factor on the learning rate at step `step` of `steps_per_epoch * epochs`.
    pub fn factor(&self, step: u64, steps_per_epoch: u64, epochs: u32) -> f64 {
        match self {
            LrSchedule::Cosine => {
                let total = (steps_per_epoch * u64::from(epochs)) as f64;
                0.5 * (1.0 + (std::f64::consts::PI * step as f64 / total).cos())
            }
            LrSchedule::Steps { steps, factor } => {
                let epoch = step / steps_per_epoch;
                let passed = steps.iter().filter(|&&at| u64::from(at) <= epoch).count();
                factor.powi(passed as i32)
            }
        }
    }
}

impl Serialize for LrSchedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            LrSchedule::Cosine => serializer.serialize_str("cosine"),
            LrSchedule::Steps { steps, factor } => {
                serde_json::json!({ "steps": steps, "factor": factor }).serialize(serializer)
            }
        }
    }
}

/// The part that searches and evaluations share: how one model is trained.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct TrainingSpec {
    /// Name of the dataset. Default `shapes`, which is built in.
    #[schema(required = false)]
    pub dataset: String,
    /// The network. Default `wrn-40-2`.
    #[schema(required = false, value_type = String)]
    pub model: ModelName,
    /// Epochs that each model trains: at least 1. Default 200.
    #[schema(required = false, minimum = 1, maximum = 1_000_000)]
    pub epochs: u32,
    /// Images per step: 1..=65536. Default: [the model's](ModelName::defaults), as for the next two.
    #[schema(required = false, minimum = 1, maximum = 65_536)]
    pub batch_size: usize,
    /// Initial learning rate: above 0.
    #[schema(required = false, exclusive_minimum = 0, maximum = 1_000)]
    pub lr: f64,
    /// Weight decay, added to the gradient: 0 or more.
    #[schema(required = false, minimum = 0, maximum = 1_000)]
    pub weight_decay: f64,
    /// Learning-rate schedule: `"cosine"` (the default), or `{"steps": [80, 120], "factor": 0.1}`.
    #[schema(required = false, value_type = Value)]
    pub lr_schedule: LrSchedule,
    /// Base augmentation, as in a stream. Default: the dataset's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Seed of every random decision. Default 0.
    #[schema(required = false)]
    pub seed: u64,
    /// Device: `auto` (the default), `cpu`, `cuda` or `cuda:N`.
    #[serde(serialize_with = "as_text")]
    #[schema(required = false, value_type = String)]
    pub device: DeviceChoice,
}

impl TrainingSpec {
    /// Checks that `train` images are enough for a batch.
    fn check_batch_of(&self, train: usize) -> Result<(), SpecError> {
        if train < self.batch_size {
            let allowed = format!("1..={train}, so that train_size ({train}) holds a batch");
            return Err(SpecError::new("batch_size", self.batch_size, allowed));
        }
        Ok(())
    }
}

/// The interface of every spec.
pub trait Spec: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync
where
    Self: TryFrom<Map<String, Value>, Error = SpecError>,
{
    /// Its name, which is also its id.
    fn name(&self) -> &str;

    /// Renames it.
    fn rename(&mut self, name: String);

    /// How its models are trained.
    fn training(&self) -> &TrainingSpec;

    /// Images trained on in an epoch, over all models, once the spec is sized. A last batch that is not full
    /// is dropped.
    fn images_per_epoch(&self) -> u64;

    /// The same work on the device of `other`, which does not affect the result.
    fn placed_as(&self, other: &Self) -> Self;

    /// Reads a spec from a JSON object.
    ///
    /// # Errors
    /// When the text is not a JSON object, or at the first invalid field.
    fn from_json(text: &str) -> Result<Self, SpecError> {
        let fields: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| SpecError::new("spec", format!("unreadable ({error})"), "a JSON object"))?;
        Self::try_from(fields)
    }
}

/// A checked search.
///
/// As JSON it holds every field, so it reads back as itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Map<String, Value>")]
pub struct SearchSpec {
    /// Name of the search, and of the schedule it learns. Default `search`.
    #[schema(required = false)]
    pub name: String,
    /// How the members are trained.
    #[serde(flatten)]
    pub training: TrainingSpec,
    /// Images that the members train on. Default: [the model's](ModelName::defaults), but at most half of
    /// the split ([`SearchSpec::sized`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_size: Option<usize>,
    /// Images that the members are scored with. Default: [the model's](ModelName::defaults), but at most
    /// the rest of the split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_size: Option<usize>,
    /// Members of the population: at least 2. Default 16.
    #[schema(required = false, minimum = 2, maximum = 256)]
    pub population: u32,
    /// Epochs from one exploit to the next: at least 1. Default 3.
    #[schema(required = false, minimum = 1, maximum = 1_000_000)]
    pub perturbation_interval: u32,
    /// Share of the population that each exploit replaces: above 0, up to 0.5. Default 0.25.
    #[schema(required = false, exclusive_minimum = 0, maximum = 0.5)]
    pub quantile: f64,
    /// Probability that exploring resamples a level: 0..=1. Default 0.2.
    #[schema(required = false, minimum = 0, maximum = 1)]
    pub resample_probability: f64,
    /// The ops of the policies. Default: all 15.
    #[serde(serialize_with = "as_names")]
    #[schema(required = false, value_type = Vec<String>)]
    pub ops: Vec<Op>,
    /// Strategy: `auto` (the default), `sequential`, `stacked` or `graphs`.
    #[serde(serialize_with = "as_text")]
    #[schema(required = false, value_type = String)]
    pub strategy: Strategy,
}

/// A checked evaluation: one model, trained from scratch with or without a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Map<String, Value>")]
pub struct EvaluationSpec {
    /// Name of the evaluation. Default `evaluation`.
    #[schema(required = false)]
    pub name: String,
    /// The schedule to train with, by name, or `none` (the default): base augmentation only.
    #[schema(required = false)]
    pub schedule: String,
    /// How the model is trained.
    #[serde(flatten)]
    pub training: TrainingSpec,
    /// Images that the model trains on. Default: all of the split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_size: Option<usize>,
    /// Ablation of the schedule: `scheduled` (the default), `flatten`, `shuffled` or `final`.
    #[schema(required = false, value_type = String)]
    pub ablation: Ablation,
}

impl SearchSpec {
    /// The same search with the sizes of its two sets fixed for a split of `images`.
    ///
    /// # Errors
    /// When the split is too small for them.
    pub fn sized(mut self, images: usize) -> Result<SearchSpec, SpecError> {
        let defaults = self.training.model.defaults();
        let train = self.train_size.unwrap_or(defaults.train_size.min(images / 2));
        if train == 0 || train >= images {
            let allowed = format!("1..={} of the {images} images of the split", images.saturating_sub(1));
            return Err(SpecError::new("train_size", train, allowed));
        }
        let left = images - train;
        let val = self.val_size.unwrap_or(defaults.val_size.min(left));
        if val > left {
            let allowed =
                format!("1..={left}, the images of the split ({images}) that train_size ({train}) leaves");
            return Err(SpecError::new("val_size", val, allowed));
        }
        self.training.check_batch_of(train)?;
        (self.train_size, self.val_size) = (Some(train), Some(val));
        Ok(self)
    }
}

impl EvaluationSpec {
    /// The name that means training without a schedule.
    pub const NO_SCHEDULE: &str = "none";

    /// The same evaluation with the size of its set fixed for a split of `images` images.
    ///
    /// # Errors
    /// When the split is too small for it.
    pub fn sized(mut self, images: usize) -> Result<EvaluationSpec, SpecError> {
        let train = self.train_size.unwrap_or(images);
        if train == 0 || train > images {
            return Err(SpecError::new(
                "train_size",
                train,
                format!("1..={images}, the images of the split"),
            ));
        }
        self.training.check_batch_of(train)?;
        self.train_size = Some(train);
        Ok(self)
    }
}

impl TrainingSpec {
    fn full_batches(&self, images: Option<usize>) -> u64 {
        (images.unwrap_or(0) / self.batch_size * self.batch_size) as u64
    }
}

impl Spec for SearchSpec {
    fn name(&self) -> &str {
        &self.name
    }

    fn rename(&mut self, name: String) {
        self.name = name;
    }

    fn training(&self) -> &TrainingSpec {
        &self.training
    }

    fn images_per_epoch(&self) -> u64 {
        self.training.full_batches(self.train_size) * u64::from(self.population)
    }

    fn placed_as(&self, other: &SearchSpec) -> SearchSpec {
        let training = TrainingSpec { device: other.training.device, ..self.training.clone() };
        SearchSpec { training, strategy: other.strategy, ..self.clone() }
    }
}

impl Spec for EvaluationSpec {
    fn name(&self) -> &str {
        &self.name
    }

    fn rename(&mut self, name: String) {
        self.name = name;
    }

    fn training(&self) -> &TrainingSpec {
        &self.training
    }

    fn images_per_epoch(&self) -> u64 {
        self.training.full_batches(self.train_size)
    }

    fn placed_as(&self, other: &EvaluationSpec) -> EvaluationSpec {
        let training = TrainingSpec { device: other.training.device, ..self.training.clone() };
        EvaluationSpec { training, ..self.clone() }
    }
}

impl TryFrom<Map<String, Value>> for SearchSpec {
    type Error = SpecError;

    fn try_from(fields: Map<String, Value>) -> Result<SearchSpec, SpecError> {
        let mut fields = Fields::new(fields);
        let spec = SearchSpec {
            name: fields.name("search")?,
            training: fields.training()?,
            train_size: fields.integer_or_none("train_size", 1..=IMAGES_MAX)?.map(|n| n as usize),
            val_size: fields.integer_or_none("val_size", 1..=IMAGES_MAX)?.map(|n| n as usize),
            population: fields.integer("population", 2..=POPULATION_MAX, 16)? as u32,
            perturbation_interval: fields.integer("perturbation_interval", 1..=EPOCHS_MAX.into(), 3)? as u32,
            quantile: fields
                .number("quantile", 0.25, "a number above 0, up to 0.5", |q| q > 0.0 && q <= 0.5)?,
            resample_probability: fields
                .number("resample_probability", 0.2, "a number in 0..=1", |p| (0.0..=1.0).contains(&p))?,
            ops: fields.ops()?,
            strategy: fields.one_of("strategy", &Strategy::ALL)?,
        };
        fields.close()?;
        Ok(spec)
    }
}

impl TryFrom<Map<String, Value>> for EvaluationSpec {
    type Error = SpecError;

    fn try_from(fields: Map<String, Value>) -> Result<EvaluationSpec, SpecError> {
        let mut fields = Fields::new(fields);
        let spec = EvaluationSpec {
            name: fields.name("evaluation")?,
            schedule: fields
                .parsed("schedule", EvaluationSpec::NO_SCHEDULE.to_owned(), |name| Ok(name.to_owned()))?,
            training: fields.training()?,
            train_size: fields.integer_or_none("train_size", 1..=IMAGES_MAX)?.map(|n| n as usize),
            ablation: fields.one_of("ablation", &Ablation::ALL)?,
        };
        fields.close()?;
        Ok(spec)
    }
}

/// The fields of a spec as they arrived. Each is removed once read; the remaining ones are unknown.
struct Fields {
    left: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    fn new(left: Map<String, Value>) -> Fields {
        Fields { left, known: Vec::new() }
    }

    fn take(&mut self, field: &'static str) -> Option<Value> {
        self.known.push(field);
        self.left.remove(field).filter(|value| !value.is_null())
    }

    fn close(self) -> Result<(), SpecError> {
        match self.left.into_iter().next() {
            None => Ok(()),
            Some((field, value)) => {
                let allowed = format!("no such field; the fields are {}", self.known.join(", "));
                Err(SpecError::new(&field, value, allowed))
            }
        }
    }

    fn integer_or_none(
        &mut self,
        field: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, SpecError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        match value.as_u64().filter(|integer| range.contains(integer)) {
            Some(integer) => Ok(Some(integer)),
            None => {
                let allowed = format!("an integer in {}..={}", range.start(), range.end());
                Err(SpecError::new(field, value, allowed))
            }
        }
    }

    fn integer(
        &mut self,
        field: &'static str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, SpecError> {
        Ok(self.integer_or_none(field, range)?.unwrap_or(default))
    }

    fn number(
        &mut self,
        field: &'static str,
        default: f64,
        allowed: &str,
        is_allowed: impl Fn(f64) -> bool,
    ) -> Result<f64, SpecError> {
        let Some(value) = self.take(field) else { return Ok(default) };
        match value.as_f64().filter(|&number| number.is_finite() && is_allowed(number)) {
            Some(number) => Ok(number),
            None => Err(SpecError::new(field, value, allowed)),
        }
    }

    /// A text that `parse` accepts; otherwise `parse` returns the allowed values.
    fn parsed<T>(
        &mut self,
        field: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, SpecError> {
        let Some(value) = self.take(field) else { return Ok(default) };
        let parsed = value.as_str().ok_or_else(|| "a text".to_owned()).and_then(|text| match text.len() {
            0..=TEXT_LENGTH_MAX => parse(text),
            _ => Err(format!("a text of at most {TEXT_LENGTH_MAX} bytes")),
        });
        parsed.map_err(|allowed| SpecError::new(field, value, allowed))
    }

    fn name(&mut self, default: &str) -> Result<String, SpecError> {
        self.parsed("name", default.to_owned(), |name| {
            check_name(name).map(|()| name.to_owned()).map_err(|_| names_allowed())
        })
    }

    /// One of some values by its name. Default: the first.
    fn one_of<T: Copy>(&mut self, field: &'static str, all: &[(T, &str)]) -> Result<T, SpecError> {
        self.parsed(field, all[0].0, |text| match all.iter().find(|(_, name)| *name == text) {
            Some(&(value, _)) => Ok(value),
            None => Err(all.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ")),
        })
    }

    fn training(&mut self) -> Result<TrainingSpec, SpecError> {
        let dataset = self.parsed("dataset", "shapes".to_owned(), |name| Ok(name.to_owned()))?;
        let model = self.parsed("model", ModelName::default(), |name| {
            name.parse().map_err(|unknown: UnknownModel| unknown.allowed())
        })?;
        let defaults = model.defaults();
        Ok(TrainingSpec {
            dataset,
            model,
            epochs: self.integer("epochs", 1..=EPOCHS_MAX.into(), 200)? as u32,
            batch_size: self.integer("batch_size", 1..=BATCH_SIZE_MAX.into(), defaults.batch_size.into())?
                as usize,
            lr: self.number("lr", defaults.lr, "a number above 0, up to 1000", |lr| lr > 0.0 && lr <= 1e3)?,
            weight_decay: self.number(
                "weight_decay",
                defaults.weight_decay,
                "a number in 0..=1000",
                |decay| (0.0..=1e3).contains(&decay),
            )?,
            lr_schedule: self.lr_schedule()?,
            base: self.parsed("base", None, |text| Ok(Some(text.to_owned())))?,
            seed: self.integer("seed", 0..=u64::MAX, 0)?,
            device: self.parsed("device", DeviceChoice::Auto, |text| match text {
                "auto" => Ok(DeviceChoice::Auto),
                "cpu" => Ok(DeviceChoice::Cpu),
                "cuda" => Ok(DeviceChoice::Cuda(0)),
                _ => {
                    let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
                    number.map(DeviceChoice::Cuda).ok_or("auto, cpu, cuda, cuda:N".to_owned())
                }
            })?,
        })
    }

    fn lr_schedule(&mut self) -> Result<LrSchedule, SpecError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Steps {
            steps: Vec<u32>,
            factor: f64,
        }
        let allowed =
            "\"cosine\", or {\"steps\": [epochs, ascending], \"factor\": a number above 0, up to 1}";
        let Some(value) = self.take("lr_schedule") else { return Ok(LrSchedule::Cosine) };
        if value == "cosine" {
            return Ok(LrSchedule::Cosine);
        }
        match Steps::deserialize(&value) {
            Ok(Steps { steps, factor })
                if steps.is_sorted_by(|one, next| one < next) && factor > 0.0 && factor <= 1.0 =>
            {
                Ok(LrSchedule::Steps { steps, factor })
            }
            _ => Err(SpecError::new("lr_schedule", value, allowed)),
        }
    }

    fn ops(&mut self) -> Result<Vec<Op>, SpecError> {
        let allowed = || format!("a list of ops, each once, of {}", Op::names());
        let Some(value) = self.take("ops") else { return Ok(Op::PAPER.to_vec()) };
        let names =
            Vec::<String>::deserialize(&value).map_err(|_| SpecError::new("ops", &value, allowed()))?;
        let mut ops = Vec::with_capacity(names.len());
        for name in &names {
            match name.parse::<Op>() {
                Ok(op) if !ops.contains(&op) => ops.push(op),
                _ => return Err(SpecError::new("ops", &value, format!("{}; {name:?} is not", allowed()))),
            }
        }
        if ops.is_empty() { Err(SpecError::new("ops", value, allowed())) } else { Ok(ops) }
    }
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_names<S: Serializer>(ops: &[Op], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ops.iter().map(|op| op.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_papers() {
        let spec = SearchSpec::from_json("{}").unwrap();
        assert_eq!((spec.population, spec.training.epochs, spec.perturbation_interval), (16, 200, 3));
        assert_eq!((spec.quantile, spec.resample_probability), (0.25, 0.2));
        assert_eq!(
            (spec.training.lr, spec.training.weight_decay, spec.training.batch_size),
            (0.1, 5e-4, 128)
        );
        assert_eq!(spec.training.model.to_string(), "wrn-40-2");
        assert_eq!(spec.ops, Op::PAPER);
        let sized = spec.sized(50_000).unwrap();
        assert_eq!((sized.train_size, sized.val_size), (Some(4_000), Some(10_000)));
    }

    #[test]
    fn a_spec_reads_back_as_itself() {
        for text in [
            "{}",
            r#"{"name": "svhn", "lr_schedule": {"steps": [80, 120], "factor": 0.1}, "epochs": 160,
                "weight_decay": 5e-3, "ops": ["Cutout", "Rotate"], "seed": 18446744073709551615,
                "train_size": 1000, "val_size": 7325, "base": "identity", "device": "cuda:1",
                "strategy": "stacked", "model": "wrn-28-2"}"#,
        ] {
            let spec = SearchSpec::from_json(text).unwrap();
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<SearchSpec>(&json).unwrap(), spec);
        }
        let evaluation = EvaluationSpec::from_json(r#"{"ablation": "flatten", "epochs": 10}"#).unwrap();
        let json = serde_json::to_string(&evaluation).unwrap();
        assert_eq!(serde_json::from_str::<EvaluationSpec>(&json).unwrap(), evaluation);
    }

    #[track_caller]
    fn refuse(text: &str, field: &str, says: &str) {
        let error = SearchSpec::from_json(text).unwrap_err();
        assert_eq!(error.field, field, "{error}");
        assert!(error.to_string().contains(says), "{error} does not say {says:?}");
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        refuse(r#"{"population": 1}"#, "population", "population is 1; allowed: an integer in 2..=256");
        refuse(r#"{"population": "x"}"#, "population", "\"x\"");
        refuse(r#"{"population": 2.5}"#, "population", "2.5");
        refuse(
            r#"{"perturbation_interval": 0}"#,
            "perturbation_interval",
            "is 0; allowed: an integer in 1..",
        );
        refuse(r#"{"quantile": 0}"#, "quantile", "above 0, up to 0.5");
        refuse(r#"{"quantile": 0.51}"#, "quantile", "0.51");
        refuse(r#"{"resample_probability": -0.1}"#, "resample_probability", "0..=1");
        refuse(r#"{"lr": -0.1}"#, "lr", "lr is -0.1; allowed: a number above 0, up to 1000");
        refuse(r#"{"lr": 0}"#, "lr", "above 0");
        refuse(r#"{"weight_decay": -1}"#, "weight_decay", "-1");
        refuse(r#"{"epochs": 0}"#, "epochs", "1..=1000000");
        refuse(r#"{"batch_size": 0}"#, "batch_size", "1..=65536");
        refuse(r#"{"train_size": 0}"#, "train_size", "1..=");
        refuse(r#"{"ops": ["Rotate", "Blur"]}"#, "ops", "\"Blur\" is not");
        refuse(r#"{"ops": ["Rotate", "Rotate"]}"#, "ops", "each once");
        refuse(r#"{"ops": []}"#, "ops", "Rotate, TranslateX");
        refuse(r#"{"lr_schedule": "linear"}"#, "lr_schedule", "\"cosine\"");
        refuse(r#"{"lr_schedule": {"steps": [2, 1], "factor": 0.1}}"#, "lr_schedule", "ascending");
        refuse(r#"{"lr_schedule": {"steps": [1], "factor": 0}}"#, "lr_schedule", "above 0");
        refuse(r#"{"model": "wrn-41-2"}"#, "model", "wrn-D-K");
        refuse(r#"{"model": "shake-shake-26-2x32d"}"#, "model", "not built yet");
        refuse(r#"{"device": "tpu"}"#, "device", "cuda:N");
        refuse(r#"{"strategy": "threads"}"#, "strategy", "stacked");
        refuse(r#"{"name": "a/b"}"#, "name", "letters");
        refuse(r#"{"seed": -1}"#, "seed", "0..=18446744073709551615");
        refuse(r#"{"populations": 4}"#, "populations", "no such field; the fields are name, dataset");
        refuse("[]", "spec", "a JSON object");
        refuse("{", "spec", "unreadable");
    }

    #[test]
    fn sets_must_fit_the_split() {
        let spec = |text: &str| SearchSpec::from_json(text).unwrap();
        let sized = spec("{}").sized(6_000).unwrap();
        assert_eq!((sized.train_size, sized.val_size), (Some(3_000), Some(3_000)), "defaults shrink");
        let refused = |text: &str, images: usize| spec(text).sized(images).unwrap_err().field;
        assert_eq!(refused(r#"{"train_size": 100}"#, 100), "train_size");
        assert_eq!(refused(r#"{"train_size": 200, "val_size": 51}"#, 250), "val_size");
        assert_eq!(refused(r#"{"train_size": 100}"#, 200), "batch_size");
    }

    #[test]
    fn learning_rates_by_hand() {
        let cosine = LrSchedule::Cosine;
        assert_eq!(cosine.factor(0, 31, 200), 1.0);
        assert!((cosine.factor(3_100, 31, 200) - 0.5).abs() < 1e-12);
        let steps = LrSchedule::Steps { steps: vec![80, 120], factor: 0.1 };
        let at = |epoch: u64| steps.factor(epoch * 7 + 3, 7, 160);
        assert_eq!((at(79), at(80), at(119)), (1.0, 0.1, 0.1));
        assert!((at(120) - 0.01).abs() < 1e-15);
    }
}
