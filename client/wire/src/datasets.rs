//! `/v1/datasets`: what can be streamed.

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
    /// Its name.
    pub name: String,
    /// Whether it can be streamed yet.
    pub state: DatasetState,
    /// Where it was read from: a path, or `built in`.
    pub source: String,
    /// Base augmentation of its training split, unless a request says otherwise; null while that is not
    /// known.
    pub base: Option<String>,
    /// Base augmentation of its other splits, likewise.
    pub eval_base: Option<String>,
    /// Names of its classes, by label.
    pub classes: Vec<String>,
    /// Its splits.
    #[schema(value_type = BTreeMap<String, Split>)]
    pub splits: BTreeMap<SplitName, Split>,
    /// How far its import is, while it is being imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ImportProgress>,
    /// Why none of it can be streamed, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Whether a dataset can be streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DatasetState {
    /// It is being read, and packed where it was not before.
    Importing,
    /// Its splits can be streamed, except those that failed.
    Ready,
    /// No split of it could be read.
    Failed,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportProgress {
    /// The split that is being imported.
    #[schema(value_type = String)]
    pub split: SplitName,
    /// Its rows that are done.
    pub rows_done: u64,
    /// Its rows in all.
    pub rows_total: u64,
}

/// A split of a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Split {
    /// It can be streamed.
    Ready(ReadySplit),
    /// It could not be read.
    Failed {
        /// Why.
        error: String,
    },
}

/// A split that can be streamed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReadySplit {
    /// How many samples it has.
    pub samples: u64,
    /// How its images are kept.
    pub images: ImageStorage,
    /// Height, width and channels of every image; null where they differ in size.
    pub shape: Option<[u32; 3]>,
    /// The range of their sizes.
    pub sizes: Sizes,
    /// Bytes that it takes on the disk.
    pub bytes: u64,
    /// Mean of each channel, 0..1.
    pub mean: [f64; 3],
    /// Standard deviation of each channel, 0..1.
    pub std: [f64; 3],
    /// Digest of its content.
    pub digest: String,
}

/// How the images of a split are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageStorage {
    /// As pixels.
    Decoded,
    /// As JPEG and PNG files.
    Encoded,
}

/// The smallest and the largest side of some images, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sizes {
    /// Of their heights.
    pub height: [u32; 2],
    /// Of their widths.
    pub width: [u32; 2],
}
