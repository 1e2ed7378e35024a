//! A dataset as `/v1/datasets` describes it.

use std::collections::BTreeMap;

use pba_datasets::{Progress, SplitState};
use pba_types::SplitName;
use pba_wire::datasets::{self as wire, DatasetState, ImageStorage, ImportProgress, ReadySplit, Sizes};
use pba_wire::stream::CHANNELS;

use crate::catalog::entry::{Entry, State};
use crate::catalog::mending::cause;
use crate::catalog::served::{Served, SplitHandle};
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
                described.progress = progress.map(shown);
                self.base
            }
            State::Failed(error) => {
                described.state = state_of([cause(error)]);
                described.error = Some(error.to_string());
                self.base
            }
            State::Ready(served) => {
                served.describe(&mut described);
                described.progress =
                    self.packing().filter(|progress| served.imports(progress.split)).map(shown);
                self.base.or_else(|| served.own_base(served.streamed().next()?).ok())
            }
        };
        described.base = base.map(|base| base.to_string());
        described.eval_base =
            described.eval_base.or_else(|| base.map(|base| base.for_evaluation().to_string()));
        described
    }
}

impl Entry {
    /// Its state, and what is wrong with it or with some of its splits.
    pub(crate) fn standing(&self) -> (DatasetState, Vec<String>) {
        match &*self.state() {
            State::Importing(_) => (DatasetState::Importing, Vec::new()),
            State::Failed(error) => (state_of([cause(error)]), vec![error.to_string()]),
            State::Ready(served) => match served.standing() {
                (state, Some(error)) => (state, vec![error]),
                (state, None) => (state, served.refused().map(|reason| reason.detail).collect()),
            },
        }
    }
}

impl Served {
    /// Why splits cannot be streamed, of each that cannot.
    fn refused(&self) -> impl Iterator<Item = Error> {
        self.dataset.splits.keys().filter_map(|split| self.split(*split).err())
    }

    /// Its state, and why it is not ready, or what of it is damaged.
    fn standing(&self) -> (DatasetState, Option<String>) {
        let splits = &self.dataset.splits;
        let reasons: Vec<Error> = self.refused().collect();
        if let Some(reason) = reasons.first().filter(|_| reasons.len() == splits.len()) {
            return (state_of(reasons.iter().map(|reason| reason.cause)), Some(reason.detail.clone()));
        }
        match splits.values().flatten().find_map(|split| split.known_damage()) {
            Some(damage) => (DatasetState::Damaged, Some(damage.to_string())),
            None => (DatasetState::Ready, None),
        }
    }

    /// The splits that can be streamed.
    fn streamed(&self) -> impl Iterator<Item = SplitName> {
        self.dataset.splits.keys().copied().filter(|split| self.serves(*split))
    }

    /// Describes what is served, or why nothing is.
    fn describe(&self, described: &mut wire::Dataset) {
        let splits = &self.dataset.splits;
        (described.state, described.error) = self.standing();
        described.classes = self.dataset.classes().to_owned();
        let first = self.streamed().find(|split| *split != SplitName::Train);
        described.eval_base = first.and_then(|split| self.base_of(split).ok()).map(|base| base.to_string());
        let of = |(name, state): (&SplitName, &SplitState)| {
            let split = match state {
                Ok(split) if self.serves(*name) => describe_split(split),
                Ok(_) => {
                    let error = match self.imports(SplitName::Train) {
                        true => "the train split, by which it is normalised, is still being imported",
                        false => "the train split, by which it is normalised, could not be read",
                    };
                    wire::Split::Failed { error: error.to_owned() }
                }
                Err(error) => wire::Split::Failed { error: error.to_string() },
            };
            (*name, split)
        };
        described.splits = splits.iter().map(of).collect();
    }
}

fn shown(Progress { split, rows_done, rows_total }: Progress) -> ImportProgress {
    ImportProgress { split, rows_done, rows_total }
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

fn describe_split(split: &SplitHandle) -> wire::Split {
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
        class_counts: split.class_counts().to_owned(),
    })
}
