//! A job that is ready to start.

use std::path::Path;

use anyhow::ensure;
use pba_augment::Base;
use pba_datasets::{Dataset, SplitName};
use pba_search::{Spec, SpecError, Strategy};

use crate::data::{self, Pictures};
use crate::device::{self, Placement};

/// A job whose spec fits its dataset and this machine.
pub(crate) struct Job<S> {
    pub(crate) spec: S,
    pub(crate) dataset: Dataset,
    /// The training split.
    pub(crate) pictures: Pictures,
    pub(crate) base: Base,
    pub(crate) placement: Placement,
}

impl<S: Spec> Job<S> {
    /// Checks everything that can be checked before anything starts. `sized` fits the spec to a number of
    /// images.
    ///
    /// # Errors
    /// [`SpecError`] for a wrong field; others when the dataset cannot be read.
    pub(crate) fn check(
        spec: S,
        strategy: Strategy,
        sized: fn(S, usize) -> Result<S, SpecError>,
        dataset: &Path,
        cache: &Path,
    ) -> anyhow::Result<Job<S>> {
        let placement = Placement::new(device::resolve(spec.training().device)?, strategy)?;
        let dataset = data::open(dataset, cache)?;
        let pictures = data::pictures(&dataset, SplitName::Train)?;
        let spec = sized(spec, pictures.images.len() as usize)?;
        let base = data::base(spec.training().base.as_deref(), &dataset)?;
        Ok(Job { spec, dataset, pictures, base, placement })
    }

    /// The images of a split that models are scored on.
    ///
    /// # Errors
    /// When it cannot be read, or its images are of another size than those that models train on.
    pub(crate) fn scored_on(&self, split: SplitName) -> anyhow::Result<Pictures> {
        let scored = data::pictures(&self.dataset, split)?;
        let (one, other) = (scored.shape, self.pictures.shape);
        ensure!(
            one == other,
            "the images of the {split} split are {}x{}, those of the train split {}x{}",
            one.height,
            one.width,
            other.height,
            other.width
        );
        Ok(scored)
    }
}
