//! A dataset as `/v1/datasets` describes it.

use std::collections::BTreeMap;

use pba_datasets::{Normalization, Progress};
use pba_types::SplitName;
use pba_wire::datasets::{self as wire, DatasetState, ImageStorage, ImportProgress, ReadySplit, Sizes};
use pba_wire::stream::CHANNELS;

use crate::catalog::entry::{Entry, State};
use crate::catalog::mending::cause;
use crate::catalog::served::SplitHandle;
use crate::error::{Cause, Error};

impl Entry {
    /// Its description in the API.
    pub(crate) fn describe(&self) -> wire::Dataset {
        let mut described = wire::Dataset {
            name: self.name.clone(),
            state: DatasetState::Ready,
            source: self.source().map_or("built in".to_owned(), |path| path.display().to_string()),
            base: None,
            eval_base: None,
            classes: Vec::new(),
            splits: BTreeMap::new(),
            progress: None,
            error: None,
        };
        let base = match &*self.state() {
            State::Importing(progress) => {
                described.state = DatasetState::Importing;
                described.progress = progress.map(|Progress { split, rows_done, rows_total }| {
                    ImportProgress { split, rows_done, rows_total }
                });
                self.base
            }
            State::Failed(error) => {
                described.state = state_of([cause(error)]);
                described.error = Some(error.to_string());
                self.base
            }
            State::Ready(served) => {
                let splits = &served.dataset.splits;
                let of = |name: &SplitName| (*name, served.split(*name));
                let streamed: Vec<_> = splits.keys().map(of).collect();
                let damage = splits.values().flatten().find_map(|split| split.known_damage());
                if let Some(reason) = streamed.iter().find_map(|(_, split)| split.as_ref().err())
                    && streamed.iter().all(|(_, split)| split.is_err())
                {
                    described.state =
                        state_of(streamed.iter().filter_map(|(_, split)| Some(split.as_ref().err()?.cause)));
                    described.error = Some(reason.detail.clone());
                } else if let Some(damage) = damage {
                    described.state = DatasetState::Damaged;
                    described.error = Some(damage.to_string());
                }
                described.classes = served.dataset.classes().to_owned();
                let bases = streamed.iter().filter(|(_, split)| split.is_ok());
                let mut bases = bases.filter_map(|(name, _)| Some((*name, served.base_of(*name).ok()?)));
                described.eval_base = bases
                    .clone()
                    .find(|(name, _)| *name != SplitName::Train)
                    .map(|(_, base)| base.to_string());
                let first = bases.next().and_then(|(name, _)| served.own_base(name).ok());
                described.splits =
                    streamed.into_iter().map(|(name, split)| (name, describe(split))).collect();
                self.base.or(first)
            }
        };
        described.base = base.map(|base| base.to_string());
        described.eval_base =
            described.eval_base.or_else(|| base.map(|base| base.for_evaluation().to_string()));
        described
    }
}

/// The state of a dataset of which nothing is served, for these causes.
fn state_of(causes: impl IntoIterator<Item = Cause>) -> DatasetState {
    let causes: Vec<Cause> = causes.into_iter().collect();
    match () {
        () if causes.contains(&Cause::Importing) => DatasetState::Importing,
        () if causes.contains(&Cause::NotPacked) => DatasetState::NotPacked,
        () => DatasetState::Failed,
    }
}

/// The description of a split that can be streamed, or the reason why it cannot.
fn describe(split: Result<(SplitHandle, Normalization), Error>) -> wire::Split {
    let split = match split {
        Ok((split, _)) => split,
        Err(error) => return wire::Split::Failed { error: error.detail },
    };
    let images = if split.shape().is_some() { ImageStorage::Decoded } else { ImageStorage::Encoded };
    let [smallest, largest] = split.sizes();
    wire::Split::Ready(ReadySplit {
        samples: split.len(),
        images,
        shape: split.shape().map(|shape| [shape.height, shape.width, CHANNELS]),
        sizes: Sizes { height: [smallest.height, largest.height], width: [smallest.width, largest.width] },
        bytes: split.bytes(),
        mean: split.mean(),
        std: split.std(),
        digest: split.digest().to_string(),
    })
}
