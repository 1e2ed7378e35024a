//! A dataset: splits under a name.

use std::collections::BTreeMap;
use std::sync::Arc;

use pba_schedules::Digest;

use crate::split::{Split, SplitName, SplitState};

/// A named dataset. A split that failed to load does not keep the others from being served.
#[derive(Clone, Debug)]
pub struct Dataset {
    name: String,
    format: &'static str,
    splits: BTreeMap<SplitName, SplitState>,
}

impl Dataset {
    pub(crate) fn new(name: &str, format: &'static str, splits: BTreeMap<SplitName, SplitState>) -> Dataset {
        Dataset { name: name.to_owned(), format, splits }
    }

    /// The name it is served under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was read from: `packed`, `parquet`, `cifar`, `folder` or `shapes`.
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// The splits it has, in order.
    pub fn splits(&self) -> &BTreeMap<SplitName, SplitState> {
        &self.splits
    }

    /// One split, if the dataset has it.
    pub fn split(&self, name: SplitName) -> Option<&SplitState> {
        self.splits.get(&name)
    }

    fn ready(&self) -> impl Iterator<Item = (SplitName, &Arc<Split>)> {
        self.splits.iter().filter_map(|(name, state)| Some((*name, state.ready().ok()?)))
    }

    /// A digest over names and digests of the splits that can be read.
    pub fn digest(&self) -> Digest {
        let mut text = String::from("pba-dataset/1\n");
        for (name, split) in self.ready() {
            text += &format!("{name} {}\n", split.digest());
        }
        Digest::of(text)
    }

    /// Names of the classes; empty when no split can be read.
    pub fn classes(&self) -> &[String] {
        self.ready().next().map_or(&[], |(_, split)| split.classes())
    }

    /// Channel means of the training split, if it can be read.
    pub fn train_mean(&self) -> Option<[f64; 3]> {
        Some(self.split(SplitName::Train)?.ready().ok()?.mean())
    }

    /// Channel standard deviations of the training split, if it can be read.
    pub fn train_std(&self) -> Option<[f64; 3]> {
        Some(self.split(SplitName::Train)?.ready().ok()?.std())
    }

    /// Channel mean and standard deviation that the pixels of split `name` are normalised by:
    /// those of the training split when it can be read, else the split's own.
    pub fn normalization(&self, name: SplitName) -> Option<([f64; 3], [f64; 3])> {
        let of = |name| {
            let split = self.split(name)?.ready().ok()?;
            Some((split.mean(), split.std()))
        };
        of(SplitName::Train).or_else(|| of(name))
    }
}
