//! The report of a comparison.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pba_types::named! {
    /// The images that the models of a comparison are scored on.
    #[derive(Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum Score {
        /// Images that no model trains on: those of the dataset's own `val` split, or else `val_size` of its
        /// training split. To choose among arms as often as one likes.
        Val = "val",
        /// The `test` split. To be opened once, when everything is chosen.
        Test = "test",
    }
}

/// The report of a comparison, so far. Errors are shares of the scored images, 0..1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ComparisonResults {
    /// What the models are scored on.
    pub score: Score,
    /// The split of the scored images, once a run has ended.
    pub split: Option<String>,
    /// Number of scored images, once a run has ended.
    pub images: Option<usize>,
    /// Runs in all: arms times seeds, and those of the tuning.
    pub runs: u32,
    /// Runs that have ended.
    pub runs_done: u32,
    /// The arms in their order.
    pub arms: Vec<ArmResults>,
    /// The groups by name; their unit is the arm.
    pub groups: Vec<Entry>,
    /// The differences that the comparison is about.
    pub contrasts: Vec<Contrast>,
    /// How the tuned arm was chosen, once it is.
    pub tuning: Option<Tuning>,
    /// The arm to train with, once every run has ended: the best one, unless it is not better than one
    /// that costs nothing.
    pub recommended: Option<String>,
    /// The answer in words, once every run has ended.
    pub verdict: Option<String>,
    /// The command that streams the first epoch of training with the recommended arm.
    pub stream_command: Option<String>,
}

/// Mean and spread of an arm or of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Mean error.
    pub mean: Option<f64>,
    /// Standard deviation of the errors (with n - 1); null below two.
    pub deviation: Option<f64>,
    /// Errors that the mean is of: runs of an arm, arms of a group.
    pub n: u32,
}

/// An arm and its runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ArmResults {
    /// The arm, with mean and spread over its seeds.
    #[serde(flatten)]
    pub entry: Entry,
    /// Digest of its schedule, if it has one.
    pub schedule_digest: Option<String>,
    /// Runs that diverged. They are in no mean.
    pub diverged: u32,
    /// The error with each seed; null before it has ended, and where the model diverged.
    pub errors: Vec<Option<f64>>,
}

pba_types::named! {
    /// What is repeated, and so what an interval is over.
    #[derive(Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum Unit {
        /// The seed: differences are paired.
        Seed = "seed",
        /// The arm of a group and the seed: the interval covers both.
        Arm = "arm",
    }
}

pba_types::named! {
    /// What an interval says.
    #[derive(Serialize, Deserialize, ToSchema)]
    pub enum Verdict {
        /// The interval lies below 0: fewer errors.
        #[serde(rename = "better")]
        Better = "better",
        /// The interval lies above 0.
        #[serde(rename = "worse")]
        Worse = "worse",
        /// The interval lies within the margin.
        #[serde(rename = "no difference")]
        NoDifference = "no difference",
        /// The interval holds 0, and differences that would matter.
        #[serde(rename = "too few runs to tell")]
        TooFew = "too few runs to tell",
    }
}

/// A difference of mean errors: of `arm` less `against`. Below 0, `arm` is better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Contrast {
    /// An arm or a group.
    pub arm: String,
    /// The arm or group that it is compared with.
    pub against: String,
    /// The mean paired difference.
    pub difference: Option<f64>,
    /// Its 95 % interval, by Student's distribution; null below two differences.
    #[schema(value_type = Option<Vec<f64>>)]
    pub interval: Option<[f64; 2]>,
    /// Differences: one for each seed that both have; with a group, one for each of its arms.
    pub n: u32,
    /// What they are differences over.
    pub unit: Unit,
    /// What the interval says; null before any run has ended.
    pub verdict: Option<Verdict>,
}

/// A setting that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    /// The arm.
    pub arm: String,
    /// Mean validation error over the seeds; null if a model diverged.
    pub mean: Option<f64>,
}

/// How a tuned arm was chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tuning {
    /// The setting with the lowest mean validation error.
    pub chosen: String,
    /// Every setting that was tried.
    pub candidates: Vec<Candidate>,
    /// Seeds that each was tried with.
    pub seeds: u32,
    /// Validation images.
    pub images: usize,
}
