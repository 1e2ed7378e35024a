//! `/v1/searches`: the answers. A request is a [`SearchSpec`] in which every field is optional.

use pba_specs::{Progress, SearchSpec};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::jobs::JobState;

/// Every search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SearchList {
    /// The searches, by id.
    pub searches: Vec<SearchAnswer>,
}

impl From<Vec<SearchAnswer>> for SearchList {
    fn from(searches: Vec<SearchAnswer>) -> SearchList {
        SearchList { searches }
    }
}

/// State and result of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SearchStanding {
    /// Its state.
    pub state: JobState,
    /// Epochs after which every member has been scored.
    pub epoch: u32,
    /// Total epochs.
    pub epochs: u32,
    /// The best validation accuracy in the population, 0..1.
    pub best_accuracy: Option<f64>,
    /// Time spent training, in seconds.
    pub seconds: f64,
    /// Reason of the failure, if it failed.
    pub error: Option<String>,
    /// Name of the schedule that it learned, once done.
    pub schedule: Option<String>,
}

/// A search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SearchAnswer {
    /// Id of the search, which is its name.
    pub id: String,
    /// Its state and result.
    #[serde(flatten)]
    pub standing: SearchStanding,
    /// The dataset that it trains on.
    pub dataset: String,
    /// The network that it trains.
    pub model: String,
    /// Number of members.
    pub population: u32,
    /// The members, once the search has started.
    pub members: Vec<MemberAnswer>,
    /// Progress of its trainer, while it runs.
    pub progress: Option<Progress>,
    /// Its spec, with every default filled in.
    pub spec: SearchSpec,
}

/// A member of the population.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberAnswer {
    /// Its position, from 0.
    pub id: u32,
    /// Its own last validation accuracy, 0..1; null if it diverged or was not scored.
    pub score: Option<f64>,
    /// Epochs since it last copied another member.
    pub age: u32,
    /// The member that it last copied.
    pub parent: Option<u32>,
}
