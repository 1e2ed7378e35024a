//! What every spec says: how one model is trained.

use std::fmt;
use std::str::FromStr;

use pba_types::limits::{BATCH_SIZE_MAX, EPOCHS_MAX};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::fields::{Fields, SpecError, read_fields};
use crate::model::{ModelName, UnknownModel};
use crate::preset::Preset;

/// Most images of a split; keeps arithmetic far from overflow.
pub(crate) const IMAGES_MAX: usize = 1 << 32;

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

impl FromStr for DeviceChoice {
    /// What is allowed.
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => {
                let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
                number.map(DeviceChoice::Cuda).ok_or("auto, cpu, cuda, cuda:N".to_owned())
            }
        }
    }
}

pba_types::named! {
    /// How the members of a population share a device. All strategies give the same result, up to rounding.
    #[derive(Serialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Strategy {
        /// The fastest strategy on the device.
        Auto = "auto",
        /// One network per member: one after another on a GPU, one per core on a CPU.
        Sequential = "sequential",
        /// All members in one network of grouped convolutions.
        Stacked = "stacked",
        /// One CUDA graph per member, on streams that they share.
        Graphs = "graphs",
    }
}

pba_types::named! {
    /// The numbers that convolutions compute with; parameters and their updates are always fp32.
    #[derive(Serialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Precision {
        /// `bf16` on a GPU, `fp32` on a CPU.
        Auto = "auto",
        /// 32 bits.
        Fp32 = "fp32",
        /// 16 bits, of which 8 are the exponent.
        Bf16 = "bf16",
    }
}

/// How the learning rate decreases.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LrSchedule {
    /// From `lr` to 0 along half a cosine, per step.
    Cosine,
    /// Multiplied by `factor` at the start of each listed epoch.
    #[serde(untagged)]
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

/// The part that all kinds of job share: how one model is trained.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct TrainingSpec {
    /// Name of the dataset. Default `shapes`, which is built in.
    #[schema(required = false)]
    pub dataset: String,
    /// The network. Default `wrn-40-2`, as the paper says; `wrn-28-2` is what the reference's 5 hours trained.
    #[schema(required = false, value_type = String)]
    pub model: ModelName,
    /// Epochs that each model trains: at least 1. Default 200.
    #[schema(required = false, minimum = 1, maximum = 1_000_000)]
    pub epochs: u32,
    /// Images per step: 1..=65536. Default: the model's own, as for the next two.
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
    /// Seed of the choice of images. Default: `seed`. Searches or evaluations that share it train on, and are scored
    /// with, the same images; in a comparison, each of its seeds takes others.
    #[schema(required = false)]
    pub split_seed: u64,
    /// Device: `auto` (the default), `cpu`, `cuda` or `cuda:N`.
    #[serde(serialize_with = "as_text")]
    #[schema(required = false, value_type = String)]
    pub device: DeviceChoice,
    /// Numbers that convolutions compute with: `auto` (the default), `fp32` or `bf16`.
    #[schema(required = false, value_type = String)]
    pub precision: Precision,
    /// Settings of the paper that fill in what the spec leaves out: `cifar10`, `cifar100`, `svhn`, `rcifar10` or
    /// `rsvhn`; for searches one of the last two. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub preset: Option<Preset>,
}

impl TrainingSpec {
    /// The same training in the place of `other`.
    pub(crate) fn placed_as(&self, other: &TrainingSpec) -> TrainingSpec {
        TrainingSpec { device: other.device, precision: other.precision, ..self.clone() }
    }

    /// What is asked of it that cannot do what it is for, with the images that it trains on if that is known.
    pub(crate) fn warnings(&self, train_size: Option<usize>) -> Vec<String> {
        let (epochs, batch) = (self.epochs, self.batch_size);
        let mut warnings = Vec::new();
        if let LrSchedule::Steps { steps, .. } = &self.lr_schedule {
            let late: Vec<String> = steps.iter().filter(|&&at| at >= epochs).map(u32::to_string).collect();
            if !late.is_empty() {
                let late = late.join(", ");
                warnings.push(format!(
                    "lr_schedule lowers the rate at epoch {late}, which never comes: epochs is {epochs}, and they count \
                     from 0"
                ));
            }
        }
        if let Some(train) = train_size
            && train % batch * 4 >= train
        {
            let left = train % batch;
            warnings.push(format!(
                "batch_size is {batch}, and train_size ({train}) is not a multiple of it: {left} images are left out of each \
                 epoch"
            ));
        }
        warnings
    }

    /// Checks that `train` images are enough for a batch.
    pub(crate) fn check_batch_of(&self, train: usize) -> Result<(), SpecError> {
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
    Self: TryFrom<Map<String, Value>, Error = SpecError> + ToSchema + 'static,
{
    /// The results of such a job so far, in the API. Its fields stand beside those of a `JobAnswer` and are named
    /// otherwise.
    type Results: Clone + PartialEq + Serialize + DeserializeOwned + ToSchema + Send;

    /// Its name, which is also its id.
    fn name(&self) -> &str;

    /// Renames it.
    fn rename(&mut self, name: String);

    /// How its models are trained.
    fn training(&self) -> &TrainingSpec;

    /// The schedules to train with, by name or digest; the server writes their names there.
    fn schedules(&mut self) -> Vec<&mut String> {
        Vec::new()
    }

    /// The field that names them, and what may stand in their place, for messages.
    fn schedules_field() -> (&'static str, &'static [&'static str]) {
        ("schedule", &[])
    }

    /// Epochs in all.
    fn epochs(&self) -> u32 {
        self.training().epochs
    }

    /// Models that are trained, each through all epochs of [`Spec::training`].
    fn models(&self) -> u32;

    /// Models that are trained side by side.
    fn models_at_once(&self) -> u32 {
        self.models()
    }

    /// Images that each model trains on, once the spec is sized.
    fn train_size(&self) -> Option<usize>;

    /// Images trained on, over all models, once the spec is sized. A last batch that is not full is dropped.
    fn images(&self) -> u64 {
        let training = self.training();
        let (batch, images) = (training.batch_size, self.train_size().unwrap_or(0));
        (images / batch * batch) as u64 * u64::from(training.epochs) * u64::from(self.models())
    }

    /// The same job with what depends on the splits of its dataset filled in: whether it has one named `val`.
    fn for_splits(self, _has_val: bool) -> Self {
        self
    }

    /// Images that are scored, over all models and epochs, once the spec is sized.
    fn images_scored(&self) -> u64 {
        0
    }

    /// CUDA streams that its models share; none for the default.
    fn streams(&self) -> Option<u32> {
        None
    }

    /// Fields with which it can be trained, but which cannot do what they are for: a sentence for each.
    fn warnings(&self) -> Vec<String> {
        self.training().warnings(self.train_size())
    }

    /// The same work in the place of `other`: device and what belongs to it, which affect the result by
    /// rounding only.
    fn placed_as(&self, other: &Self) -> Self;

    /// Reads a spec from a JSON object.
    ///
    /// # Errors
    /// When the text is not a JSON object without repeated keys, or at the first invalid field.
    fn from_json(text: &str) -> Result<Self, SpecError> {
        Self::try_from(read_fields(text).map_err(|error| {
            SpecError::new("spec", format!("unreadable ({error})"), "a JSON object, each key once")
        })?)
    }
}

impl Fields {
    pub(crate) fn training(&mut self) -> Result<TrainingSpec, SpecError> {
        let dataset = self.text("dataset", "shapes")?;
        let model = self.parsed("model", ModelName::default(), |name| {
            name.parse().map_err(|unknown: UnknownModel| unknown.allowed())
        })?;
        let defaults = model.defaults();
        let seed = self.integer("seed", 0..=u64::MAX)?.unwrap_or(0);
        Ok(TrainingSpec {
            dataset,
            model,
            epochs: self.integer("epochs", 1..=EPOCHS_MAX)?.unwrap_or(200),
            batch_size: self.integer("batch_size", 1..=BATCH_SIZE_MAX)?.unwrap_or(defaults.batch_size)
                as usize,
            lr: self
                .number("lr", "a number above 0, up to 1000", |&lr| lr > 0.0 && lr <= 1e3)?
                .unwrap_or(defaults.lr),
            weight_decay: self
                .number("weight_decay", "a number in 0..=1000", |decay| (0.0..=1e3).contains(decay))?
                .unwrap_or(defaults.weight_decay),
            lr_schedule: self.lr_schedule()?,
            base: self.parsed("base", None, |text| Ok(Some(text.to_owned())))?,
            seed,
            split_seed: self.integer("split_seed", 0..=u64::MAX)?.unwrap_or(seed),
            device: self.parsed("device", DeviceChoice::Auto, str::parse)?,
            precision: self.parsed("precision", Precision::Auto, |name| {
                Precision::named(name).ok_or_else(Precision::names)
            })?,
            preset: self.preset(),
        })
    }

    pub(crate) fn strategy(&mut self) -> Result<Strategy, SpecError> {
        self.parsed("strategy", Strategy::Auto, |name| Strategy::named(name).ok_or_else(Strategy::names))
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
        let Some(value) = self.take("lr_schedule").filter(|value| value != "cosine") else {
            return Ok(LrSchedule::Cosine);
        };
        match Steps::deserialize(&value) {
            Ok(Steps { steps, factor })
                if steps.is_sorted_by(|one, next| one < next) && factor > 0.0 && factor <= 1.0 =>
            {
                Ok(LrSchedule::Steps { steps, factor })
            }
            _ => Err(SpecError::new("lr_schedule", value, allowed)),
        }
    }
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ComparisonSpec, EvaluationSpec, SearchSpec};

    #[test]
    fn devices_read_back() {
        for (text, written) in [
            ("auto", "auto"),
            ("cpu", "cpu"),
            ("cuda", "cuda:0"),
            ("cuda:0", "cuda:0"),
            ("cuda:12", "cuda:12"),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), written);
        }
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            assert_eq!(wrong.parse::<DeviceChoice>().unwrap_err(), "auto, cpu, cuda, cuda:N", "{wrong:?}");
        }
    }

    #[test]
    fn a_batch_must_be_full() {
        let spec = EvaluationSpec::from_json(r#"{"batch_size": 8}"#).unwrap();
        assert_eq!(spec.training.check_batch_of(8), Ok(()));
        assert_eq!(spec.training.check_batch_of(9), Ok(()));
        let error = spec.training.check_batch_of(7).unwrap_err().to_string();
        assert_eq!(error, "batch_size is 8; allowed: 1..=7, so that train_size (7) holds a batch");
    }

    #[test]
    fn what_is_trained_is_whole_batches() {
        let spec = EvaluationSpec::from_json(r#"{"batch_size": 4, "epochs": 3, "train_size": 11}"#).unwrap();
        assert_eq!((spec.images(), spec.images_scored(), spec.epochs()), (8 * 3, 0, 3));
        assert_eq!((spec.models(), spec.models_at_once(), spec.streams()), (1, 1, None));
        assert_eq!(EvaluationSpec { train_size: Some(12), ..spec }.images(), 12 * 3);
    }

    /// A job in another place is the same job but for what belongs to the place.
    #[track_caller]
    fn check<S: Spec + std::fmt::Debug>(place: &str) {
        let job = S::from_json(r#"{"name": "one", "epochs": 7, "seed": 3}"#).unwrap();
        let other = S::from_json(&format!(r#"{{"name": "other", "epochs": 9, {place}}}"#)).unwrap();
        let placed = job.placed_as(&other);
        let expected =
            S::from_json(&format!(r#"{{"name": "one", "epochs": 7, "seed": 3, {place}}}"#)).unwrap();
        assert_eq!(placed, expected);
        assert_ne!(placed, job);
        assert_eq!((job.name(), other.name(), job.training().epochs), ("one", "other", 7));
        let mut renamed = job.clone();
        renamed.rename("another".to_owned());
        assert_eq!(renamed.name(), "another");
        assert_eq!(renamed.placed_as(&job), renamed);
    }

    #[test]
    fn a_job_is_the_same_in_another_place() {
        check::<EvaluationSpec>(r#""device": "cuda:1", "precision": "bf16""#);
        check::<ComparisonSpec>(r#""device": "cuda:1", "precision": "bf16", "strategy": "stacked""#);
        check::<SearchSpec>(r#""device": "cuda:1", "precision": "bf16", "strategy": "graphs", "streams": 2"#);
        for part in [r#""device": "cpu""#, r#""precision": "fp32""#] {
            check::<EvaluationSpec>(part);
            check::<ComparisonSpec>(part);
            check::<SearchSpec>(part);
        }
        check::<ComparisonSpec>(r#""strategy": "stacked""#);
        check::<SearchSpec>(r#""strategy": "stacked""#);
        check::<SearchSpec>(r#""streams": 2"#);
    }
}
