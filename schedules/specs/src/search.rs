//! The spec of a search.

use pba_schedules::Op;
use pba_types::SplitName;
use pba_types::limits::EPOCHS_MAX;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::comparison::ComparisonSpec;
use crate::fields::{Fields, SpecError};
use crate::preset::Preset;
use crate::report::Score;
use crate::training::{IMAGES_MAX, Spec, Strategy, TrainingSpec};

/// Most members of a population. More would not fit a device, and events list every member.
const POPULATION_MAX: u32 = 256;
/// Most CUDA streams: one for each of 16 members.
const STREAMS_MAX: u32 = 16;

/// A checked search.
///
/// As JSON it holds every field, so it reads back as itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Map<String, Value>")]
pub struct SearchSpec {
    /// Name of the search, and of the schedule it learns. By default derived from dataset and model.
    #[schema(required = false)]
    pub name: String,
    /// How the members are trained.
    #[serde(flatten)]
    pub training: TrainingSpec,
    /// Images that the members train on. Default: the model's own, but at most half of the split, or all of it
    /// where members are scored with another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub train_size: Option<usize>,
    /// Images that the members are scored with. Default: the model's own, but at most the rest of the split.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub val_size: Option<usize>,
    /// The split whose images the members are scored with: `val`, or what training leaves of `train`. Default:
    /// `val` if the dataset has it; a spec from before there was a choice means `train`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub val_split: Option<SplitName>,
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
    #[schema(required = false, value_type = Vec<String>)]
    pub ops: Vec<Op>,
    /// Strategy: `auto` (the default), `sequential`, `stacked` or `graphs`.
    #[schema(required = false, value_type = String)]
    pub strategy: Strategy,
    /// CUDA streams that the members share with the strategy `graphs`: 1..=16. Default 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 16)]
    pub streams: Option<u32>,
    /// A comparison to start when the search is done: the fields of its spec that shall not be the default
    /// ([`SearchSpec::comparison`]), or true for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub then_compare: Option<Map<String, Value>>,
}

/// The results of a search so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SearchResults {
    /// The best validation accuracy in the population, 0..1.
    pub best_accuracy: Option<f64>,
    /// Name of the schedule that it learned, once done.
    pub schedule: Option<String>,
    /// Digest of that schedule. Its name may be another's by now: then `notes` says so.
    pub schedule_digest: Option<String>,
    /// Number of members.
    pub population: u32,
    /// The members, once the search has started.
    pub members: Vec<MemberResults>,
}

/// A member of the population.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberResults {
    /// Its position, from 0.
    pub id: u32,
    /// Its own last validation accuracy, 0..1; null if it diverged or was not scored.
    pub score: Option<f64>,
    /// Epochs since it last copied another member.
    pub age: u32,
    /// The member that it last copied.
    pub parent: Option<u32>,
}

impl SearchSpec {
    /// The comparison that follows the search, if one is asked for: what the search trains its members with,
    /// with base augmentation only, TrivialAugment, a RandAugment that is tuned on validation images, the schedule
    /// that was learned, and its epochs in a random order.
    ///
    /// # Errors
    /// When `then_compare` is not what a comparison can be asked for.
    pub fn comparison(&self) -> Result<Option<ComparisonSpec>, SpecError> {
        let Some(asked) = &self.then_compare else { return Ok(None) };
        if let Some(field) =
            ["name", "dataset", "preset"].into_iter().find(|field| asked.contains_key(*field))
        {
            let allowed = format!("fields of a comparison besides {field}, which is the search's");
            return Err(SpecError::new("then_compare", Value::Object(asked.clone()), allowed));
        }
        if asked.get("score").and_then(Value::as_str) == Some(Score::Val.name()) {
            let allowed = "score: \"test\", as the schedule is chosen by validation images";
            return Err(SpecError::new("then_compare", Value::Object(asked.clone()), allowed));
        }
        let name = &self.name;
        let Ok(Value::Object(mut fields)) = serde_json::to_value(&self.training) else {
            unreachable!("a spec is written as an object")
        };
        let arms = ["none", "trivial-augment-wide", "randaugment:tuned", name, &format!("{name}@shuffled")];
        for (field, value) in [
            ("name", Value::from(format!("{name}-compared"))),
            ("arms", Value::from(arms.map(str::to_owned).to_vec())),
            ("train_size", self.train_size.into()),
            ("val_size", self.val_size.into()),
            ("strategy", self.strategy.to_string().into()),
        ] {
            fields.insert(field.to_owned(), value);
        }
        fields.extend(asked.clone());
        let tried = ComparisonSpec::try_from(fields.clone());
        if tried.is_ok_and(|spec| !spec.validates()) && !asked.contains_key("val_size") {
            fields.shift_remove("val_size");
        }
        let spec = ComparisonSpec::try_from(fields).map_err(|error| SpecError {
            field: "then_compare".to_owned(),
            allowed: format!("{}: {}", error.field, error.allowed),
            ..error
        })?;
        Ok(Some(spec))
    }

    /// The same search with the sizes of its two sets fixed for a split of `images`.
    ///
    /// # Errors
    /// When the split is too small for them.
    pub fn sized(mut self, images: usize) -> Result<SearchSpec, SpecError> {
        let defaults = self.training.model.defaults();
        if self.is_scored_with_val() {
            let train = self.train_size.unwrap_or(defaults.train_size.min(images));
            if train == 0 || train > images {
                let allowed = format!("1..={images}, the images of the train split");
                return Err(SpecError::new("train_size", train, allowed));
            }
            self.training.check_batch_of(train)?;
            self.train_size = Some(train);
            return Ok(self);
        }
        let (batch, by_default) = (self.training.batch_size, defaults.train_size.min(images / 2));
        let left = images.saturating_sub(self.val_size.unwrap_or(0));
        // What is asked for to score with leaves fewer, but no less than a batch.
        let by_default = if (batch..by_default).contains(&left) { left } else { by_default };
        let train = self.train_size.unwrap_or(by_default);
        if train == 0 || train >= images {
            let allowed = format!("1..={} of the {images} images of the split", images.saturating_sub(1));
            return Err(SpecError::new("train_size", train, allowed));
        }
        let left = images - train;
        let val = self.val_size.unwrap_or(defaults.val_size.min(left));
        if val > left {
            let allowed = match self.train_size {
                Some(_) => {
                    format!("1..={left}, the images of the split ({images}) that train_size ({train}) leaves")
                }
                None => format!(
                    "1..={}, of the {images} images of the split, as a batch is left to train on",
                    left.max(images.saturating_sub(batch))
                ),
            };
            return Err(SpecError::new("val_size", val, allowed));
        }
        self.training.check_batch_of(train)?;
        (self.train_size, self.val_size) = (Some(train), Some(val));
        Ok(self)
    }

    /// Whether members are scored with the dataset's own `val` split.
    pub fn is_scored_with_val(&self) -> bool {
        self.val_split == Some(SplitName::Val)
    }

    /// The same search with the size of the set that it is scored with fixed for a `val` split of `images`.
    ///
    /// # Errors
    /// When the split is too small for it.
    pub fn sized_for_val(mut self, images: usize) -> Result<SearchSpec, SpecError> {
        let val = self.val_size.unwrap_or(self.training.model.defaults().val_size.min(images));
        if val == 0 || val > images {
            let allowed = format!("1..={images}, the images of the val split");
            return Err(SpecError::new("val_size", val, allowed));
        }
        self.val_size = Some(val);
        Ok(self)
    }
}

impl Spec for SearchSpec {
    type Results = SearchResults;

    fn name(&self) -> &str {
        &self.name
    }

    fn rename(&mut self, name: String) {
        self.name = name;
    }

    fn training(&self) -> &TrainingSpec {
        &self.training
    }

    fn models(&self) -> u32 {
        self.population
    }

    fn train_size(&self) -> Option<usize> {
        self.train_size
    }

    fn for_splits(mut self, has_val: bool) -> SearchSpec {
        let split = if has_val { SplitName::Val } else { SplitName::Train };
        self.val_split = self.val_split.or(Some(split));
        self
    }

    fn images_scored(&self) -> u64 {
        let generations = self.training.epochs.div_ceil(self.perturbation_interval);
        self.val_size.unwrap_or(0) as u64 * u64::from(self.population) * u64::from(generations)
    }

    fn streams(&self) -> Option<u32> {
        self.streams
    }

    fn warnings(&self) -> Vec<String> {
        let (interval, epochs) = (self.perturbation_interval, self.training.epochs);
        let mut warnings = self.training.warnings(self.train_size);
        if interval >= epochs {
            warnings.push(format!(
                "perturbation_interval is {interval}, and epochs is {epochs}: no member ever copies another and explores, so \
                 the schedule that is learned augments nothing; use an interval below the epochs"
            ));
        }
        if let (Some(streams), Strategy::Sequential | Strategy::Stacked) = (self.streams, self.strategy) {
            warnings.push(format!(
                "streams is {streams}, which only the strategy graphs uses, not {}",
                self.strategy
            ));
        }
        let later = self.comparison().ok().flatten().map(|comparison| comparison.warnings());
        // Of how the models are trained, the search has said it.
        let later = later.into_iter().flatten().filter(|warning| !warnings.contains(warning));
        let later: Vec<String> = later.map(|warning| format!("then_compare: {warning}")).collect();
        warnings.extend(later);
        warnings
    }

    fn placed_as(&self, other: &SearchSpec) -> SearchSpec {
        let training = self.training.placed_as(&other.training);
        SearchSpec { training, strategy: other.strategy, streams: other.streams, ..self.clone() }
    }
}

impl TryFrom<Map<String, Value>> for SearchSpec {
    type Error = SpecError;

    fn try_from(fields: Map<String, Value>) -> Result<SearchSpec, SpecError> {
        let mut fields = Fields::new(fields);
        fields.fill(Preset::OF_SEARCHES, Preset::of_search)?;
        let spec = SearchSpec {
            name: fields.name("search")?,
            training: fields.training()?,
            train_size: fields.integer("train_size", 1..=IMAGES_MAX)?,
            val_size: fields.integer("val_size", 1..=IMAGES_MAX)?,
            val_split: fields.parsed("val_split", None, |name| {
                let split = SplitName::named(name).filter(|split| *split != SplitName::Test);
                split.map(Some).ok_or("train, val".to_owned())
            })?,
            population: fields.integer("population", 2..=POPULATION_MAX)?.unwrap_or(16),
            perturbation_interval: fields.integer("perturbation_interval", 1..=EPOCHS_MAX)?.unwrap_or(3),
            quantile: fields
                .number("quantile", "a number above 0, up to 0.5", |&q| q > 0.0 && q <= 0.5)?
                .unwrap_or(0.25),
            resample_probability: fields
                .number("resample_probability", "a number in 0..=1", |p| (0.0..=1.0).contains(p))?
                .unwrap_or(0.2),
            ops: fields.ops()?,
            strategy: fields.strategy()?,
            streams: fields.integer("streams", 1..=STREAMS_MAX)?,
            then_compare: fields.then_compare()?,
        };
        fields.close()?;
        spec.comparison()?;
        Ok(spec)
    }
}

impl Fields {
    fn then_compare(&mut self) -> Result<Option<Map<String, Value>>, SpecError> {
        match self.take("then_compare") {
            None | Some(Value::Bool(false)) => Ok(None),
            Some(Value::Bool(true)) => Ok(Some(Map::new())),
            Some(Value::Object(fields)) => Ok(Some(fields)),
            Some(value) => {
                let allowed = "true, or an object of fields of a comparison, such as {\"seeds\": 10}";
                Err(SpecError::new("then_compare", value, allowed))
            }
        }
    }

    fn ops(&mut self) -> Result<Vec<Op>, SpecError> {
        let allowed = || format!("a list of ops, each once, of {}", Op::names());
        let Some(value) = self.take("ops") else { return Ok(Op::PAPER.to_vec()) };
        let names =
            Vec::<String>::deserialize(&value).map_err(|_| SpecError::new("ops", &value, allowed()))?;
        let mut ops = Vec::with_capacity(names.len());
        for name in &names {
            match Op::named(name) {
                Some(op) if !ops.contains(&op) => ops.push(op),
                _ => return Err(SpecError::new("ops", &value, format!("{}; {name:?} is not", allowed()))),
            }
        }
        if ops.is_empty() { Err(SpecError::new("ops", value, allowed())) } else { Ok(ops) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::EvaluationSpec;
    use crate::training::LrSchedule;

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
                "strategy": "stacked", "streams": 8, "precision": "bf16", "model": "wrn-28-2"}"#,
        ] {
            let spec = SearchSpec::from_json(text).unwrap();
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<SearchSpec>(&json).unwrap(), spec);
        }
        let evaluation = EvaluationSpec::from_json(r#"{"ablation": "flatten", "epochs": 10}"#).unwrap();
        let json = serde_json::to_string(&evaluation).unwrap();
        assert_eq!(serde_json::from_str::<EvaluationSpec>(&json).unwrap(), evaluation);
    }

    #[test]
    fn a_comparison_follows_if_it_is_asked_for() {
        let comparison = |text: &str| SearchSpec::from_json(text).unwrap().comparison().unwrap();
        assert_eq!(comparison("{}"), None);
        assert_eq!(comparison(r#"{"then_compare": false}"#), None);
        let spec = comparison(
            r#"{"name": "mine", "model": "tiny", "epochs": 9, "seed": 4, "then_compare": true, "train_size": 50}"#,
        );
        let spec = spec.unwrap();
        assert_eq!((spec.name.as_str(), spec.training.epochs, spec.seeds), ("mine-compared", 9, 5));
        assert_eq!((spec.training.seed, spec.train_size), (4, Some(50)));
        let arms: Vec<String> = spec.arms.iter().map(ToString::to_string).collect();
        assert_eq!(arms.join(" "), "none trivial-augment-wide randaugment:tuned mine mine@shuffled");
        let spec = comparison(r#"{"then_compare": {"seeds": 9, "epochs": 40, "arms": ["none", "search"]}}"#);
        let spec = spec.unwrap();
        assert_eq!((spec.seeds, spec.training.epochs, spec.arms.len()), (9, 40, 2));
        let spec = comparison(r#"{"val_size": 64, "then_compare": {"arms": ["none", "search"]}}"#);
        assert_eq!(spec.unwrap().val_size, None, "nothing is scored on validation images");
        refuse(r#"{"then_compare": {"dataset": "other"}}"#, "then_compare", "dataset, which is the search's");
        refuse(r#"{"then_compare": {"score": "val"}}"#, "then_compare", "chosen by validation images");
        refuse(r#"{"then_compare": 3}"#, "then_compare", "true, or an object");
        refuse(r#"{"then_compare": {"seeds": 0}}"#, "then_compare", "seeds: an integer in 1..=1000");
        refuse(r#"{"then_compare": {"seed_count": 2}}"#, "then_compare", "no such field");
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
        refuse(r#"{"model": "shake-shake-26-2x31d"}"#, "model", "shake-shake-D-2xWd");
        refuse(r#"{"device": "tpu"}"#, "device", "cuda:N");
        refuse(r#"{"strategy": "threads"}"#, "strategy", "stacked");
        refuse(r#"{"streams": 17}"#, "streams", "1..=16");
        refuse(r#"{"precision": "fp16"}"#, "precision", "auto, fp32, bf16");
        refuse(r#"{"name": "a/b"}"#, "name", "letters");
        refuse(r#"{"seed": -1}"#, "seed", "0..=18446744073709551615");
        refuse(r#"{"populations": 4}"#, "populations", "no such field; the fields are name, dataset");
        refuse("[]", "spec", "a JSON object");
        refuse("{", "spec", "unreadable");
    }

    #[test]
    fn images_are_chosen_by_the_seed_unless_asked_otherwise() {
        let seeds = |text: &str| {
            let training = SearchSpec::from_json(text).unwrap().training;
            (training.seed, training.split_seed)
        };
        assert_eq!(seeds("{}"), (0, 0));
        assert_eq!(seeds(r#"{"seed": 7}"#), (7, 7));
        assert_eq!(seeds(r#"{"seed": 7, "split_seed": 0}"#), (7, 0));
        refuse(r#"{"split_seed": -1}"#, "split_seed", "0..=18446744073709551615");
    }

    #[test]
    fn members_are_scored_with_the_datasets_own_val_split_if_there_is_one() {
        let spec = |text: &str| SearchSpec::from_json(text).unwrap();
        let split = |text: &str, has_val| spec(text).for_splits(has_val).val_split;
        assert_eq!(split("{}", true), Some(SplitName::Val));
        assert_eq!(split("{}", false), Some(SplitName::Train));
        assert_eq!(split(r#"{"val_split": "train"}"#, true), Some(SplitName::Train));
        assert_eq!(split(r#"{"preset": "rsvhn"}"#, true), Some(SplitName::Train));
        refuse(r#"{"val_split": "test"}"#, "val_split", "train, val");
        let own = spec(r#"{"val_split": "val"}"#);
        let sized = own.clone().sized(3_000).unwrap().sized_for_val(500).unwrap();
        assert_eq!((sized.train_size, sized.val_size), (Some(3_000), Some(500)), "defaults shrink");
        let bounded =
            spec(r#"{"val_split": "val", "val_size": 501, "train_size": 3000}"#).sized(3_000).unwrap();
        assert_eq!(bounded.val_size, Some(501));
        let error = bounded.sized_for_val(500).unwrap_err().to_string();
        assert_eq!(error, "val_size is 501; allowed: 1..=500, the images of the val split");
        assert_eq!(
            spec(r#"{"val_split": "val", "train_size": 9}"#).sized(8).unwrap_err().field,
            "train_size"
        );
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

    /// The largest sets that fit are allowed, and the next larger ones are not.
    #[test]
    fn sets_are_bounded_by_the_split() {
        // Images to train on and to score with, or the field that is refused.
        let sized = |fields: &str, images| {
            let spec = SearchSpec::from_json(&format!(r#"{{"batch_size": 1 {fields}}}"#)).unwrap();
            let sized = spec.sized(images);
            sized.map(|spec| (spec.train_size.unwrap(), spec.val_size)).map_err(|error| error.field)
        };
        let refused = |field: &str| Err(field.to_owned());
        assert_eq!(sized("", 9), Ok((4, Some(5))), "halves");
        assert_eq!(sized("", 1), refused("train_size"));
        assert_eq!(sized(r#", "train_size": 8"#, 9), Ok((8, Some(1))));
        assert_eq!(sized(r#", "train_size": 9"#, 9), refused("train_size"));
        assert_eq!(sized(r#", "train_size": 3, "val_size": 6"#, 9), Ok((3, Some(6))));
        assert_eq!(sized(r#", "train_size": 3, "val_size": 7"#, 9), refused("val_size"));
        // Those to score with leave fewer to train on, but no less than a batch.
        assert_eq!(sized(r#", "val_size": 5"#, 9), Ok((4, Some(5))));
        assert_eq!(sized(r#", "val_size": 6"#, 9), Ok((3, Some(6))));
        assert_eq!(sized(r#", "val_size": 8"#, 9), Ok((1, Some(8))));
        let of_three = |val: usize| {
            let spec = format!(r#"{{"batch_size": 3, "val_size": {val}}}"#);
            SearchSpec::from_json(&spec).unwrap().sized(9).map_err(|error| error.to_string())
        };
        assert_eq!(of_three(6).map(|spec| spec.train_size), Ok(Some(3)));
        assert_eq!(
            of_three(7).unwrap_err(),
            "val_size is 7; allowed: 1..=6, of the 9 images of the split, as a batch is left to train on"
        );
        let own = r#", "val_split": "val""#;
        assert_eq!(sized(own, 9), Ok((9, None)));
        assert_eq!(sized(own, 0), refused("train_size"));
        assert_eq!(sized(&format!(r#"{own}, "train_size": 9"#), 9), Ok((9, None)));
        assert_eq!(sized(&format!(r#"{own}, "train_size": 10"#), 9), refused("train_size"));
        let for_val = |fields: &str, images| {
            let spec = SearchSpec::from_json(&format!(r#"{{"val_split": "val" {fields}}}"#)).unwrap();
            spec.sized_for_val(images).map(|spec| spec.val_size.unwrap()).map_err(|error| error.field)
        };
        assert_eq!((for_val("", 9), for_val(r#", "val_size": 9"#, 9)), (Ok(9), Ok(9)));
        for (fields, images) in [("", 0), (r#", "val_size": 10"#, 9)] {
            assert_eq!(for_val(fields, images), Err("val_size".to_owned()));
        }
    }

    #[test]
    fn what_a_search_costs_is_known_once_it_is_sized() {
        let spec = SearchSpec::from_json(r#"{"population": 5, "epochs": 10, "batch_size": 4, "streams": 3}"#);
        let spec = spec.unwrap();
        assert_eq!((spec.images(), spec.images_scored(), spec.train_size()), (0, 0, None));
        let sized = SearchSpec { train_size: Some(11), val_size: Some(7), ..spec };
        // Two whole batches of 4 in each epoch; scores after epochs 3, 6, 9 and 10.
        assert_eq!((sized.images(), sized.images_scored()), (8 * 10 * 5, 7 * 5 * 4));
        assert_eq!((sized.models(), sized.models_at_once(), sized.epochs()), (5, 5, 10));
        assert_eq!((sized.streams(), sized.train_size()), (Some(3), Some(11)));
        assert_eq!(SearchSpec::schedules_field(), ("schedule", &[][..]));
        assert!(sized.clone().schedules().is_empty());
    }

    #[test]
    fn validation_images_are_the_searchs_where_a_comparison_needs_them() {
        let val_size = |then: &str| {
            let text = format!(r#"{{"val_size": 64, "then_compare": {then}}}"#);
            SearchSpec::from_json(&text).unwrap().comparison().unwrap().unwrap().val_size
        };
        assert_eq!(val_size("true"), Some(64), "to tune an arm");
        assert_eq!(val_size(r#"{"val_size": 32}"#), Some(32));
        assert_eq!(val_size(r#"{"arms": ["none", "search"]}"#), None);
        // What was asked for and is not needed is refused when the comparison is sized.
        assert_eq!(val_size(r#"{"arms": ["none", "search"], "val_size": 32}"#), Some(32));
    }

    #[test]
    fn what_a_search_cannot_do_is_said() {
        let warnings = |text: &str| SearchSpec::from_json(text).unwrap().warnings();
        for fine in [
            "{}",
            r#"{"epochs": 4, "perturbation_interval": 3}"#,
            r#"{"strategy": "graphs", "streams": 4}"#,
            r#"{"streams": 4}"#,
            r#"{"lr_schedule": {"steps": [80, 199], "factor": 0.1}}"#,
            r#"{"train_size": 1000, "batch_size": 100}"#,
            r#"{"train_size": 1000, "batch_size": 128, "then_compare": true}"#,
        ] {
            assert_eq!(warnings(fine), [""; 0], "{fine}");
        }
        for (text, says) in [
            (r#"{"epochs": 3, "perturbation_interval": 3}"#, "perturbation_interval is 3, and epochs is 3"),
            (r#"{"epochs": 2}"#, "augments nothing"),
            (
                r#"{"strategy": "stacked", "streams": 4}"#,
                "streams is 4, which only the strategy graphs uses, not stacked",
            ),
            (
                r#"{"epochs": 100, "lr_schedule": {"steps": [50, 100, 120], "factor": 0.1}}"#,
                "at epoch 100, 120, which never",
            ),
            (r#"{"train_size": 127, "batch_size": 64}"#, "63 images are left out of each epoch"),
            (r#"{"then_compare": {"seeds": 1}}"#, "then_compare: seeds is 1"),
        ] {
            let warnings = warnings(text);
            assert!(matches!(&warnings[..], [warning] if warning.contains(says)), "{text}: {warnings:?}");
        }
    }

    #[test]
    fn bounds_are_allowed() {
        let spec = SearchSpec::from_json(
            r#"{"quantile": 0.5, "population": 256, "streams": 16, "lr": 1000, "weight_decay": 1000,
                "resample_probability": 1, "epochs": 1000000, "batch_size": 65536,
                "lr_schedule": {"steps": [1], "factor": 1}}"#,
        );
        assert_eq!(spec.unwrap().quantile, 0.5);
        refuse(r#"{"lr": 1000.5}"#, "lr", "up to 1000");
        refuse(r#"{"weight_decay": 1000.5}"#, "weight_decay", "0..=1000");
        refuse(r#"{"lr_schedule": {"steps": [1], "factor": 1.5}}"#, "lr_schedule", "up to 1");
        refuse(r#"{"lr_schedule": {"steps": [1], "factor": -1}}"#, "lr_schedule", "above 0");
        refuse(r#"{"lr_schedule": {"steps": [1, 1], "factor": 1}}"#, "lr_schedule", "ascending");
    }

    #[test]
    fn learning_rates_by_hand() {
        let cosine = LrSchedule::Cosine;
        assert_eq!(cosine.factor(0, 31, 200), 1.0);
        assert!((cosine.factor(3_100, 31, 200) - 0.5).abs() < 1e-12);
        // The cosines of 60, 120 and 180 degrees.
        for (step, factor) in [(10, 0.75), (20, 0.25), (30, 0.0)] {
            assert!((cosine.factor(step, 3, 10) - factor).abs() < 1e-12, "step {step}");
        }
        let steps = LrSchedule::Steps { steps: vec![80, 120], factor: 0.1 };
        let at = |epoch: u64| steps.factor(epoch * 7 + 3, 7, 160);
        assert_eq!((at(79), at(80), at(119)), (1.0, 0.1, 0.1));
        assert!((at(120) - 0.01).abs() < 1e-15);
    }
}
