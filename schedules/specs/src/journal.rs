//! The journal of a run: what happened in it, one JSON object a line.
//!
//! It holds no clock and no machine, so an interrupted and an uninterrupted run of one spec
//! leave the same bytes. A run resumes at an event after which it [can](Run::can_resume_after), the last one
//! whose models are on disk: [`replay_to`] gives the state at it, and the length of the text up to it; what
//! comes after is cut off, and happens again in the same way. [`replay`] is for whoever looks on.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::comparison::ComparisonSpec;
use crate::fields::SpecError;
use crate::protocol::JobKind;
use crate::training::Spec;
use pba_schedules::Schedule;

/// One run of a kind of job: a fold of the events in its journal.
pub trait Run: Clone + Send + Sync + 'static {
    /// What kind of job it is.
    const JOB: &'static JobKind;
    /// What it is asked to do.
    type Spec: Spec;
    /// What happens in it. No event is named as a [`Report`](crate::protocol::Report), or `state`.
    type Event: Serialize + DeserializeOwned + Send + 'static;

    /// The run that an event begins, with the digest of its dataset; none for any other event.
    fn begin(event: &Self::Event) -> Option<(Self, &str)>;

    /// Moves on by one event.
    ///
    /// # Errors
    /// When the event cannot follow the ones before it; says why.
    fn apply(&mut self, event: &Self::Event) -> Result<(), String>;

    /// Whether a run can go on after an event, given the models as they are then.
    fn can_resume_after(_event: &Self::Event) -> bool {
        true
    }

    /// Whether its models begin anew where it stands, so that it can go on without any that were saved.
    fn begins_anew(&self) -> bool {
        self.epoch() == 0
    }

    /// What it was asked to do.
    fn spec(&self) -> &Self::Spec;

    /// Epochs that are finished.
    fn epoch(&self) -> u32;

    /// Whether it has the result that it was started for.
    fn is_complete(&self) -> bool;

    /// The schedule it learned, once it is complete; none if its kind learns none.
    fn schedule(&self) -> Option<&Schedule> {
        None
    }

    /// Why another job that is `asked` for cannot be, because of this one; `is_over` once this one has
    /// ended, `same_data` where both train on the same files.
    fn excludes(
        _run: Option<&Self>,
        _spec: &Self::Spec,
        _is_over: bool,
        _asked: &Self::Spec,
        _same_data: bool,
    ) -> Option<SpecError> {
        None
    }

    /// The comparison that a job is, or that follows it once it is done.
    fn comparison(_spec: &Self::Spec) -> Option<ComparisonSpec> {
        None
    }

    /// Its results so far, for the API. There is no run before it has begun; `is_done` once its schedule
    /// is registered.
    fn results(run: Option<&Self>, spec: &Self::Spec, is_done: bool) -> <Self::Spec as Spec>::Results;
}

/// An event as a line of the journal, with its line feed.
pub fn line(event: &impl Serialize) -> String {
    let mut line = serde_json::to_string(event).expect("an event is written as JSON");
    line.push('\n');
    line
}

/// What a journal tells: where its job stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay<R> {
    /// The run, where it can resume, or done.
    pub run: R,
    /// Digest of the dataset that it began with.
    pub dataset_digest: String,
    /// Bytes of the text that led there. What follows them is to be cut off.
    pub bytes: usize,
    /// Events in those bytes.
    pub events: usize,
}

/// A journal that no run can have written, at its first wrong line.
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
pub fn replay<R: Run>(text: &str) -> Result<Option<Replay<R>>, JournalError> {
    replay_to(text, u32::MAX)
}

/// Replays a journal up to the last event at which the run has finished `epoch` epochs or fewer; all of it when
/// the run is complete.
///
/// # Errors
/// As [`replay`].
pub fn replay_to<R: Run>(text: &str, epoch: u32) -> Result<Option<Replay<R>>, JournalError> {
    let mut state: Option<(R, Replay<R>)> = None;
    let mut bytes = 0;
    for (position, line) in text.split_inclusive('\n').filter(|line| line.ends_with('\n')).enumerate() {
        let error = |reason: String| JournalError { line: position + 1, reason };
        let event: R::Event = serde_json::from_str(line).map_err(|reason| error(reason.to_string()))?;
        bytes += line.len();
        let Some((current, kept)) = &mut state else {
            let begun = R::begin(&event).ok_or_else(|| error(format!("{} begins otherwise", R::JOB.one)))?;
            let (run, dataset_digest) = (begun.0.clone(), begun.1.to_owned());
            state = Some((begun.0, Replay { run, dataset_digest, bytes, events: 1 }));
            continue;
        };
        current.apply(&event).map_err(error)?;
        if R::can_resume_after(&event) && (current.epoch() <= epoch || current.is_complete()) {
            kept.run = current.clone();
            (kept.bytes, kept.events) = (bytes, position + 1);
        }
    }
    Ok(state.map(|(_, kept)| kept))
}
