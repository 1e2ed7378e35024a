//! What the kinds of job differ in. Everything else is theirs in common: the queue, the supervisor,
//! and the records on disk.

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

/// A kind of job. A value is one job as its trainer tells of it.
pub(crate) trait JobKind: Run<Spec: ToSchema> + Send + Sync + 'static {
    /// Whose names its own must differ from, for people.
    const NAMED: &'static str;
    /// Where a job stands, as the API tells it.
    type Standing: Serialize;
    /// All that the API tells of a job.
    type Answer: Serialize + ToSchema;
    /// Its answer to who asks for all jobs of this kind.
    type List: From<Vec<Self::Answer>> + Serialize + ToSchema + Send;

    /// Whether something other than a job of this kind has a name.
    fn is_taken(name: &str, registry: &Registry) -> bool;

    /// Checks and fills in what is particular to this kind in a request; answers the schedule that the
    /// trainer needs.
    ///
    /// # Errors
    /// When a field is wrong.
    fn fill_in(
        fields: &mut Map<String, Value>,
        spec: &Self::Spec,
        registry: &Registry,
    ) -> Result<Option<Arc<Schedule>>, Error>;

    /// Where a job stands; it is none yet before its trainer has begun.
    fn standing(job: Option<&Self>, about: &About<'_, Self>) -> Self::Standing;

    /// All that the API tells of it.
    fn answer(job: Option<&Self>, about: &About<'_, Self>) -> Self::Answer;

    /// Does what is left to do when the trainer has ended well.
    ///
    /// # Errors
    /// When the trainer did not tell what it should have, or that is not possible; `program` is the
    /// trainer.
    fn finish(job: Option<Self>, registry: &Registry, program: &Path) -> anyhow::Result<()>;

    /// Keeps the metrics of this kind up to date, if it has any.
    fn count(_metrics: &Metrics, _news: News<'_, Self>) {}
}

/// What is known of a job whatever its kind.
pub(crate) struct About<'a, K: Run> {
    pub(crate) id: &'a str,
    pub(crate) spec: &'a K::Spec,
    pub(crate) state: JobState,
    pub(crate) seconds: f64,
    pub(crate) error: Option<&'a str>,
    pub(crate) progress: Option<&'a Progress>,
}

/// What metrics may count.
pub(crate) enum News<'a, K: Run> {
    /// What happened, and the job after it.
    Event(&'a K::Event, &'a K),
    /// How far the trainer is, and how many images it trained since it last said so.
    Progress(&'a Progress, u64),
    /// The trainer was started again.
    Restart,
    /// So many jobs are in a state.
    Jobs(JobState, usize),
}
