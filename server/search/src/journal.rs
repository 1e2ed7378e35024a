//! The journal: what happened in a search, one JSON object a line.
//!
//! It holds no clock and no machine, so an interrupted and an uninterrupted run of one spec
//! leave the same bytes. A search resumes at its last [`Event::Checkpoint`]: [`replay`] gives the
//! state at it, and the length of the text up to it; what comes after is cut off, and happens
//! again in the same way.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::search::Search;
use crate::spec::SearchSpec;

/// Something that happened.
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
    /// A member copied another and explored its policy.
    Exploit(Exploit),
    /// The weights of all members after an epoch, and everything above, are on disk.
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

    /// The event as a line of the journal, with its line feed.
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("an event is written as JSON");
        line.push('\n');
        line
    }
}

/// What a journal says.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// The search, at its last checkpoint, or done.
    pub search: Search,
    /// Digest of the dataset that it began with.
    pub dataset_digest: String,
    /// Bytes of the text that led there. What follows them is to be cut off.
    pub bytes: usize,
    /// Events in those bytes.
    pub events: usize,
}

/// A journal that no search can have written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the journal: {reason}")]
pub struct JournalError {
    /// 1-based line number.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// Replays a journal. `None` when it holds no whole line: nothing happened yet.
///
/// A last line without a line feed was being written when the process ended, and is dropped.
///
/// # Errors
/// At a line that is not an event, or that cannot follow the lines before it.
pub fn replay(text: &str) -> Result<Option<Replay>, JournalError> {
    let mut kept: Option<Replay> = None;
    let mut current: Option<Search> = None;
    let mut bytes = 0;
    for (position, line) in text.split_inclusive('\n').filter(|line| line.ends_with('\n')).enumerate() {
        let error = |reason: String| JournalError { line: position + 1, reason };
        let event: Event = serde_json::from_str(line).map_err(|reason| error(reason.to_string()))?;
        bytes += line.len();
        match (&mut current, &event) {
            (None, Event::Started { spec, dataset_digest }) => {
                let search = Search::new((**spec).clone());
                current = Some(search.clone());
                kept = Some(Replay { search, dataset_digest: dataset_digest.clone(), bytes, events: 1 });
            }
            (None, _) => return Err(error("a search begins with a started event".to_owned())),
            (Some(search), event) => {
                search.apply(event).map_err(error)?;
                if let (Event::Checkpoint { .. } | Event::Done(_), Some(kept)) = (event, &mut kept) {
                    kept.search = search.clone();
                    kept.bytes = bytes;
                    kept.events = position + 1;
                }
            }
        }
    }
    Ok(kept)
}
