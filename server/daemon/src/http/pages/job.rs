//! What the pages show of a job of any kind.

use std::sync::Arc;

use pba_search::protocol::JobKind;
use pba_search::{Comparison, Evaluation, Run, Search, Spec};
use pba_wire::jobs::{Job, JobState};

use crate::app::App;
use crate::draw::figures;
use crate::http::pages::{Shell, segment};
use crate::jobs::record::Record;

/// A kind of job as a page lists it.
pub(super) trait Listed: Run {
    /// What came of it so far, in a few words.
    fn result(job: &Job<Self::Spec>) -> String;
}

impl Listed for Search {
    fn result(job: &Job<Self::Spec>) -> String {
        match job.results.best_accuracy {
            Some(_) => format!("best accuracy {}", figures::percent(job.results.best_accuracy)),
            None => String::new(),
        }
    }
}

impl Listed for Comparison {
    fn result(job: &Job<Self::Spec>) -> String {
        let results = &job.results;
        let done = || format!("{} of {} runs", results.runs_done, results.runs);
        results.recommended.as_ref().map_or_else(done, |arm| format!("recommended: {arm}"))
    }
}

impl Listed for Evaluation {
    fn result(job: &Job<Self::Spec>) -> String {
        match job.results.test_error {
            Some(error) => {
                format!("test error {} with {}", figures::percent(Some(error)), job.results.schedule)
            }
            None => format!("with {}", job.results.schedule),
        }
    }
}

/// A job in a list.
pub(super) struct JobRow {
    pub(super) kind: &'static str,
    pub(super) page: String,
    pub(super) id: String,
    pub(super) standing: Standing,
    pub(super) result: String,
    state: JobState,
    created: u128,
}

impl JobRow {
    /// Its place in a list: what runs stands above what waits, and that above what has ended; the latest first.
    pub(super) fn rank(&self) -> (usize, std::cmp::Reverse<u128>) {
        (rank(self.state), std::cmp::Reverse(self.created))
    }

    pub(super) fn is_running(&self) -> bool {
        self.state == JobState::Running
    }
}

fn rank(state: JobState) -> usize {
    match state {
        JobState::Running => 0,
        JobState::Queued => 1,
        JobState::Done | JobState::Failed | JobState::Cancelled => 2,
    }
}

/// The first jobs of a kind in the order of a list, one more than are shown.
pub(super) fn rows<K: Listed>(app: &App, shown: usize) -> Vec<JobRow> {
    let mut records: Vec<Arc<Record<K>>> = app.jobs.of::<K>().list();
    records.sort_by_cached_key(|record| (rank(record.state()), std::cmp::Reverse(record.created())));
    let row = |record: &Arc<Record<K>>| {
        let job = record.answer(&app.registry);
        JobRow {
            kind: K::JOB.name,
            page: format!("/{}/{}", K::JOB.plural, segment(&job.id)),
            standing: Standing::of::<K>(&job),
            result: K::result(&job),
            state: job.state,
            created: record.created(),
            id: job.id,
        }
    };
    records.iter().take(shown + 1).map(row).collect()
}

/// How a job stands.
pub(super) struct Standing {
    /// The state, or `finishing`.
    pub(super) state: &'static str,
    pub(super) epoch: u32,
    pub(super) epochs: u32,
    /// Share of the training that is finished, in percent.
    pub(super) percent: f64,
    pub(super) place: String,
    pub(super) seconds: String,
    /// The time that it still takes; empty where that is not known.
    pub(super) left: String,
    pub(super) images_per_second: String,
    pub(super) model: String,
    pub(super) dataset: String,
    /// What its user should know: why it failed or waits, and what became of its schedules.
    pub(super) notes: Vec<String>,
    /// What it was asked that cannot do what it is for.
    pub(super) warnings: Vec<String>,
    pub(super) is_failed: bool,
}

impl Standing {
    pub(super) fn of<K: Run>(job: &Job<K::Spec>) -> Standing {
        let progress = job.progress.as_ref();
        let fraction = match (job.state, progress) {
            (JobState::Done, _) => 1.0,
            (_, Some(progress)) => progress.fraction,
            (_, None) => f64::from(job.epoch) / f64::from(job.epochs.max(1)),
        };
        let waits = job.waiting.as_ref().map(|reason| format!("waits: {reason}"));
        let place_note = job.place.as_ref().and_then(|place| place.note.clone());
        let known = [job.error.clone(), waits, place_note].into_iter().flatten();
        Standing {
            state: if job.finishing { "finishing" } else { job.state.name() },
            epoch: progress.map_or(job.epoch, |progress| progress.epoch),
            epochs: job.epochs,
            percent: 100.0 * fraction.clamp(0.0, 1.0),
            place: job.place.as_ref().map(ToString::to_string).unwrap_or_default(),
            seconds: figures::duration(job.seconds),
            left: progress
                .and_then(|progress| progress.seconds_left)
                .map(figures::duration)
                .unwrap_or_default(),
            images_per_second: progress
                .map(|progress| figures::short(progress.images_per_second))
                .unwrap_or_default(),
            model: job.model.clone(),
            dataset: job.dataset.clone(),
            notes: known.chain(job.notes.iter().cloned()).collect(),
            warnings: job.warnings.clone(),
            is_failed: job.state == JobState::Failed,
        }
    }
}

/// Something that a page can ask of the server about a job.
pub(super) struct Action {
    /// What its button says.
    pub(super) name: &'static str,
    pub(super) method: &'static str,
    pub(super) url: String,
    /// What is asked before; nothing where it can be undone.
    pub(super) question: String,
    /// The page to go to afterwards; empty to stay.
    pub(super) then: &'static str,
}

/// Whether the schedule of a name is here as a job learned it or was requested with it: neither removed nor another.
pub(super) fn is_as_it_was<K: Run>(app: &App, record: &Record<K>, name: &str) -> bool {
    app.registry.get(name).is_ok_and(|found| record.check_same(&found).is_ok())
}

/// What can be asked about a job in its state, by who is shown the page.
pub(super) fn actions<S: Spec, R>(
    shell: &Shell,
    kind: &JobKind,
    job: &pba_wire::jobs::JobAnswer<S, R>,
    finishes: bool,
) -> Vec<Action> {
    let base = format!("/v1/{}/{}", kind.plural, segment(&job.id));
    let action =
        |name, method, url: String, question: String, then| Action { name, method, url, question, then };
    let mut actions = Vec::new();
    if !shell.may_change {
        return actions;
    }
    match job.state {
        JobState::Queued | JobState::Running => {
            if finishes && !job.finishing {
                let question = format!(
                    "End {:?} with the generation that it trains now? Its schedule is that of the best member so far.",
                    job.id
                );
                actions.push(action("Finish", "POST", format!("{base}/finish"), question, ""));
            }
            let question = format!("Cancel {:?}? It can be resumed.", job.id);
            actions.push(action("Cancel", "DELETE", base, question, ""));
        }
        JobState::Failed | JobState::Cancelled => {
            actions.push(action("Resume", "POST", format!("{base}/resume"), String::new(), ""));
            actions.push(remove(kind, &job.id, &base));
        }
        JobState::Done => actions.push(remove(kind, &job.id, &base)),
    }
    actions
}

fn remove(kind: &JobKind, id: &str, base: &str) -> Action {
    let stays = if kind.learns { " The schedule that it learned stays." } else { "" };
    Action {
        name: "Remove",
        method: "POST",
        url: format!("{base}/remove"),
        question: format!("Remove {} {id:?} with its files? This cannot be undone.{stays}", kind.name),
        then: "/",
    }
}
