//! The datasets that the server holds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use pba_augment::{Base, FRAME_SIDE_MAX, Frame, ImageShape};
use pba_datasets::{Dataset, Progress, SplitState};
use pba_wire::Split as SplitName;

use crate::error::ApiError;
use crate::metrics::Metrics;

/// Name of the built-in dataset.
pub const BUILT_IN: &str = "shapes";

/// Checks a dataset's name, and that there is something at its path.
///
/// # Errors
/// When there is not, or the name is unusable or the built-in one's.
pub fn check_dataset(name: &str, path: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        pba_schedules::check_name(name).is_ok(),
        "{name:?} is not a dataset name; allowed are 1..=64 letters, digits, '-', '_' and '.', starting with a letter or digit"
    );
    anyhow::ensure!(name != BUILT_IN, "{name:?} is the name of the built-in dataset; give yours another one");
    anyhow::ensure!(path.exists(), "dataset {name:?}: there is nothing at {}", path.display());
    Ok(())
}

/// One split, shared with the streams that send it.
pub type SplitHandle = Arc<pba_datasets::Split>;

/// Datasets by name.
#[derive(Default)]
pub struct Catalog {
    entries: BTreeMap<String, Arc<Entry>>,
}

/// A dataset and how it is augmented unless a request says otherwise.
pub struct Entry {
    name: String,
    source: Option<PathBuf>,
    state: Result<Dataset, String>,
    base: Base,
}

impl Catalog {
    /// Adds the built-in dataset, drawn on first use.
    ///
    /// # Errors
    /// When it cannot be written to or read from the cache directory.
    pub fn add_built_in(&mut self, cache: &Path, metrics: &Metrics) -> anyhow::Result<()> {
        let dataset = pba_datasets::shapes(cache, &report_progress(BUILT_IN))
            .with_context(|| format!("cannot make the built-in dataset in {}", cache.display()))?;
        self.insert(BUILT_IN, None, Ok(dataset), None, metrics);
        Ok(())
    }

    /// Adds the dataset at `path`. One that is there but cannot be read is kept with its error,
    /// so that the others are served and a request for it says what is wrong.
    ///
    /// # Errors
    /// When there is nothing at `path`, or the name is taken or unusable.
    pub fn add(
        &mut self,
        name: &str,
        path: &Path,
        base: Option<Base>,
        cache: &Path,
        metrics: &Metrics,
    ) -> anyhow::Result<()> {
        check_dataset(name, path)?;
        anyhow::ensure!(!self.entries.contains_key(name), "dataset {name:?} is given twice");
        tracing::info!(dataset = name, path = %path.display(), "reading; what is not packed yet is packed first");
        let opened = pba_datasets::open(name, path, cache, &report_progress(name));
        let state = opened.map_err(|error| error.to_string());
        self.insert(name, Some(path.to_owned()), state, base, metrics);
        Ok(())
    }

    fn insert(
        &mut self,
        name: &str,
        source: Option<PathBuf>,
        state: Result<Dataset, String>,
        base: Option<Base>,
        metrics: &Metrics,
    ) {
        let entry =
            Entry { name: name.to_owned(), source, base: base.unwrap_or_else(|| own_base(&state)), state };
        if let Err(error) = &entry.state {
            tracing::warn!(dataset = name, %error, "the dataset is not served");
        }
        for (split, error) in entry.failures() {
            tracing::warn!(dataset = name, %split, %error, "the split is not served");
        }
        metrics.cache_bytes.add(entry.ready().map(|(_, split)| split.bytes() as i64).sum());
        self.entries.insert(name.to_owned(), Arc::new(entry));
    }

    /// Every dataset, by name.
    pub fn list(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// The dataset of a name.
    ///
    /// # Errors
    /// `404` when there is none, with the nearest name.
    pub fn get(&self, name: &str) -> Result<Arc<Entry>, ApiError> {
        self.entries
            .get(name)
            .cloned()
            .ok_or_else(|| ApiError::not_found("dataset", name, self.entries.keys().map(String::as_str)))
    }
}

impl Entry {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it was read from; nothing for the built-in one.
    pub fn source(&self) -> Option<&Path> {
        self.source.as_deref()
    }

    /// Why none of it could be read.
    pub fn error(&self) -> Option<&str> {
        self.state.as_ref().err().map(String::as_str)
    }

    /// Base augmentation of its training split.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Base augmentation of the other splits: none, or where the training split's makes images of a
    /// size, the middle of each image at that size.
    pub fn eval_base(&self) -> Base {
        eval_base(&self.base)
    }

    /// Base augmentation of a split, unless a request says otherwise.
    pub fn base_of(&self, split: SplitName) -> Base {
        if split == SplitName::Train { self.base } else { self.eval_base() }
    }

    /// Splits that can be streamed.
    pub fn ready(&self) -> impl Iterator<Item = (SplitName, &SplitHandle)> {
        self.splits().filter_map(|(name, state)| match state {
            SplitState::Ready(split) => Some((name, split)),
            SplitState::Failed(_) => None,
        })
    }

    /// Splits that could not be read, and why.
    pub fn failures(&self) -> impl Iterator<Item = (SplitName, String)> {
        self.splits().filter_map(|(name, state)| match state {
            SplitState::Ready(_) => None,
            SplitState::Failed(error) => Some((name, error.to_string())),
        })
    }

    fn splits(&self) -> impl Iterator<Item = (SplitName, &SplitState)> {
        self.state.iter().flat_map(Dataset::splits).map(|(name, state)| (wire_name(*name), state))
    }

    /// A split that can be streamed.
    ///
    /// # Errors
    /// `404` when the dataset has no such split; `422` when it could not be read.
    pub fn split(&self, name: SplitName) -> Result<SplitHandle, ApiError> {
        if let Err(error) = &self.state {
            return Err(ApiError::broken_dataset(format!(
                "dataset {:?} could not be read: {error}",
                self.name
            )));
        }
        match self.splits().find(|(known, _)| *known == name) {
            Some((_, SplitState::Ready(split))) => Ok(Arc::clone(split)),
            Some((_, SplitState::Failed(error))) => Err(ApiError::broken_dataset(format!(
                "split {name} of dataset {:?} could not be read: {error}",
                self.name
            ))),
            None => {
                let known: Vec<String> = self.splits().map(|(name, _)| name.to_string()).collect();
                Err(ApiError::not_found("split", &name.to_string(), known.iter().map(String::as_str)))
            }
        }
    }

    /// Per-channel mean, 0..1, of the training split if there is one.
    pub fn mean(&self, split: &SplitHandle) -> [f64; 3] {
        self.statistics(split).mean()
    }

    /// Per-channel standard deviation, 0..1, of the training split if there is one.
    pub fn std(&self, split: &SplitHandle) -> [f64; 3] {
        self.statistics(split).std()
    }

    fn statistics<'a>(&'a self, split: &'a SplitHandle) -> &'a SplitHandle {
        self.ready().find(|(name, _)| *name == SplitName::Train).map_or(split, |(_, train)| train)
    }
}

fn wire_name(name: pba_datasets::SplitName) -> SplitName {
    match name {
        pba_datasets::SplitName::Train => SplitName::Train,
        pba_datasets::SplitName::Val => SplitName::Val,
        pba_datasets::SplitName::Test => SplitName::Test,
    }
}

/// Side of what is shown of images of different sizes, unless somebody says otherwise: ImageNet's.
const PHOTO_SIDE: u32 = 224;

/// The paper's base augmentation in proportion to the images, unless something else is better.
fn own_base(state: &Result<Dataset, String>) -> Base {
    let splits = state.iter().flat_map(Dataset::splits);
    let mut shapes = splits.filter_map(|(_, state)| state.ready().ok()).map(|split| split.shape());
    let base = match shapes.next() {
        None => Base::cifar(),
        Some(Some((height, width))) if shapes.all(|other| other == Some((height, width))) => {
            Base::for_images(ImageShape { height, width })
        }
        // Within a split or between two, sizes differ.
        Some(_) => {
            Base { frame: Frame::RandomResizedCrop(PHOTO_SIDE), flip: true, pad_crop: None, cutout: None }
        }
    };
    match state {
        // A cutout of half the side hides most shapes altogether.
        Ok(dataset) if dataset.format() == BUILT_IN => Base { cutout: None, ..base },
        _ => base,
    }
}

/// What images are shown as to a model that was trained with `base`: `resize:256,center_crop:224`
/// after `random_resized_crop:224`, and in that proportion for other sides.
fn eval_base(base: &Base) -> Base {
    let frame = match base.frame {
        Frame::RandomResizedCrop(side) => {
            Frame::Resize { shorter: (side * 8 / 7).clamp(side, FRAME_SIDE_MAX), crop: side }
        }
        frame => frame,
    };
    Base { frame, ..Base::IDENTITY }
}

/// A bar on standard error, anew for each split; quiet when that is not a terminal.
fn report_progress(name: &str) -> impl Fn(Progress) + use<> {
    let name = name.to_owned();
    // Each is there before its split is begun, so that its rate counts from the beginning.
    let bar = RefCell::new(crate::cli::bar::rows(""));
    move |progress: Progress| {
        let mut shown = bar.borrow_mut();
        shown.set_message(format!("packing {name}, {}", progress.split));
        shown.set_length(progress.rows_total);
        shown.set_position(progress.rows_done);
        if progress.rows_done >= progress.rows_total {
            shown.finish_and_clear();
            *shown = crate::cli::bar::rows("");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: &str, expected: &str) {
        assert_eq!(eval_base(&base.parse().unwrap()).to_string(), expected);
    }

    #[test]
    fn evaluation_shows_what_training_shows() {
        check("pad_crop:4,flip,cutout:16", "identity");
        check("random_resized_crop:224,flip", "resize:256,center_crop:224");
        check("random_resized_crop:64,pad_crop:4,cutout:8", "resize:73,center_crop:64");
        check("random_resized_crop:1", "resize:1,center_crop:1");
        check("random_resized_crop:1024", "resize:1024,center_crop:1024");
        check("resize:300,center_crop:200,flip", "resize:300,center_crop:200");
    }
}
