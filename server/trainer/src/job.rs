//! A job that is ready to start.

use std::collections::HashSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use pba_augment::Base;
use pba_datasets::{Dataset, SplitName};
use pba_schedules::Digest;
use pba_search::{DeviceChoice, ModelName, Spec, SpecError, Strategy};
use tch::{Device, Kind, Tensor};

use crate::data::{self, Pictures, Source};
use crate::device::{self, Placement};
use crate::estimate;
use crate::gpu::cuda;
use crate::models;
use crate::network::net::Net;

/// Every model is for images of this side; for smaller ones it is tried.
const SIDE: u32 = 32;

/// Whether a model can be given such pictures: small ones may be nothing by the time they are pooled.
fn fits(model: ModelName, pictures: &Pictures) -> bool {
    let Pictures { shape, classes, normalization, .. } = pictures;
    if shape.height.min(shape.width) >= SIDE {
        return true;
    }
    let forward = || {
        let model = Arc::new(models::build(model, *classes));
        let kinds = (Kind::Float, Kind::Float);
        let mut net = Net::new(&model, 1, *normalization, 0.0, Device::Cpu, kinds);
        let image = [1, shape.height.into(), shape.width.into(), 3];
        let (images, labels) =
            (Tensor::zeros(image, (Kind::Uint8, Device::Cpu)), Tensor::from_slice(&[0i64]));
        let _ = net.correct(&images, &labels);
    };
    // What libtorch refuses is a panic of its binding, whose words are about shapes inside of it.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let fits = panic::catch_unwind(AssertUnwindSafe(forward)).is_ok();
    panic::set_hook(hook);
    fits
}

fn wrong_dataset<S: Spec>(spec: &S, allowed: String) -> SpecError {
    SpecError::new("dataset", format!("{:?}", spec.training().dataset), allowed)
}

/// A job whose spec fits its dataset and this machine.
pub(crate) struct Job<S> {
    pub(crate) spec: S,
    pub(crate) dataset: Dataset,
    /// Where it is, and what it must be.
    source: Source,
    /// The training split.
    pub(crate) pictures: Pictures,
    pub(crate) base: Base,
    pub(crate) placement: Placement,
}

impl<S: Spec> Job<S> {
    /// Checks what all kinds of job have in common before anything starts. `sized` fits the spec to a number
    /// of images.
    ///
    /// # Errors
    /// [`SpecError`] for a wrong field; others when the dataset cannot be read.
    pub(crate) fn check(
        spec: S,
        strategy: Strategy,
        sized: fn(S, usize) -> Result<S, SpecError>,
        source: &Source,
    ) -> anyhow::Result<Job<S>> {
        cuda::check_version()?;
        let (choice, precision) = (spec.training().device, spec.training().precision);
        let placement = Placement::new(device::resolve(choice)?, strategy, precision, spec.streams())?;
        let dataset = source.open()?;
        source.check_same(&dataset, SplitName::Train).map_err(|allowed| wrong_dataset(&spec, allowed))?;
        let pictures = data::pictures(&dataset, SplitName::Train)?;
        let spec = sized(spec, pictures.images.len() as usize)?;
        let base = data::base(spec.training().base.as_deref(), &dataset)?;
        let model = spec.training().model;
        if !fits(model, &pictures) {
            let allowed = format!(
                "a model for images of {}x{}; this one is for larger ones",
                pictures.shape.height, pictures.shape.width
            );
            return Err(SpecError::new("model", format!("\"{model}\""), allowed).into());
        }
        let source = source.clone();
        Ok(Job { spec, dataset, source, pictures, base, placement })
    }

    /// Checks that a CPU can do it in hours, unless that device is asked for. The spec is sized by now.
    ///
    /// # Errors
    /// When it would take longer, with the estimate.
    pub(crate) fn check_hours(&self) -> Result<(), SpecError> {
        match self.spec.training().device {
            DeviceChoice::Auto if !self.placement.device.is_cuda() => {
                let is_stacked = self.placement.way.is_stacked;
                let networks = if is_stacked { 1 } else { self.spec.models_at_once() as usize };
                estimate::refuse_if_too_long(&self.spec, &self.pictures, networks)
            }
            _ => Ok(()),
        }
    }

    /// A digest over the training split and those that models are scored on: of other splits, whether they can be read
    /// or not, nothing depends.
    pub(crate) fn digest_with(&self, scored_on: impl IntoIterator<Item = SplitName>) -> Digest {
        let splits: Vec<SplitName> = [SplitName::Train].into_iter().chain(scored_on).collect();
        self.dataset.digest_of(&splits)
    }

    /// The images of a split that models are scored on.
    ///
    /// # Errors
    /// When it cannot be read, or its images are of another size than those that models train on, or of a
    /// class that these lack.
    pub(crate) fn scored_on(&self, split: SplitName) -> anyhow::Result<Pictures> {
        let wrong = |allowed: String| anyhow::Error::from(wrong_dataset(&self.spec, allowed));
        if let Some(Ok(found)) = self.dataset.split(split)
            && found.shape().is_none()
        {
            return Err(wrong(format!(
                "one whose images are all of one size; those of the {split} split differ in size"
            )));
        }
        self.source.check_same(&self.dataset, split).map_err(wrong)?;
        let scored = data::pictures(&self.dataset, split)?;
        let (one, other) = (scored.shape, self.pictures.shape);
        if one != other {
            return Err(wrong(format!(
                "one whose images are all of one size; those of the {split} split are {}x{}, those of the train split {}x{}",
                one.height, one.width, other.height, other.width
            )));
        }
        let known: HashSet<i64> = self.pictures.labels()?.into_iter().collect();
        if let Some(strange) = scored.labels()?.into_iter().find(|label| !known.contains(label)) {
            let name = scored.images.classes().get(strange as usize).cloned().unwrap_or_default();
            return Err(wrong(format!(
                "one whose train split has images of all classes; the {split} split has some of class {strange} ({name:?}), \
                 of which the train split has none"
            )));
        }
        Ok(scored)
    }
}
