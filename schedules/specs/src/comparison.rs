//! The spec of a comparison.

use std::collections::BTreeMap;

use pba_schedules::{Ablation, library};
use pba_types::{check_name, names_allowed};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::arm::Arm;
use crate::fields::{Fields, SpecError};
use crate::preset::Preset;
use crate::report::{ComparisonResults, Score};
use crate::training::{IMAGES_MAX, Spec, Strategy, TrainingSpec};

/// Most arms of a comparison, and most runs of one: the answer lists every run.
const ARMS_MAX: usize = 64;
const SEEDS_MAX: u32 = 1_000;
const AT_ONCE_MAX: u32 = 256;
/// Seeds that a tuned arm is tried with, unless the spec says otherwise.
const TUNING_SEEDS: u32 = 2;

/// A checked comparison: every arm trained from scratch with every seed.
///
/// Runs of one seed are paired: they train on the same images, from the same weights, in the same
/// order, and whatever else they draw comes from the same numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Map<String, Value>")]
pub struct ComparisonSpec {
    /// Name of the comparison. By default derived from dataset and model.
    #[schema(required = false)]
    pub name: String,
    /// How each model is trained.
    #[serde(flatten)]
    pub training: TrainingSpec,
    /// Images that each model trains on. Default: the whole training split, less `val_size` where that is
    /// needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub train_size: Option<usize>,
    /// Validation images, where the score is `val` or an arm is tuned. Default: the model's own, but at
    /// most half of the split.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub val_size: Option<usize>,
    /// The arms, 2..=64 of them: `none`, `identity`, `cutout:N`, `random:K`, `randaugment:tuned`, `NAME`
    /// or `NAME@ABLATION` of a schedule. The first is the baseline. Default `none` and
    /// `trivial-augment-wide`.
    #[schema(required = false, value_type = Vec<String>)]
    #[serde(serialize_with = "as_texts")]
    pub arms: Vec<Arm>,
    /// Arms that are samples of one thing, by its name: as several searches' schedules, or random ones.
    /// They are compared as one, and the unit of replication is the arm.
    #[schema(required = false, value_type = BTreeMap<String, Vec<String>>)]
    #[serde(skip_serializing_if = "BTreeMap::is_empty", serialize_with = "as_lists")]
    pub groups: BTreeMap<String, Vec<Arm>>,
    /// Seeds that each arm is trained with: 1..=1000. Default 5.
    #[schema(required = false, minimum = 1, maximum = 1_000)]
    pub seeds: u32,
    /// What the models are scored on: `test` (the default) or `val`.
    #[schema(required = false)]
    pub score: Score,
    /// Whether the test split may be opened although an earlier comparison opened it.
    #[schema(required = false)]
    pub again: bool,
    /// A difference of so many percentage points would not matter: 0..=100. Default 0.5.
    #[schema(required = false, minimum = 0, maximum = 100)]
    pub margin: f64,
    /// Seeds that each setting of a tuned arm is tried with: 1..=1000. Default 2.
    #[schema(required = false, minimum = 1, maximum = 1_000)]
    pub tuning_seeds: u32,
    /// Runs that are trained side by side: 1..=256. Default 16.
    #[schema(required = false, minimum = 1, maximum = 256)]
    pub at_once: u32,
    /// Strategy: `auto` (the default), `sequential`, `stacked` or `graphs`.
    #[schema(required = false, value_type = String)]
    pub strategy: Strategy,
}

impl ComparisonSpec {
    /// Whether an arm is tuned.
    pub fn tunes(&self) -> bool {
        self.arms.contains(&Arm::Tuned)
    }

    /// Whether it needs validation images.
    pub fn validates(&self) -> bool {
        self.score == Score::Val || self.tunes()
    }

    /// The same comparison with the sizes of its sets fixed for a training split of `images`.
    ///
    /// `val_images` is the size of the dataset's own validation split, if it has one: then nothing is
    /// held out of the training split.
    ///
    /// # Errors
    /// When a split is too small for them, or two arms are one augmentation.
    pub fn sized(mut self, images: usize, val_images: Option<usize>) -> Result<ComparisonSpec, SpecError> {
        if let Some((one, other)) = self.alike() {
            let allowed = format!("arms that differ; {one} and {other} are one augmentation here");
            return Err(SpecError::new("arms", other, allowed));
        }
        let defaults = self.training.model.defaults();
        let mut left = images;
        if self.validates() {
            let (most, of) = match val_images {
                Some(most) => (most, "the images of the val split".to_owned()),
                None => {
                    // What is asked for leaves a batch to train on, unless there is none in any case.
                    let batch = self.training.batch_size;
                    let is_asked = self.val_size.is_some() && self.train_size.is_none();
                    let (kept, why) = match is_asked && batch < images {
                        true => (batch, ", as a batch is left to train on"),
                        false => (1, ""),
                    };
                    let most = images.saturating_sub(kept);
                    (most, format!("of the {images} images of the training split{why}"))
                }
            };
            let most_by_default = if val_images.is_some() { most } else { images / 2 };
            let val = self.val_size.unwrap_or(defaults.val_size.min(most_by_default));
            if val == 0 || val > most {
                return Err(SpecError::new("val_size", val, format!("1..={most}, {of}")));
            }
            self.val_size = Some(val);
            if val_images.is_none() {
                left -= val;
            }
        } else if let Some(val) = self.val_size {
            let allowed =
                "none: nothing is scored on validation images unless score is val or an arm is tuned";
            return Err(SpecError::new("val_size", val, allowed));
        }
        let train = self.train_size.unwrap_or(left);
        if train == 0 || train > left {
            let allowed = format!("1..={left}, the images that are left to train on");
            return Err(SpecError::new("train_size", train, allowed));
        }
        self.training.check_batch_of(train)?;
        self.train_size = Some(train);
        Ok(self)
    }

    /// Two arms that do the same to every image, whatever the schedules hold.
    fn alike(&self) -> Option<(&Arm, &Arm)> {
        // As far as it is known: the server fills in the dataset's own.
        let base = self.training.base.as_deref();
        let plain = |arm: &Arm| match arm {
            Arm::Identity if base == Some("identity") => Arm::Base,
            Arm::Cutout(_) if base.is_some_and(|base| base.split(',').any(|op| op == arm.to_string())) => {
                Arm::Base
            }
            // A policy that never changes has no order.
            Arm::Schedule { name, .. } if matches!(library::named(name), Ok(Some(policy)) if policy.is_constant()) => {
                Arm::Schedule { name: name.clone(), ablation: Ablation::Scheduled }
            }
            _ => arm.clone(),
        };
        let arms: Vec<Arm> = self.arms.iter().map(plain).collect();
        (0..arms.len()).find_map(|other| {
            let one = arms[..other].iter().position(|arm| *arm == arms[other])?;
            Some((&self.arms[one], &self.arms[other]))
        })
    }

    /// Runs in all.
    pub fn runs(&self) -> u32 {
        self.arms.len() as u32 * self.seeds + self.tuning_runs()
    }

    /// Runs of the tuning, which come before the others.
    pub fn tuning_runs(&self) -> u32 {
        if self.tunes() { Arm::candidates().len() as u32 * self.tuning_seeds } else { 0 }
    }

    /// Why it cannot run after `earlier`, if that is to be scored on the same test split: of a dataset of the same
    /// name, or with `same_data` under another one.
    pub fn conflict(&self, earlier: &ComparisonSpec, same_data: bool) -> Option<SpecError> {
        let opens = |spec: &ComparisonSpec| spec.score == Score::Test;
        let same = same_data || self.training.dataset == earlier.training.dataset;
        (opens(self) && opens(earlier) && same && !self.again).then(|| {
            let allowed = format!(
                "\"val\" to go on choosing, or \"again\": true (--again): comparison {:?} has opened the test split \
                 of {:?}, or is to open it, and a test split that is chosen by is no test split any more",
                earlier.name, earlier.training.dataset
            );
            SpecError::new("score", "\"test\"", allowed)
        })
    }
}

impl Spec for ComparisonSpec {
    type Results = ComparisonResults;

    fn name(&self) -> &str {
        &self.name
    }

    fn rename(&mut self, name: String) {
        self.name = name;
    }

    fn training(&self) -> &TrainingSpec {
        &self.training
    }

    fn schedules(&mut self) -> Vec<&mut String> {
        let named = |arm| match arm {
            &mut Arm::Schedule { ref mut name, .. } => Some(name),
            _ => None,
        };
        self.arms.iter_mut().chain(self.groups.values_mut().flatten()).filter_map(named).collect()
    }

    fn schedules_field() -> (&'static str, &'static [&'static str]) {
        ("arms", &Arm::SPECIAL)
    }

    fn epochs(&self) -> u32 {
        let rounds = |runs: u32| runs.div_ceil(self.at_once);
        let rounds = rounds(self.tuning_runs()) + rounds(self.runs() - self.tuning_runs());
        self.training.epochs.saturating_mul(rounds)
    }

    fn models(&self) -> u32 {
        self.runs()
    }

    fn models_at_once(&self) -> u32 {
        self.at_once.min(self.runs())
    }

    fn train_size(&self) -> Option<usize> {
        self.train_size
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.training.warnings(self.train_size);
        if self.seeds == 1 && self.groups.is_empty() {
            let why = "differences have neither an interval nor a verdict; use 2 or more";
            warnings.push(format!("seeds is 1: {why}"));
        }
        if self.margin == 0.0 {
            warnings
                .push("margin is 0: no two arms can ever be found to be as good as each other".to_owned());
        }
        if self.tuning_seeds != TUNING_SEEDS && !self.tunes() {
            let seeds = self.tuning_seeds;
            warnings.push(format!(
                "tuning_seeds is {seeds}, and no arm is tuned: {} is none of the arms",
                Arm::Tuned
            ));
        }
        if self.again && self.score == Score::Val {
            warnings.push("again is true, and score is val: the test split is not opened".to_owned());
        }
        warnings
    }

    fn placed_as(&self, other: &ComparisonSpec) -> ComparisonSpec {
        let training = self.training.placed_as(&other.training);
        ComparisonSpec { training, strategy: other.strategy, ..self.clone() }
    }
}

impl TryFrom<Map<String, Value>> for ComparisonSpec {
    type Error = SpecError;

    fn try_from(fields: Map<String, Value>) -> Result<ComparisonSpec, SpecError> {
        let mut fields = Fields::new(fields);
        fields.fill(&Preset::ALL, Preset::of_comparison)?;
        let arms = fields.arms()?;
        let spec = ComparisonSpec {
            name: fields.name("comparison")?,
            training: fields.training()?,
            train_size: fields.integer("train_size", 1..=IMAGES_MAX)?,
            val_size: fields.integer("val_size", 1..=IMAGES_MAX)?,
            groups: fields.groups(&arms)?,
            arms,
            seeds: fields.integer("seeds", 1..=SEEDS_MAX)?.unwrap_or(5),
            score: fields.parsed("score", Score::Test, |name| Score::named(name).ok_or_else(Score::names))?,
            again: fields.flag("again")?,
            margin: fields
                .number("margin", "a number of percentage points in 0..=100", |margin| {
                    (0.0..=100.0).contains(margin)
                })?
                .unwrap_or(0.5),
            tuning_seeds: fields.integer("tuning_seeds", 1..=SEEDS_MAX)?.unwrap_or(TUNING_SEEDS),
            at_once: fields.integer("at_once", 1..=AT_ONCE_MAX)?.unwrap_or(16),
            strategy: fields.strategy()?,
        };
        fields.close()?;
        if spec.score == Score::Val && spec.tunes() {
            let allowed = "\"test\", as an arm is tuned on the validation images";
            return Err(SpecError::new("score", "\"val\"", allowed));
        }
        Ok(spec)
    }
}

impl Fields {
    fn arms(&mut self) -> Result<Vec<Arm>, SpecError> {
        let Some(value) = self.take("arms") else {
            return Ok(["none", "trivial-augment-wide"].map(|arm| arm.parse().expect("an arm")).into());
        };
        let arms = list("arms", &value)?;
        if !(2..=ARMS_MAX).contains(&arms.len()) {
            return Err(SpecError::new(
                "arms",
                value,
                format!("2..={ARMS_MAX} arms, as there is nothing to compare in one"),
            ));
        }
        Ok(arms)
    }

    fn groups(&mut self, arms: &[Arm]) -> Result<BTreeMap<String, Vec<Arm>>, SpecError> {
        let Some(value) = self.take("groups") else { return Ok(BTreeMap::new()) };
        let wrong = |allowed: String| Err(SpecError::new("groups", &value, allowed));
        let Value::Object(groups) = &value else {
            return wrong("an object of lists of arms by name".to_owned());
        };
        let mut read = BTreeMap::new();
        for (name, members) in groups {
            let members = list("groups", members)?;
            if let Some(stranger) = members.iter().find(|member| !arms.contains(member)) {
                return wrong(format!("groups of arms of the comparison; {stranger} of {name:?} is none"));
            }
            if check_name(name).is_err() {
                return wrong(format!("groups whose names are of {}; {name:?} is not", names_allowed()));
            }
            if arms.iter().any(|arm| arm.to_string() == *name) || !matches!(library::named(name), Ok(None)) {
                return wrong(format!("names that no arm has; {name:?} is an arm"));
            }
            if let Some(twice) = members.iter().find(|arm| read.values().flatten().any(|other| other == *arm))
            {
                return wrong(format!("every arm in one group; {twice} is in two"));
            }
            if members.len() < 2 {
                return wrong(format!("groups of two arms or more; {name:?} has {}", members.len()));
            }
            read.insert(name.clone(), members);
        }
        Ok(read)
    }
}

/// A list of arms, each once.
fn list(field: &str, value: &Value) -> Result<Vec<Arm>, SpecError> {
    let texts: Vec<&str> = value
        .as_array()
        .and_then(|list| list.iter().map(Value::as_str).collect())
        .ok_or_else(|| SpecError::new(field, value, "a list of the names of arms"))?;
    let mut arms: Vec<Arm> = Vec::with_capacity(texts.len());
    for text in texts {
        let arm = text.parse().map_err(|allowed| SpecError::new(field, format!("{text:?}"), allowed))?;
        if arms.contains(&arm) {
            return Err(SpecError::new(field, format!("{text:?}, twice"), "every arm once"));
        }
        arms.push(arm);
    }
    Ok(arms)
}

fn as_texts<S: serde::Serializer>(arms: &[Arm], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(arms.iter().map(Arm::to_string))
}

fn as_lists<S: serde::Serializer>(
    groups: &BTreeMap<String, Vec<Arm>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let texts = |arms: &Vec<Arm>| arms.iter().map(Arm::to_string).collect::<Vec<_>>();
    serializer.collect_map(groups.iter().map(|(name, arms)| (name, texts(arms))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_comparison_cannot_show_is_said() {
        let warnings = |text: &str| ComparisonSpec::from_json(text).unwrap().warnings();
        for fine in [
            "{}",
            r#"{"arms": ["none", "randaugment:tuned"], "tuning_seeds": 3}"#,
            r#"{"seeds": 1, "arms": ["none", "random:1", "random:2"], "groups": {"drawn": ["random:1", "random:2"]}}"#,
            r#"{"again": true}"#,
        ] {
            assert_eq!(warnings(fine), [""; 0], "{fine}");
        }
        for (text, says) in [
            (r#"{"seeds": 1}"#, "seeds is 1"),
            (r#"{"margin": 0}"#, "margin is 0"),
            (r#"{"tuning_seeds": 3}"#, "randaugment:tuned is none of the arms"),
            (r#"{"again": true, "score": "val"}"#, "the test split is not opened"),
        ] {
            let warnings = warnings(text);
            assert!(matches!(&warnings[..], [warning] if warning.contains(says)), "{text}: {warnings:?}");
        }
    }

    #[test]
    fn a_spec_reads_back_as_itself() {
        for text in [
            "{}",
            r#"{"arms": ["none", "a", "a@shuffled", "random:1", "randaugment:tuned", "cutout:8"],
                "groups": {"a-or-not": ["a", "random:1"]}, "seeds": 1, "margin": 0}"#,
        ] {
            let spec = ComparisonSpec::from_json(text).unwrap();
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<ComparisonSpec>(&json).unwrap(), spec);
        }
    }

    #[track_caller]
    fn refuse(text: &str, field: &str, says: &str) {
        let error = ComparisonSpec::from_json(text).unwrap_err();
        assert_eq!(error.field, field, "{error}");
        assert!(error.to_string().contains(says), "{error} does not say {says:?}");
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        refuse(r#"{"seeds": 0}"#, "seeds", "1..=1000");
        refuse(r#"{"arms": ["none"]}"#, "arms", "2..=64");
        refuse(r#"{"arms": ["none", "none"]}"#, "arms", "twice");
        refuse(r#"{"arms": ["none", "mine@sorted"]}"#, "arms", "shuffled");
        refuse(r#"{"arms": "none"}"#, "arms", "a list");
        refuse(r#"{"arms": ["none", 3]}"#, "arms", "a list");
        refuse(r#"{"score": "train"}"#, "score", "test");
        refuse(r#"{"again": 1}"#, "again", "true or false");
        refuse(r#"{"margin": -1}"#, "margin", "0..=100");
        refuse(r#"{"arms": ["none", "a"], "groups": {"g": ["a", "b"]}}"#, "groups", "b of \"g\"");
        refuse(r#"{"arms": ["none", "a"], "groups": {"a": ["none", "a"]}}"#, "groups", "is an arm");
        refuse(r#"{"arms": ["none", "a"], "groups": {"g": ["a"]}}"#, "groups", "two arms");
        let groups = |groups: &str| format!(r#"{{"arms": ["none", "a", "b"], "groups": {{{groups}}}}}"#);
        refuse(&groups(r#""g": ["a", "b"], "h": ["none", "b"]"#), "groups", "b is in two");
        refuse(&groups(r#""a b": ["a", "b"]"#), "groups", "a b");
        refuse(&groups(r#""trivial-augment-wide": ["a", "b"]"#), "groups", "is an arm");
        refuse(r#"{"arms": ["none", "randaugment:tuned"], "score": "val"}"#, "score", "tuned");
        refuse(r#"{"at_once": 0}"#, "at_once", "1..=256");
    }

    #[test]
    fn arms_that_are_one_augmentation_are_refused_but_read_back() {
        let sized = |base: &str, arms: &str| {
            let text = format!(r#"{{"base": "{base}", "arms": ["none", {arms}]}}"#);
            ComparisonSpec::from_json(&text).unwrap().sized(1_000, None)
        };
        for (base, arms, says) in [
            ("flip,cutout:8", r#""cutout:8""#, "none and cutout:8 are one"),
            ("identity", r#""identity""#, "none and identity are one"),
            (
                "flip",
                r#""trivial-augment-wide", "trivial-augment-wide@shuffled""#,
                "trivial-augment-wide@shuffled are one",
            ),
        ] {
            let error = sized(base, arms).unwrap_err();
            assert_eq!(error.field, "arms", "{error}");
            assert!(error.to_string().contains(says), "{error} does not say {says:?}");
        }
        let differ = r#""cutout:16", "identity", "cifar10-pba", "cifar10-pba@shuffled""#;
        assert!(sized("flip,cutout:8", differ).is_ok());
    }

    #[test]
    fn sets_must_fit_the_splits() {
        let spec = |text: &str| ComparisonSpec::from_json(text).unwrap();
        let sized = spec("{}").sized(3_000, None).unwrap();
        assert_eq!((sized.train_size, sized.val_size), (Some(3_000), None), "no validation images");
        let sized = spec(r#"{"score": "val"}"#).sized(6_000, None).unwrap();
        assert_eq!((sized.train_size, sized.val_size), (Some(3_000), Some(3_000)));
        let sized = spec(r#"{"score": "val"}"#).sized(6_000, Some(500)).unwrap();
        assert_eq!((sized.train_size, sized.val_size), (Some(6_000), Some(500)));
        let refused = |text: &str| spec(text).sized(1_000, None).unwrap_err().field;
        assert_eq!(refused(r#"{"train_size": 1001}"#), "train_size");
        assert_eq!(refused(r#"{"score": "val", "val_size": 1000}"#), "val_size");
        assert_eq!(refused(r#"{"val_size": 10}"#), "val_size");
        assert_eq!(refused(r#"{"train_size": 100}"#), "batch_size");
        assert_eq!(refused(r#"{"score": "val", "val_size": 900, "train_size": 100}"#), "batch_size");
        // Of validation images that leave less than a batch, it is they that are too many.
        let all_but_a_batch =
            |val: usize| spec(&format!(r#"{{"score": "val", "val_size": {val}}}"#)).sized(1_000, None);
        assert_eq!(all_but_a_batch(872).unwrap().train_size, Some(128));
        assert_eq!(
            all_but_a_batch(873).unwrap_err().to_string(),
            "val_size is 873; allowed: 1..=872, of the 1000 images of the training split, as a batch is left to train on"
        );
        assert_eq!(
            spec(r#"{"score": "val", "val_size": 10}"#).sized(128, None).unwrap_err().field,
            "batch_size"
        );
    }

    /// The largest sets that fit are allowed, and the next larger ones are not.
    #[test]
    fn sets_are_bounded_by_the_splits() {
        // Images to train on and to validate with, or the field that is refused.
        let sized = |fields: &str, images, val_images| {
            let spec = ComparisonSpec::from_json(&format!(r#"{{"batch_size": 1, {fields}}}"#)).unwrap();
            let sized = spec.sized(images, val_images);
            sized.map(|spec| (spec.train_size.unwrap(), spec.val_size)).map_err(|error| error.field)
        };
        let refused = |field: &str| Err(field.to_owned());
        let (test, val) = (r#""score": "test""#, r#""score": "val""#);
        assert_eq!(sized(test, 9, None), Ok((9, None)));
        assert_eq!(sized(test, 0, None), refused("train_size"));
        assert_eq!(sized(r#""train_size": 9"#, 9, None), Ok((9, None)));
        assert_eq!(sized(r#""train_size": 10"#, 9, None), refused("train_size"));
        // Without a split of their own, validation images are half of the training split, unless they are few.
        assert_eq!(sized(val, 9, None), Ok((5, Some(4))));
        assert_eq!(sized(val, 1, None), refused("val_size"));
        assert_eq!(sized(r#""score": "val", "val_size": 8"#, 9, None), Ok((1, Some(8))));
        assert_eq!(sized(r#""score": "val", "val_size": 9"#, 9, None), refused("val_size"));
        assert_eq!(
            sized(r#""score": "val", "val_size": 4, "train_size": 6"#, 9, None),
            refused("train_size")
        );
        // With one, all of it and all of the training split.
        assert_eq!(sized(val, 9, Some(7)), Ok((9, Some(7))));
        assert_eq!(sized(val, 9, Some(0)), refused("val_size"));
        assert_eq!(sized(r#""score": "val", "val_size": 7"#, 9, Some(7)), Ok((9, Some(7))));
        assert_eq!(sized(r#""score": "val", "val_size": 8"#, 9, Some(7)), refused("val_size"));
        // An arm that is tuned needs them, whatever is scored.
        let tuned = r#""arms": ["none", "randaugment:tuned"]"#;
        assert_eq!(sized(tuned, 9, None), Ok((5, Some(4))));
    }

    #[test]
    fn runs_are_arms_times_seeds_and_those_of_the_tuning() {
        let spec = |text: &str| ComparisonSpec::from_json(text).unwrap();
        let plain = spec(r#"{"arms": ["none", "a", "b"], "seeds": 4, "epochs": 7, "at_once": 5}"#);
        assert_eq!((plain.tunes(), plain.tuning_runs(), plain.runs()), (false, 0, 12));
        // 12 runs, 5 side by side, are 3 rounds.
        assert_eq!((plain.epochs(), plain.models(), plain.models_at_once()), (21, 12, 5));
        let text = r#"{"arms": ["none", "randaugment:tuned"], "seeds": 4, "tuning_seeds": 3, "epochs": 7}"#;
        let tuned = spec(text);
        assert_eq!((tuned.tunes(), tuned.tuning_runs(), tuned.runs()), (true, 30, 38));
        // 30 runs, 16 side by side, are 2 rounds, and the other 8 a round of their own.
        assert_eq!((tuned.epochs(), tuned.models_at_once()), (21, 16));
        let small = spec(r#"{"seeds": 1, "train_size": 9}"#);
        assert_eq!((small.models_at_once(), small.train_size()), (2, Some(9)));
    }

    #[test]
    fn schedules_are_those_of_arms_and_groups() {
        let text = r#"{"arms": ["none", "a", "b@final"], "groups": {"g": ["a", "b@final"]}}"#;
        let mut spec = ComparisonSpec::from_json(text).unwrap();
        for name in spec.schedules() {
            name.push_str("-1");
        }
        let names = |arms: &[Arm]| arms.iter().map(Arm::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(names(&spec.arms), "none a-1 b-1@final");
        assert_eq!(names(&spec.groups["g"]), "a-1 b-1@final");
        assert_eq!(ComparisonSpec::schedules_field(), ("arms", &Arm::SPECIAL[..]));
    }

    #[test]
    fn as_many_arms_as_are_allowed() {
        let arms = |count: usize| {
            let names: Vec<String> = (0..count).map(|arm| format!("a{arm}")).collect();
            ComparisonSpec::from_json(&format!(r#"{{"arms": {names:?}}}"#)).map(|spec| spec.arms.len())
        };
        assert_eq!((arms(2), arms(64)), (Ok(2), Ok(64)));
        assert_eq!(arms(65).unwrap_err().field, "arms");
    }

    #[test]
    fn the_test_split_is_opened_once() {
        let spec = |text: &str| ComparisonSpec::from_json(text).unwrap();
        let earlier = spec("{}");
        let error = spec("{}").conflict(&earlier, false).unwrap();
        assert!(error.to_string().contains("--again"), "{error}");
        assert!(spec(r#"{"dataset": "other"}"#).conflict(&earlier, true).is_some());
        for other in [r#"{"again": true}"#, r#"{"score": "val"}"#, r#"{"dataset": "other"}"#] {
            assert_eq!(spec(other).conflict(&earlier, false), None, "{other}");
        }
        assert_eq!(earlier.conflict(&spec(r#"{"score": "val"}"#), true), None);
    }
}
