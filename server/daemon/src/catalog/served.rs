//! An open dataset: which of its splits can be streamed, and what is done to their images if the request does not say.

use std::sync::Arc;

use pba_augment::{Base, FRAME_SIDE_MAX, ImageShape};
use pba_datasets::{Dataset, DatasetError, Normalization};
use pba_types::SplitName;

use crate::catalog::mending::cause;
use crate::error::Error;

/// One split, shared with the streams that send it.
pub(crate) type SplitHandle = Arc<pba_datasets::Split>;

/// An open dataset.
pub(crate) struct Served {
    pub(super) dataset: Dataset,
    /// Base augmentation chosen by the owner.
    pub(super) base: Option<Base>,
}

impl Served {
    /// Default base augmentation of a split.
    ///
    /// # Errors
    /// When the owner has chosen none, and the split that it depends on could not be read.
    pub(crate) fn base_of(&self, split: SplitName) -> Result<Base, Error> {
        let base = self.own_base(split)?;
        if split == SplitName::Train {
            return Ok(base);
        }
        if self.base.is_some() {
            return Ok(base.for_evaluation());
        }
        let own = self.dataset.split(split).and_then(|state| state.as_ref().ok());
        Ok(match (self.reference(split)?.shape(), own.and_then(|split| split.shape())) {
            // Of any size, as one that the model was trained with.
            (Some(ImageShape { height, width }), None) if height.min(width) <= FRAME_SIDE_MAX => {
                Base::middle(height.min(width))
            }
            _ => base.for_evaluation(),
        })
    }

    /// Base augmentation to train with on images like those of a split.
    pub(super) fn own_base(&self, split: SplitName) -> Result<Base, Error> {
        match self.base {
            Some(base) => Ok(base),
            None => {
                let shape = self.reference(split)?.shape();
                Ok(Base::of_images(shape, self.dataset.is_hidden_by_cutout()))
            }
        }
    }

    /// What a split is augmented and normalised like.
    fn reference(&self, name: SplitName) -> Result<&SplitHandle, Error> {
        let dataset = &self.dataset.name;
        match self.dataset.reference(name) {
            Some(Ok(split)) => Ok(split),
            Some(Err(error)) => Err(Error::new(
                cause(error),
                format!(
                    "the normalisation of split {name} of dataset {dataset:?} is that of its train split, which {}",
                    self.what_is_wrong(error)
                ),
            )),
            None => Err(self.no_split(name)),
        }
    }

    /// What keeps a split from being served, after its name.
    fn what_is_wrong(&self, error: &DatasetError) -> String {
        match error {
            DatasetError::BeingPacked => {
                format!("is still being imported; /v1/datasets/{} shows its progress", self.dataset.name)
            }
            error => format!("could not be read: {error}"),
        }
    }

    fn no_split(&self, name: SplitName) -> Error {
        Error::not_found("split", name.name(), self.dataset.splits.keys().map(|known| known.name()))
    }

    /// Whether it has a split, though it may not be readable.
    pub(crate) fn has(&self, split: SplitName) -> bool {
        self.dataset.split(split).is_some()
    }

    /// Whether a split is not packed.
    pub(super) fn lacks(&self) -> bool {
        self.dataset.splits.values().any(|state| matches!(state, Err(DatasetError::NotPacked { .. })))
    }

    /// Checks that no split is still being imported.
    ///
    /// # Errors
    /// When one is.
    pub(crate) fn check_imported(&self) -> Result<(), Error> {
        let mut importing = self.dataset.splits.keys().filter(|split| self.imports(**split));
        importing.try_for_each(|split| self.split(*split).map(drop))
    }

    /// Whether a split is still being imported.
    pub(super) fn imports(&self, split: SplitName) -> bool {
        matches!(self.dataset.split(split), Some(Err(DatasetError::BeingPacked)))
    }

    /// The same, with other errors in the places of those of some splits.
    pub(super) fn with_errors(&self, other: impl Fn(&DatasetError) -> Option<DatasetError>) -> Served {
        let mut dataset = self.dataset.clone();
        for error in dataset.splits.values_mut().filter_map(|state| state.as_mut().err()) {
            if let Some(other) = other(error) {
                *error = other;
            }
        }
        Served { dataset, base: self.base }
    }

    /// Whether any split can be streamed.
    pub(super) fn serves_any(&self) -> bool {
        self.dataset.splits.keys().any(|split| self.serves(*split))
    }

    /// Whether a split can be streamed.
    pub(super) fn serves(&self, split: SplitName) -> bool {
        self.split(split).is_ok()
    }

    /// A split that can be streamed, and the normalisation of its pixels.
    ///
    /// # Errors
    /// When the dataset has no such split, or it or what it is normalised like could not be read.
    pub(crate) fn split(&self, name: SplitName) -> Result<(SplitHandle, Normalization), Error> {
        match self.dataset.split(name) {
            Some(Ok(split)) => {
                let normalization = Normalization::of(self.reference(name)?);
                Ok((Arc::clone(split), normalization))
            }
            Some(Err(error)) => {
                let dataset = &self.dataset.name;
                let detail = format!("split {name} of dataset {dataset:?} {}", self.what_is_wrong(error));
                Err(Error::new(cause(error), detail))
            }
            None => Err(self.no_split(name)),
        }
    }
}
