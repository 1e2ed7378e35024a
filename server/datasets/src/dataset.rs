//! A dataset: splits under a name.

use std::collections::BTreeMap;
use std::sync::Arc;

use pba_types::{Digest, ImageShape, SplitName};

use crate::error::DatasetError;
use crate::packed::split::{Split, SplitState};

/// Name of the built-in dataset.
pub const BUILT_IN: &str = "shapes";

/// What the values of pixels, 0..1, are normalised by: (value - mean) / std, for each channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// Mean of each channel, 0..1.
    pub mean: [f64; 3],
    /// Standard deviation of each channel, 0..1.
    pub std: [f64; 3],
}

impl Normalization {
    /// By the statistics of a split.
    pub fn of(split: &Split) -> Normalization {
        Normalization { mean: split.mean(), std: split.std() }
    }
}

/// A named dataset. A split that failed to load does not keep the others from being served.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Dataset {
    /// The name it is served under.
    pub name: String,
    /// The name of the format that it was read from, such as `parquet`; [`BUILT_IN`] for the built-in one.
    pub format: &'static str,
    /// The splits it has, in order.
    pub splits: BTreeMap<SplitName, SplitState>,
    /// Those that were in the cache, but not as they should be, and how that showed; they were packed again.
    pub packed_again: BTreeMap<SplitName, DatasetError>,
}

impl Dataset {
    /// One split, if the dataset has it.
    pub fn split(&self, name: SplitName) -> Option<&SplitState> {
        self.splits.get(&name)
    }

    fn ready(&self) -> impl Iterator<Item = (SplitName, &Arc<Split>)> {
        self.splits.iter().filter_map(|(name, state)| Some((*name, state.as_ref().ok()?)))
    }

    /// A digest over names and digests of the splits that can be read.
    pub fn digest(&self) -> Digest {
        self.digest_of(&SplitName::ALL)
    }

    /// The same of some splits only.
    pub fn digest_of(&self, names: &[SplitName]) -> Digest {
        let mut text = String::from("pba-dataset/1\n");
        for (name, split) in self.ready().filter(|(name, _)| names.contains(name)) {
            text += &format!("{name} {}\n", split.digest());
        }
        Digest::of(text)
    }

    /// Names of the classes; empty when no split can be read.
    pub fn classes(&self) -> &[String] {
        self.ready().next().map_or(&[], |(_, split)| split.classes())
    }

    /// The shape of the images of each split that can be read; none where they differ in size.
    pub fn shapes(&self) -> impl Iterator<Item = Option<ImageShape>> {
        self.ready().map(|(_, split)| split.shape())
    }

    /// The split whose images are looked at for what split `name` is augmented and normalised with by default:
    /// the training split if the dataset has one, readable or not, so that no failure changes a pixel; else itself.
    pub fn reference(&self, name: SplitName) -> Option<&SplitState> {
        self.split(SplitName::Train).or_else(|| self.split(name))
    }

    /// Whether a cutout of half the side hides most of what an image shows: the built-in images hold
    /// one small thing each.
    pub fn is_hidden_by_cutout(&self) -> bool {
        self.format == BUILT_IN
    }

    /// What the pixels of split `name` are normalised by: the statistics of its [reference](Dataset::reference).
    /// None when there is no such split, or its reference cannot be read.
    pub fn normalization(&self, name: SplitName) -> Option<Normalization> {
        Some(Normalization::of(self.reference(name)?.as_ref().ok()?))
    }
}
