//! `/v1/schedules`: the registry.

use pba_schedules::Provenance;
use pba_types::limits::EPOCHS_MAX;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::query::{integer, optional, text};

crate::query! {
    /// The parameters of `PUT /v1/schedules/{schedule}`.
    pub struct PutSchedule {
        /// Epochs of the search, only if the format does not state them
        epochs: Option<u32> = None, optional(integer(1..=EPOCHS_MAX));
        /// Trial whose lineage is wanted, only of the log of a whole population: its tag, its number or its id, of which a log
        /// has the number only
        trial: Option<String> = None, optional(text());
    }
}

/// The answer of `GET /v1/schedules`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleList {
    /// Every schedule, by name, then the policies that never change.
    pub schedules: Vec<ScheduleSummary>,
}

/// Summary of a schedule. The complete form is a `pba-schedule` document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleSummary {
    /// Name of the schedule.
    pub name: String,
    /// Digest of everything that affects pixels.
    pub digest: String,
    /// Epochs of the search that learned it; 1 for a policy that never changes, which suits every epoch.
    pub epochs: u32,
    /// Number of successive policies.
    pub segments: usize,
    /// When it was added to this server: RFC 3339, in UTC; absent where it is built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub added: Option<String>,
    /// Where it comes from. Of long provenance, the beginning; the document has all of it.
    #[schema(value_type = Object)]
    pub provenance: Provenance,
}
