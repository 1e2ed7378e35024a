//! The part of the API that all kinds of job share.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waiting for its turn.
    Queued,
    /// Being trained.
    Running,
    /// Finished successfully.
    Done,
    /// Ended with an error.
    Failed,
    /// Cancelled by a request.
    Cancelled,
}

impl JobState {
    /// Every state.
    pub const ALL: [JobState; 5] =
        [JobState::Queued, JobState::Running, JobState::Done, JobState::Failed, JobState::Cancelled];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }

    /// Whether it has ended.
    pub fn is_final(self) -> bool {
        matches!(self, JobState::Done | JobState::Failed | JobState::Cancelled)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The part of a job's state that all kinds share.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct JobStanding {
    /// Its state.
    pub state: JobState,
    /// Reason of the failure, if it failed.
    pub error: Option<String>,
}

/// The server-sent event with a job's progress ([`Progress`](pba_specs::Progress)); it has no id.
pub const PROGRESS: &str = "progress";
/// The server-sent event with a job's state; it has no id. All other events are those of the job's
/// journal, whose ids are their line numbers from 1.
pub const STATE: &str = "state";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_written_by_their_names() {
        for state in JobState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
    }
}
