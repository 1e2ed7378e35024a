//! The part of the API that all kinds of job share.

use std::collections::BTreeMap;

use pba_specs::{Progress, Spec, TrainingPlace};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pba_types::named! {
    /// State of a job.
    #[derive(Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum JobState {
        /// Waiting for its turn.
        Queued = "queued",
        /// Being trained.
        Running = "running",
        /// Finished successfully.
        Done = "done",
        /// Ended with an error.
        Failed = "failed",
        /// Cancelled by a request.
        Cancelled = "cancelled",
    }
}

impl JobState {
    /// Whether it has ended.
    pub fn is_final(self) -> bool {
        matches!(self, JobState::Done | JobState::Failed | JobState::Cancelled)
    }
}

/// A job of any kind, by its spec and its results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobAnswer<S, R> {
    /// Its id, which is its name.
    pub id: String,
    /// Its state.
    pub state: JobState,
    /// When it was requested: RFC 3339, in UTC. Earlier servers do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub created: Option<String>,
    /// Finished epochs; in a search, those after which every member has been scored.
    pub epoch: u32,
    /// Total epochs.
    pub epochs: u32,
    /// Its results so far.
    #[serde(flatten)]
    pub results: R,
    /// Time spent training, in seconds.
    pub seconds: f64,
    /// Reason of the failure, if it failed.
    pub error: Option<String>,
    /// The dataset that it trains on.
    pub dataset: String,
    /// The network that it trains.
    pub model: String,
    /// Where it trains, or trained last; null before it has run.
    pub place: Option<TrainingPlace>,
    /// Progress of its trainer, while it runs.
    pub progress: Option<Progress>,
    /// What keeps it from training, while it waits and that is known; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub waiting: Option<String>,
    /// Whether it was asked to end with its generation, and has not yet; absent otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub finishing: bool,
    /// The search that it follows, if it is a comparison that was promised to one; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub follows: Option<String>,
    /// Its schedules that were replaced or removed since it learned them or was requested with them, in words;
    /// absent where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub notes: Vec<String>,
    /// Fields of its spec with which it can be trained, but which cannot do what they are for, in words; absent where
    /// there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub warnings: Vec<String>,
    /// Its spec, with the server's defaults filled in.
    pub spec: S,
}

/// The answer about a job with a spec of type `S`, each of whose fields is optional in a request.
pub type Job<S> = JobAnswer<S, <S as Spec>::Results>;

/// Every job of a kind, by id, under the plural of the kind's name.
pub type JobList<S> = BTreeMap<String, Vec<Job<S>>>;

/// The part of the answer that is needed to follow a job.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct JobStanding {
    /// Its state.
    pub state: JobState,
}

/// The server-sent event with a job's progress ([`Progress`]); it has no id.
pub const PROGRESS: &str = "progress";
/// The server-sent event with a job when its state or its place changes; it has no id.
pub const STATE: &str = "state";
/// The server-sent event in place of events of the journal that are lost ([`Missing`]). All other events are those of the
/// job's journal. Ids begin with the number of the journal's line, from 1, and here with that of the last of them.
pub const MISSING: &str = "missing";

/// Lines of a job's journal that are not told, as the first of them is no longer as its trainer wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The first of them, from 1.
    pub first: usize,
    /// The last of them.
    pub last: usize,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Missing { first, last } = self;
        write!(
            f,
            "line {first} of the journal is no longer as its trainer wrote it, and nothing is told of it and of what \
             follows, up to line {last}"
        )
    }
}

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
