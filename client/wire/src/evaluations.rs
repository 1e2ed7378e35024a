//! `/v1/evaluations`: the answers. A request is an [`EvaluationSpec`] in which every field is optional,
//! and whose schedule may also be a digest.

use pba_schedules::Ablation;
use pba_specs::{EvaluationSpec, Progress};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::jobs::JobState;

/// Every evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationList {
    /// The evaluations, by id.
    pub evaluations: Vec<EvaluationAnswer>,
}

impl From<Vec<EvaluationAnswer>> for EvaluationList {
    fn from(evaluations: Vec<EvaluationAnswer>) -> EvaluationList {
        EvaluationList { evaluations }
    }
}

/// State and result of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationStanding {
    /// Its state.
    pub state: JobState,
    /// Finished epochs.
    pub epoch: u32,
    /// Total epochs.
    pub epochs: u32,
    /// Share of the test images that the model gets wrong, 0..1, once done; null if it diverged.
    pub test_error: Option<f64>,
    /// Mean loss over the last finished epoch; null if the model diverged.
    pub train_loss: Option<f64>,
    /// Number of images that the model was tested on, once done.
    pub images: Option<usize>,
    /// The split that the model was tested on, once done.
    pub split: Option<String>,
    /// Time spent training, in seconds.
    pub seconds: f64,
    /// Reason of the failure, if it failed.
    pub error: Option<String>,
}

/// An evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationAnswer {
    /// Id of the evaluation, which is its name.
    pub id: String,
    /// Its state and result.
    #[serde(flatten)]
    pub standing: EvaluationStanding,
    /// The dataset that it trains on.
    pub dataset: String,
    /// The network that it trains.
    pub model: String,
    /// The schedule that it trains with, or `none`.
    pub schedule: String,
    /// Ablation of the schedule.
    #[schema(value_type = String)]
    pub ablation: Ablation,
    /// Progress of its trainer, while it runs.
    pub progress: Option<Progress>,
    /// Its spec, with every default filled in.
    pub spec: EvaluationSpec,
}
