//! `/v1/searches`: what is answered. A request is a [`SearchSpec`] in which every field is optional.

use pba_specs::{Progress, SearchSpec};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::jobs::JobState;

/// Every search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SearchList {
    /// By id.
    pub searches: Vec<SearchAnswer>,
}

impl From<Vec<SearchAnswer>> for SearchList {
    fn from(searches: Vec<SearchAnswer>) -> SearchList {
        SearchList { searches }
    }
}

/// Where a search stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SearchStanding {
    /// Its state.
    pub state: JobState,
    /// Epochs that every member has trained and been scored after.
    pub epoch: u32,
    /// Epochs in all.
    pub epochs: u32,
    /// The best validation accuracy in the population, 0..1.
    pub best_accuracy: Option<f64>,
    /// Time spent training.
    pub seconds: f64,
    /// Why it failed.
    pub error: Option<String>,
    /// The schedule that it learned, once it is done.
    pub schedule: Option<String>,
}

/// A search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SearchAnswer {
    /// Its name.
    pub id: String,
    /// Where it stands.
    #[serde(flatten)]
    pub standing: SearchStanding,
    /// The dataset that it trains on.
    pub dataset: String,
    /// The network that it trains.
    pub model: String,
    /// How many members it has.
    pub population: u32,
    /// The members, once it has begun.
    pub members: Vec<MemberAnswer>,
    /// How far its trainer is, while it runs.
    pub progress: Option<Progress>,
    /// What it was asked to do, with every default filled in.
    pub spec: SearchSpec,
}

/// A member of the population.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberAnswer {
    /// Its position, from 0.
    pub id: u32,
    /// The last validation accuracy of its own, 0..1; null when it diverged or was not scored.
    pub score: Option<f64>,
    /// Epochs since it last copied another.
    pub age: u32,
    /// The member that it last copied.
    pub parent: Option<u32>,
}
