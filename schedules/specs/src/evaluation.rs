//! An evaluation: one model from scratch, with a schedule or none, and its test error.

use pba_schedules::{Ablation, library};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::fields::{Fields, SpecError};
use crate::journal::Run;
use crate::preset::Preset;
use crate::protocol::JobKind;
use crate::training::{IMAGES_MAX, Spec, TrainingSpec};

/// A checked evaluation: one model, trained from scratch with or without a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Map<String, Value>")]
pub struct EvaluationSpec {
    /// Name of the evaluation. By default derived from dataset and model.
    #[schema(required = false)]
    pub name: String,
    /// The schedule to train with, or a policy such as `randaugment:2:9`, by name; or `none` (the default):
    /// base augmentation only.
    #[schema(required = false)]
    pub schedule: String,
    /// How the model is trained.
    #[serde(flatten)]
    pub training: TrainingSpec,
    /// Images that the model trains on. Default: all of the split.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub train_size: Option<usize>,
    /// Ablation of the schedule: `scheduled` (the default), `flatten`, `shuffled` or `final`.
    #[schema(required = false, value_type = String)]
    pub ablation: Ablation,
}

/// The results of an evaluation so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationResults {
    /// The schedule that it trains with, or `none`.
    pub schedule: String,
    /// Ablation of the schedule.
    #[schema(value_type = String)]
    pub ablation: Ablation,
    /// Mean loss over the last finished epoch; null if the model diverged.
    pub train_loss: Option<f64>,
    /// Share of the test images that the model gets wrong, 0..1, once done; null if it diverged.
    pub test_error: Option<f64>,
    /// Number of images that the model was tested on, once done.
    pub images: Option<usize>,
    /// The split that the model was tested on, once done.
    pub split: Option<String>,
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
            let allowed = format!("1..={images}, the images of the split");
            return Err(SpecError::new("train_size", train, allowed));
        }
        self.training.check_batch_of(train)?;
        self.train_size = Some(train);
        Ok(self)
    }
}

impl Spec for EvaluationSpec {
    type Results = EvaluationResults;

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
        Some(&mut self.schedule).filter(|name| *name != EvaluationSpec::NO_SCHEDULE).into_iter().collect()
    }

    fn schedules_field() -> (&'static str, &'static [&'static str]) {
        ("schedule", &[EvaluationSpec::NO_SCHEDULE])
    }

    fn models(&self) -> u32 {
        1
    }

    fn train_size(&self) -> Option<usize> {
        self.train_size
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.training.warnings(self.train_size);
        let is_constant =
            || matches!(library::named(&self.schedule), Ok(Some(policy)) if policy.is_constant());
        if self.ablation != Ablation::Scheduled && is_constant() {
            let Self { schedule, ablation, .. } = self;
            warnings.push(format!(
                "ablation is {ablation}, which changes nothing: {schedule} is one policy throughout"
            ));
        }
        warnings
    }

    fn placed_as(&self, other: &EvaluationSpec) -> EvaluationSpec {
        EvaluationSpec { training: self.training.placed_as(&other.training), ..self.clone() }
    }
}

impl TryFrom<Map<String, Value>> for EvaluationSpec {
    type Error = SpecError;

    fn try_from(fields: Map<String, Value>) -> Result<EvaluationSpec, SpecError> {
        let mut fields = Fields::new(fields);
        fields.fill(&Preset::ALL, Preset::of_evaluation)?;
        let spec = EvaluationSpec {
            name: fields.name("evaluation")?,
            schedule: fields.text("schedule", EvaluationSpec::NO_SCHEDULE)?,
            training: fields.training()?,
            train_size: fields.integer("train_size", 1..=IMAGES_MAX)?,
            ablation: fields.parsed("ablation", Ablation::Scheduled, |name| {
                Ablation::named(name).ok_or_else(Ablation::names)
            })?,
        };
        fields.close()?;
        Ok(spec)
    }
}

/// What happens in an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EvaluationEvent {
    /// The evaluation began.
    Evaluating {
        /// What it was asked to do, with every default filled in.
        spec: Box<EvaluationSpec>,
        /// Digest of the schedule; null without one.
        schedule_digest: Option<String>,
        /// Digest of the dataset's content.
        dataset_digest: String,
    },
    /// An epoch was trained.
    Trained {
        /// Epochs that are finished.
        epoch: u32,
        /// Mean loss over the epoch; null when the model diverged.
        train_loss: Option<f64>,
    },
    /// The evaluation ended.
    Evaluated(Evaluated),
}

/// How an evaluation ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Epochs that were trained.
    pub epoch: u32,
    /// The split it was tested on: `test`, or `val` where there is no other.
    pub split: String,
    /// Images of that split.
    pub images: usize,
    /// Share of them that the model gets wrong; null when it diverged.
    pub test_error: Option<f64>,
    /// Mean loss over the last epoch; null when it diverged.
    pub train_loss: Option<f64>,
}

/// Where an evaluation stands: a fold of its [`EvaluationEvent`]s.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    spec: EvaluationSpec,
    /// Digest of the schedule that it trains with.
    pub schedule_digest: Option<String>,
    epoch: u32,
    /// Mean loss over the last finished epoch; none before the first, and when the model diverged.
    pub train_loss: Option<f64>,
    /// How it ended, once it has.
    pub outcome: Option<Evaluated>,
}

impl Run for Evaluation {
    const JOB: &'static JobKind = &JobKind {
        name: "evaluation",
        one: "an evaluation",
        plural: "evaluations",
        command: "evaluate",
        result: "a test error",
        learns: false,
    };
    type Spec = EvaluationSpec;
    type Event = EvaluationEvent;

    fn begin(event: &EvaluationEvent) -> Option<(Evaluation, &str)> {
        let EvaluationEvent::Evaluating { spec, schedule_digest, dataset_digest } = event else {
            return None;
        };
        let (spec, schedule_digest) = ((**spec).clone(), schedule_digest.clone());
        let run = Evaluation { spec, schedule_digest, epoch: 0, train_loss: None, outcome: None };
        Some((run, dataset_digest))
    }

    fn apply(&mut self, event: &EvaluationEvent) -> Result<(), String> {
        match event {
            EvaluationEvent::Evaluating { .. } => return Err("an evaluation starts once".to_owned()),
            EvaluationEvent::Trained { epoch, train_loss } => {
                if *epoch != self.epoch + 1 || *epoch > self.spec.training.epochs {
                    return Err(format!("epoch {epoch} is finished after epoch {}", self.epoch));
                }
                (self.epoch, self.train_loss) = (*epoch, *train_loss);
            }
            EvaluationEvent::Evaluated(outcome) => {
                if self.epoch != self.spec.training.epochs {
                    return Err(format!("tested after epoch {}", self.epoch));
                }
                self.outcome = Some(outcome.clone());
            }
        }
        Ok(())
    }

    fn spec(&self) -> &EvaluationSpec {
        &self.spec
    }

    fn epoch(&self) -> u32 {
        self.epoch
    }

    fn is_complete(&self) -> bool {
        self.outcome.is_some()
    }

    fn results(run: Option<&Evaluation>, spec: &EvaluationSpec, _is_done: bool) -> EvaluationResults {
        let outcome = run.and_then(|run| run.outcome.as_ref());
        EvaluationResults {
            schedule: spec.schedule.clone(),
            ablation: spec.ablation,
            train_loss: run.and_then(|run| run.train_loss),
            test_error: outcome.and_then(|outcome| outcome.test_error),
            images: outcome.map(|outcome| outcome.images),
            split: outcome.map(|outcome| outcome.split.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{line, replay, replay_to};

    #[test]
    fn a_journal_gives_where_an_evaluation_stands() {
        let spec = EvaluationSpec::from_json(r#"{"epochs": 2, "schedule": "mine"}"#).unwrap();
        let outcome =
            Evaluated { epoch: 2, split: "test".into(), images: 10, test_error: Some(0.3), train_loss: None };
        let events = [
            EvaluationEvent::Evaluating {
                spec: Box::new(spec),
                schedule_digest: Some("5d".to_owned()),
                dataset_digest: "77".to_owned(),
            },
            EvaluationEvent::Trained { epoch: 1, train_loss: Some(2.25) },
            EvaluationEvent::Trained { epoch: 2, train_loss: None },
            EvaluationEvent::Evaluated(outcome.clone()),
        ];
        let text: String = events.iter().map(line).collect();
        let whole = replay::<Evaluation>(&text).unwrap().unwrap();
        assert_eq!((whole.run.epoch(), whole.run.outcome), (2, Some(outcome)));
        assert_eq!((whole.dataset_digest.as_str(), whole.run.schedule_digest), ("77", Some("5d".to_owned())));
        let torn = replay::<Evaluation>(&text[..text.find("\"epoch\":2,\"train").unwrap()]).unwrap().unwrap();
        assert_eq!((torn.run.epoch(), torn.run.train_loss, torn.events), (1, Some(2.25), 2));
        for (wrong, says) in [
            (&[0, 0][..], "line 2 of the journal: an evaluation starts once"),
            (&[0, 2], "line 2 of the journal: epoch 2 is finished after epoch 0"),
            (&[0, 3], "line 2 of the journal: tested after epoch 0"),
            (&[0, 1, 1], "line 3 of the journal: epoch 1 is finished after epoch 1"),
            (&[0, 1, 3], "line 3 of the journal: tested after epoch 1"),
            (&[1, 2], "line 1 of the journal: an evaluation begins otherwise"),
        ] {
            let text: String = wrong.iter().map(|&at| line(&events[at])).collect();
            assert_eq!(replay::<Evaluation>(&text).unwrap_err().to_string(), says, "{wrong:?}");
        }
        let beyond = line(&EvaluationEvent::Trained { epoch: 3, train_loss: None });
        let error = replay::<Evaluation>(&[&text[..], &beyond].concat()).unwrap_err().to_string();
        assert_eq!(error, "line 5 of the journal: epoch 3 is finished after epoch 2");
    }

    /// Wherever a journal is cut, it gives the run at its last complete line, and where that ends; asked for an
    /// epoch, it gives the run at it, unless the run is complete.
    #[test]
    fn every_prefix_of_a_journal_gives_where_the_run_stood() {
        let spec = EvaluationSpec::from_json(r#"{"epochs": 5, "schedule": "mine"}"#).unwrap();
        let begun = EvaluationEvent::Evaluating {
            spec: Box::new(spec.clone()),
            schedule_digest: None,
            dataset_digest: "77".to_owned(),
        };
        let trained =
            (1..=5).map(|epoch| EvaluationEvent::Trained { epoch, train_loss: Some(1.0 / f64::from(epoch)) });
        let outcome =
            Evaluated { epoch: 5, split: "val".into(), images: 9, test_error: Some(0.5), train_loss: None };
        let ended = EvaluationEvent::Evaluated(outcome);
        let text: String =
            [begun].into_iter().chain(trained).chain([ended]).map(|event| line(&event)).collect();
        let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        assert_eq!(ends.len(), 7);
        for cut in 0..=text.len() {
            let lines = ends.iter().filter(|&&end| end <= cut).count();
            let replayed = replay::<Evaluation>(&text[..cut]).unwrap();
            let Some(last) = lines.checked_sub(1) else {
                assert_eq!(replayed, None);
                continue;
            };
            let replayed = replayed.unwrap();
            assert_eq!((replayed.bytes, replayed.events), (ends[last], lines));
            let (run, epoch) = (&replayed.run, last.min(5) as u32);
            assert_eq!((run.spec(), run.epoch(), run.is_complete()), (&spec, epoch, lines == 7));
            assert_eq!(run.begins_anew(), epoch == 0);
            for asked in 0..=6 {
                let to = replay_to::<Evaluation>(&text[..cut], asked).unwrap().unwrap();
                let events = if lines == 7 { 7 } else { lines.min(asked as usize + 1) };
                assert_eq!((to.bytes, to.events), (ends[events - 1], events), "{lines} lines, epoch {asked}");
            }
            let results = Evaluation::results(Some(run), &spec, false);
            assert_eq!(results.train_loss, (epoch > 0).then(|| 1.0 / f64::from(epoch)));
            let of_end = (results.test_error, results.images, results.split.as_deref());
            let expected = if lines == 7 { (Some(0.5), Some(9), Some("val")) } else { (None, None, None) };
            assert_eq!(of_end, expected);
        }
        let before = Evaluation::results(None, &spec, false);
        assert_eq!((before.schedule.as_str(), before.train_loss, before.images), ("mine", None, None));
    }

    #[test]
    fn the_set_must_fit_the_split() {
        let sized = |train_size: Option<usize>, images| {
            let spec = EvaluationSpec::from_json(r#"{"batch_size": 1}"#).unwrap();
            let sized = EvaluationSpec { train_size, ..spec }.sized(images);
            sized.map(|spec| spec.train_size().unwrap()).map_err(|error| error.to_string())
        };
        assert_eq!((sized(None, 9), sized(Some(9), 9), sized(Some(1), 9)), (Ok(9), Ok(9), Ok(1)));
        for (asked, images) in [(Some(10), 9), (Some(0), 9), (None, 0)] {
            let allowed = format!("allowed: 1..={images}, the images of the split");
            assert!(sized(asked, images).unwrap_err().ends_with(&allowed), "{asked:?} of {images}");
        }
    }

    #[test]
    fn an_ablation_that_changes_nothing_is_told() {
        let warnings = |schedule: &str, ablation: &str| {
            let text = format!(r#"{{"schedule": {schedule:?}, "ablation": {ablation:?}}}"#);
            EvaluationSpec::from_json(&text).unwrap().warnings()
        };
        assert_eq!(warnings("trivial-augment-wide", "scheduled"), [""; 0]);
        assert_eq!(warnings("cifar10-pba", "flatten"), [""; 0]);
        let told = warnings("trivial-augment-wide", "flatten");
        assert_eq!(
            told,
            ["ablation is flatten, which changes nothing: trivial-augment-wide is one policy throughout"]
        );
    }

    #[test]
    fn its_schedule_may_be_none() {
        let mut named = EvaluationSpec::from_json(r#"{"schedule": "mine"}"#).unwrap();
        assert_eq!(named.schedules(), ["mine"]);
        let mut without = EvaluationSpec::from_json("{}").unwrap();
        assert!(without.schedules().is_empty());
        assert_eq!(EvaluationSpec::schedules_field(), ("schedule", &["none"][..]));
    }
}
