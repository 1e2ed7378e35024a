//! The events of a search.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use pba_specs::SearchSpec;

/// An event of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The search began.
    Started {
        /// What it was asked to do, with every default filled in.
        spec: Box<SearchSpec>,
        /// Digest of the dataset's content.
        dataset_digest: String,
    },
    /// A generation was trained, and its members scored.
    Scored {
        /// Epochs that every member has trained.
        epoch: u32,
        /// Validation accuracy by member, 0..1; null when it diverged.
        scores: Vec<Option<f64>>,
    },
    /// The search was asked to end with this generation: no member copies another, and its schedule is that of the
    /// best member so far.
    Finished {
        /// Epochs that every member has trained.
        epoch: u32,
    },
    /// A member copied another and explored its policy.
    Exploit(Exploit),
    /// A generation ended, exploits included. The search can resume from here once the members are saved, which
    /// happens beside the training and shows in no journal: the trainer reports it
    /// ([`pba_specs::protocol::Report::Saved`]).
    Checkpoint {
        /// Epochs that every member has trained.
        epoch: u32,
    },
    /// The search ended.
    Done(Done),
}

/// A member that copied another and explored its policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exploit {
    /// Epochs that every member has trained.
    pub epoch: u32,
    /// The member that is overwritten.
    pub target: u32,
    /// The member that is copied.
    pub clone: u32,
    /// Score of the target before; null when it diverged.
    pub target_score: Option<f64>,
    /// Score of the clone.
    pub clone_score: Option<f64>,
    /// The clone's policy, `[p0, m0, p1, m1, ...]`.
    pub clone_policy: Vec<u8>,
    /// What the target explored from it.
    pub policy: Vec<u8>,
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The member that scored best.
    pub winner: u32,
    /// Its validation accuracy; null when every member diverged.
    pub score: Option<f64>,
    /// Digest of the schedule.
    pub digest: String,
    /// The winner's lineage, as a `pba-schedule/1` document.
    pub schedule: Value,
}

impl Event {
    /// The scores after `epoch` epochs.
    pub fn scored(epoch: u32, scores: &[f64]) -> Event {
        let score = |&score: &f64| (!score.is_nan()).then_some(score);
        Event::Scored { epoch, scores: scores.iter().map(score).collect() }
    }
}
