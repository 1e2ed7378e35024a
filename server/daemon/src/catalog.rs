//! The datasets that the server holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use pba_augment::{Base, ImageShape};
use pba_datasets::{Dataset, Progress, SplitState};
use pba_wire::Split as SplitName;

use crate::error::ApiError;
use crate::metrics::Metrics;

/// Name of the built-in dataset.
pub const BUILT_IN: &str = "shapes";

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
        let dataset = timed(metrics, || pba_datasets::shapes(cache, &report_progress(BUILT_IN)))
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
        pba_schedules::check_name(name)
            .map_err(|_| anyhow::anyhow!("{name:?} is not a dataset name; allowed are 1..=64 letters, digits, '-', '_' and '.', starting with a letter or digit"))?;
        anyhow::ensure!(
            name != BUILT_IN,
            "{name:?} is the name of the built-in dataset; give yours another one"
        );
        anyhow::ensure!(!self.entries.contains_key(name), "dataset {name:?} is given twice");
        anyhow::ensure!(path.exists(), "dataset {name:?}: there is nothing at {}", path.display());
        tracing::info!(dataset = name, path = %path.display(), "reading; what is not packed yet is packed first");
        let opened = timed(metrics, || pba_datasets::open(name, path, cache, &report_progress(name)));
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

/// The paper's base augmentation in proportion to the images, unless something else is better.
fn own_base(state: &Result<Dataset, String>) -> Base {
    let splits = state.iter().flat_map(Dataset::splits);
    let shape = splits.filter_map(|(_, state)| state.ready().ok()).map(|split| split.shape()).next();
    let base = shape.map_or(Base::cifar(), |(height, width)| Base::for_images(ImageShape { height, width }));
    match state {
        // A cutout of half the side hides most shapes altogether.
        Ok(dataset) if dataset.format() == BUILT_IN => Base { cutout: None, ..base },
        _ => base,
    }
}

fn timed<T>(metrics: &Metrics, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    metrics.stage_decode.observe(start.elapsed().as_secs_f64());
    result
}

/// A bar on standard error; quiet when that is not a terminal.
fn report_progress(name: &str) -> impl Fn(Progress) + use<> {
    let bar = crate::cli::bar::rows(&format!("reading {name}"));
    move |progress: Progress| {
        bar.set_length(progress.rows_total);
        bar.set_position(progress.rows_done);
        if progress.rows_done >= progress.rows_total {
            bar.finish_and_clear();
        }
    }
}
