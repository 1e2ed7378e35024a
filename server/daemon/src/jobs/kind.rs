//! The differences of the kinds of job. They share everything else: the queue, the supervisor and the
//! records on disk.

use std::path::Path;
use std::sync::Arc;

use pba_schedules::Schedule;
use pba_search::{Progress, Run};
use pba_wire::jobs::JobState;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::catalog::schedules::Registry;
use crate::error::Error;
use crate::metrics::Metrics;

/// A kind of job. A value is one job as reported by its trainer.
pub(crate) trait JobKind: Run<Spec: ToSchema> + Send + Sync + 'static {
    /// The things whose names must differ from this kind's, for people.
    const NAMED: &'static str;
    /// The state of a job in the API.
    type Standing: Serialize;
    /// The API's answer about a job.
    type Answer: Serialize + ToSchema;
    /// The API's answer about all jobs of this kind.
    type List: From<Vec<Self::Answer>> + Serialize + ToSchema + Send;

    /// Whether a name is taken by something other than a job of this kind.
    fn is_taken(name: &str, registry: &Registry) -> bool;

    /// Checks and completes the parts of a request that are specific to this kind; returns the schedule that
    /// the trainer needs.
    ///
    /// # Errors
    /// When a field is wrong.
    fn fill_in(
        fields: &mut Map<String, Value>,
        spec: &Self::Spec,
        registry: &Registry,
    ) -> Result<Option<Arc<Schedule>>, Error>;

    /// The state of a job; there is no job value before its trainer has started.
    fn standing(job: Option<&Self>, about: &About<'_, Self>) -> Self::Standing;

    /// The API's answer about it.
    fn answer(job: Option<&Self>, about: &About<'_, Self>) -> Self::Answer;

    /// Completes the job after the trainer has ended successfully.
    ///
    /// # Errors
    /// When the trainer did not report a result, or that fails; `program` is the trainer.
    fn finish(job: Option<Self>, registry: &Registry, program: &Path) -> anyhow::Result<()>;

    /// Keeps the metrics of this kind up to date, if it has any.
    fn count(_metrics: &Metrics, _news: News<'_, Self>) {}
}

/// The part of a job's state that all kinds share.
pub(crate) struct About<'a, K: Run> {
    pub(crate) id: &'a str,
    pub(crate) spec: &'a K::Spec,
    pub(crate) state: JobState,
    pub(crate) seconds: f64,
    pub(crate) error: Option<&'a str>,
    pub(crate) progress: Option<&'a Progress>,
}

/// Events that metrics may count.
pub(crate) enum News<'a, K: Run> {
    /// An event, and the job after it.
    Event(&'a K::Event, &'a K),
    /// The trainer's progress, and the images it trained since it last reported.
    Progress(&'a Progress, u64),
    /// The trainer was started again.
    Restart,
    /// The number of jobs in a state.
    Jobs(JobState, usize),
}
