//! The progress of a job.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a job trains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrainingPlace {
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// How the models share it: `sequential`, `stacked` or `graphs`.
    pub strategy: String,
    /// Numbers that convolutions compute with: `fp32` or `bf16`.
    pub precision: String,
    /// Number of CPU threads.
    pub threads: usize,
    /// What keeps it from a GPU that the machine has; null if nothing does.
    pub note: Option<String>,
}

impl fmt::Display for TrainingPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.device, self.strategy, self.precision)
    }
}

/// The progress of a trainer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Epochs that every member has trained.
    pub epoch: u32,
    /// Total epochs.
    pub epochs: u32,
    /// Share of the training that is finished, 0..=1.
    pub fraction: f64,
    /// Images trained, over all members and from the start of the run.
    pub images: u64,
    /// Images trained per second by this process, scoring and saving included.
    pub images_per_second: f64,
    /// Seconds since this process began to train.
    pub seconds: f64,
    /// Estimated remaining seconds; null before the first step.
    pub seconds_left: Option<f64>,
    /// GPU memory in use by all programs after the last epoch; null on a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_used_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_words() {
        let (device, strategy, precision) = ("cuda:1".to_owned(), "graphs".to_owned(), "bf16".to_owned());
        let place = TrainingPlace { device, strategy, precision, threads: 2, note: None };
        assert_eq!(place.to_string(), "cuda:1, graphs, bf16");
    }
}
