//! `/v1/evaluations`: what is answered. A request is an [`EvaluationSpec`] in which every field is
//! optional, and whose schedule may also be a digest.

use pba_schedules::Ablation;
use pba_specs::{EvaluationSpec, Progress};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::jobs::JobState;

/// Every evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationList {
    /// By id.
    pub evaluations: Vec<EvaluationAnswer>,
}

impl From<Vec<EvaluationAnswer>> for EvaluationList {
    fn from(evaluations: Vec<EvaluationAnswer>) -> EvaluationList {
        EvaluationList { evaluations }
    }
}

/// Where an evaluation stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationStanding {
    /// Its state.
    pub state: JobState,
    /// Epochs that are finished.
    pub epoch: u32,
    /// Epochs in all.
    pub epochs: u32,
    /// Share of the images that the model gets wrong, 0..1, once it is done; null when it diverged.
    pub test_error: Option<f64>,
    /// Mean loss over the last finished epoch; null when the model diverged.
    pub train_loss: Option<f64>,
    /// Images that it was tested on, once it is done.
    pub images: Option<usize>,
    /// The split that it was tested on, once it is done.
    pub split: Option<String>,
    /// Time spent training.
    pub seconds: f64,
    /// Why it failed.
    pub error: Option<String>,
}

/// An evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationAnswer {
    /// Its name.
    pub id: String,
    /// Where it stands.
    #[serde(flatten)]
    pub standing: EvaluationStanding,
    /// The dataset that it trains on.
    pub dataset: String,
    /// The network that it trains.
    pub model: String,
    /// The schedule that it trains with, or `none`.
    pub schedule: String,
    /// How the schedule is bent.
    #[schema(value_type = String)]
    pub ablation: Ablation,
    /// How far its trainer is, while it runs.
    pub progress: Option<Progress>,
    /// What it was asked to do, with every default filled in.
    pub spec: EvaluationSpec,
}
