//! The datasets that the server holds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use pba_augment::Base;
use pba_datasets::{BUILT_IN, Dataset, Normalization, Progress, SplitState};
use pba_types::SplitName;

use crate::error::ApiError;
use crate::metrics::Metrics;

/// Checks a dataset's name, and that there is something at its path.
///
/// # Errors
/// When there is not, or the name is unusable or the built-in one's.
pub fn check_dataset(name: &str, path: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        pba_types::check_name(name).is_ok(),
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
            Entry { name: name.to_owned(), source, base: base.unwrap_or_else(|| base_of(&state)), state };
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
        self.base.for_evaluation()
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
        self.state.iter().flat_map(Dataset::splits).map(|(name, state)| (*name, state))
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

    /// What the pixels of a split are normalised by ([`Dataset::normalization`]).
    pub fn normalization(&self, split: SplitName) -> Option<Normalization> {
        self.state.as_ref().ok()?.normalization(split)
    }
}

/// A bar on standard error, anew for each split; quiet when that is not a terminal.
fn report_progress(name: &str) -> impl Fn(Progress) -> ControlFlow<()> + use<> {
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
        ControlFlow::Continue(())
    }
}

fn base_of(state: &Result<Dataset, String>) -> Base {
    let hides = state.as_ref().is_ok_and(Dataset::is_hidden_by_cutout);
    Base::of_dataset(state.iter().flat_map(Dataset::shapes), hides)
}
