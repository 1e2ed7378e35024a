//! The journal: what happened in a search, one JSON object a line.
//!
//! It holds no clock and no machine, so an interrupted and an uninterrupted run of one spec
//! leave the same bytes. A search resumes at its last [`Event::Checkpoint`]: [`replay`] gives the
//! state at it, and the length of the text up to it; what comes after is cut off, and happens
//! again in the same way.

use crate::event::Event;
use crate::search::Search;

/// What a journal tells: where its search stands.
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

/// A journal that no search can have written, at its first wrong line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the journal: {reason}")]
pub struct JournalError {
    /// 1-based line number.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// Replays a journal. `None` when it holds no complete line: nothing has happened yet.
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
