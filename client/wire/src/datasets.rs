//! `/v1/datasets`: the datasets that can be streamed.

use std::collections::BTreeMap;

use pba_types::SplitName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The answer of `GET /v1/datasets`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DatasetList {
    /// Every dataset, by name.
    pub datasets: Vec<Dataset>,
}

/// A dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Dataset {
    /// Name of the dataset.
    pub name: String,
    /// Whether it can be streamed.
    pub state: DatasetState,
    /// Its source: a path, or `built in`.
    pub source: String,
    /// Default base augmentation of its training split; null until it is known.
    pub base: Option<String>,
    /// Default base augmentation of its other splits, or of the first of them that can be streamed; null until it is
    /// known.
    pub eval_base: Option<String>,
    /// Class names, by label.
    pub classes: Vec<String>,
    /// Its splits.
    #[schema(value_type = BTreeMap<String, Split>)]
    pub splits: BTreeMap<SplitName, Split>,
    /// Progress of its import, while it, or one of its splits, is being imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ImportProgress>,
    /// Why no split can be streamed, if none can; the first damage, if it is damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

pba_types::named! {
    /// Whether a dataset can be streamed.
    #[derive(Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "kebab-case")]
    pub enum DatasetState {
        /// It is being read, and packed unless it already was.
        Importing = "importing",
        /// Its splits can be streamed, except those that failed.
        Ready = "ready",
        /// Packed files of it are damaged; what needs no damaged sample can be streamed.
        Damaged = "damaged",
        /// The server that writes to the directory has not packed any of its splits yet, and this one does not.
        NotPacked = "not-packed",
        /// None of its splits can be streamed.
        Failed = "failed",
    }
}

/// Progress of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportProgress {
    /// The split that is being imported.
    #[schema(value_type = String)]
    pub split: SplitName,
    /// Rows imported so far.
    pub rows_done: u64,
    /// Total rows of the split.
    pub rows_total: u64,
}

/// A split of a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Split {
    /// It can be streamed.
    Ready(ReadySplit),
    /// It could not be read, or the training split, whose base and normalisation it has, could not be.
    Failed {
        /// Reason of the failure.
        error: String,
    },
}

/// A split that can be streamed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReadySplit {
    /// Number of samples.
    pub samples: u64,
    /// How its images are stored.
    pub images: ImageStorage,
    /// Height, width and channels of every image; null if their sizes differ.
    pub shape: Option<[u32; 3]>,
    /// The range of image sizes.
    pub sizes: Sizes,
    /// Size on disk in bytes.
    pub bytes: u64,
    /// Mean of each channel, 0..1.
    pub mean: [f64; 3],
    /// Standard deviation of each channel, 0..1.
    pub std: [f64; 3],
    /// Digest of its content.
    pub digest: String,
    /// Samples of each class, by label; empty from a server that does not tell.
    #[serde(default)]
    #[schema(required = true)]
    pub class_counts: Vec<u64>,
}

/// How the images of a split are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageStorage {
    /// As pixels.
    Decoded,
    /// As JPEG and PNG files.
    Encoded,
}

/// The smallest and the largest side of the images, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sizes {
    /// Smallest and largest height.
    pub height: [u32; 2],
    /// Smallest and largest width.
    pub width: [u32; 2],
}
