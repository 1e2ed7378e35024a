//! The spec of an evaluation.

use pba_schedules::Ablation;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::fields::{Fields, SpecError};
use crate::training::{IMAGES_MAX, Spec, TrainingSpec};

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

/// What an evaluation has come to.
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

    fn schedule(&self) -> Option<&str> {
        Some(self.schedule.as_str()).filter(|name| *name != EvaluationSpec::NO_SCHEDULE)
    }

    fn images_per_epoch(&self) -> u64 {
        self.training.full_batches(self.train_size)
    }

    fn placed_as(&self, other: &EvaluationSpec) -> EvaluationSpec {
        let training = TrainingSpec { device: other.training.device, ..self.training.clone() };
        EvaluationSpec { training, ..self.clone() }
    }
}

impl TryFrom<Map<String, Value>> for EvaluationSpec {
    type Error = SpecError;

    fn try_from(fields: Map<String, Value>) -> Result<EvaluationSpec, SpecError> {
        let mut fields = Fields::new(fields);
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
