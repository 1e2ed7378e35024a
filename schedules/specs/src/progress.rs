//! How far a job is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far a trainer is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Epochs that every member has trained.
    pub epoch: u32,
    /// Epochs in all.
    pub epochs: u32,
    /// Share of the training that is done, 0..=1.
    pub fraction: f64,
    /// Images trained, over all members and from the start of the run.
    pub images: u64,
    /// Images trained per second by this process, scoring and saving included.
    pub images_per_second: f64,
    /// Seconds since this process began to train.
    pub seconds: f64,
    /// Seconds that it will take at this rate; null before the first step.
    pub seconds_left: Option<f64>,
    /// Memory in use on the GPU after the last epoch, by everyone; none on a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_used_bytes: Option<u64>,
}
