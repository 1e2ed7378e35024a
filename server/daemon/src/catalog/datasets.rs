//! The datasets of the server by name, and their import. After that, the same thread looks after them (`upkeep.rs`).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use pba_augment::{Base, Frame};
use pba_datasets::{BUILT_IN, Dataset, DatasetError, Progress};

use crate::catalog::entry::{Entry, Mending, State};
use crate::catalog::mending::{bytes, guarded};
use crate::catalog::served::Served;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::sync;

/// Checks a dataset's name.
///
/// # Errors
/// When it is invalid or that of the built-in dataset.
pub(crate) fn check_dataset_name(name: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        pba_types::check_name(name).is_ok(),
        "{name:?} is not a dataset name; allowed are {}",
        pba_types::names_allowed()
    );
    anyhow::ensure!(name != BUILT_IN, "{name:?} is the name of the built-in dataset; give yours another one");
    Ok(())
}

/// Checks that there is something at a dataset's path.
///
/// # Errors
/// When there is nothing.
pub(crate) fn check_dataset_path(name: &str, path: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(path.exists(), "dataset {name:?}: there is nothing at {}", path.display());
    Ok(())
}

/// Datasets by name. While the server runs, each is imported, then ready or failed.
pub(crate) struct Catalog {
    entries: RwLock<BTreeMap<String, Arc<Entry>>>,
    /// Folder of packed datasets.
    pub(super) cache: PathBuf,
    /// Whether this server packs there. In the directory of another server, its writer does that.
    packs: AtomicBool,
    /// Whether every import had ended once. What a replica imports that becomes the writer later does not take it from
    /// those whom it serves.
    was_ready: AtomicBool,
    pub(super) metrics: Metrics,
}

impl Catalog {
    /// A catalog with the built-in dataset, not imported yet. If this server packs, packed datasets are stored in
    /// `cache`, and packed again when they are damaged; if not, those are served that are packed there.
    pub(crate) fn new(cache: &Path, packs: bool, metrics: Metrics) -> Catalog {
        let (packs, was_ready) = (AtomicBool::new(packs), AtomicBool::new(false));
        let catalog =
            Catalog { entries: RwLock::default(), cache: cache.to_owned(), packs, was_ready, metrics };
        catalog.add(BUILT_IN, None, None);
        catalog
    }

    /// Adds a dataset that is still to be imported, replacing one of the same name. Without a source it is
    /// the built-in one.
    pub(crate) fn add(&self, name: &str, source: Option<PathBuf>, base: Option<Base>) {
        self.metrics.begin_dataset(name);
        let entry = Arc::new(Entry::new(name, source, base));
        let mut entries = sync::write(&self.entries);
        entries.insert(name.to_owned(), entry);
    }

    /// Packs from now on what is not packed yet: what nothing is served of is imported as at a start, and of others the
    /// splits that are missing.
    pub(crate) fn take_over(&self) {
        // Before any entry is locked: what this server has found as a replica is settled before that, and seen here, or not
        // at all ([`Catalog::settle`]).
        self.packs.store(true, Ordering::Relaxed);
        for entry in self.list() {
            let mut state = entry.state_mut();
            let being_packed = match &*state {
                State::Failed(DatasetError::NotPacked { .. }) => Some(State::Importing(None)),
                State::Ready(served) if served.lacks() && !served.serves_any() => {
                    self.metrics.cache_bytes.sub(bytes(&served.dataset));
                    Some(State::Importing(None))
                }
                State::Ready(served) if served.lacks() => {
                    tracing::info!(dataset = entry.name, "what is not packed of it is still being imported");
                    let being_packed = served.with_errors(|error| match error {
                        DatasetError::NotPacked { .. } => Some(DatasetError::BeingPacked),
                        _ => None,
                    });
                    Some(State::Ready(Arc::new(being_packed)))
                }
                _ => None,
            };
            if let Some(being_packed) = being_packed {
                *state = being_packed;
            }
            drop(state);
            // The next look of a replica may be far away.
            *entry.mending() = Mending::due();
        }
        self.clear_away();
    }

    pub(super) fn packs(&self) -> bool {
        self.packs.load(Ordering::Relaxed)
    }

    /// Removes from the cache what killed servers and earlier versions left, if this server packs there.
    pub(crate) fn clear_away(&self) {
        if !self.packs() {
            return;
        }
        let abandoned = pba_datasets::remove_partials(&self.cache);
        if abandoned > 0 {
            tracing::info!(files = abandoned, "removed partly packed files of a killed server or trainer");
        }
        let sources: Vec<PathBuf> =
            self.list().iter().filter_map(|entry| entry.source().map(Path::to_owned)).collect();
        let earlier = pba_datasets::remove_earlier_versions(&self.cache, &sources);
        if earlier > 0 {
            tracing::info!(folders = earlier, "removed what an earlier version packed; it is packed again");
        }
    }

    /// Imports one dataset after another until all are imported. `report` is called meanwhile, and returns
    /// whether to continue. A dataset that cannot be read keeps its error, and the others are served.
    pub(crate) fn import(&self, report: &dyn Fn(&str, Progress) -> ControlFlow<()>) {
        // The built-in dataset first, as it takes a second and others may take hours.
        let importing = || self.list().into_iter().filter(|entry| entry.is_importing());
        while let Some(entry) = importing().min_by_key(|entry| entry.source().is_some()) {
            let (name, packs) = (entry.name.as_str(), self.packs());
            let progress = |progress| {
                *entry.state_mut() = State::Importing(Some(progress));
                report(name, progress)
            };
            let open = || match entry.source() {
                _ if !packs => pba_datasets::open_packed(name, entry.source(), &self.cache),
                None => pba_datasets::shapes(&self.cache, &progress),
                Some(path) => {
                    tracing::info!(dataset = name, path = %path.display(), "opening or importing");
                    pba_datasets::open(name, path, &self.cache, &progress)
                }
            };
            let opened = guarded(name, open);
            if let Err(DatasetError::Cancelled) = opened {
                return;
            }
            // If this server has taken over meanwhile, it is still to be imported.
            self.settle(&entry, opened, packs);
        }
        self.was_ready.store(true, Ordering::Relaxed);
    }

    /// Serves what was opened, or keeps the error; `packed` says whether this server packed when that was begun. If it has
    /// taken over since, what it found as a replica is of no use any more: the entry stays as it was left by the
    /// take-over, and this is false.
    pub(super) fn settle(&self, entry: &Entry, opened: Result<Dataset, DatasetError>, packed: bool) -> bool {
        let name = entry.name.as_str();
        let mut state = entry.state_mut();
        if self.packs() != packed {
            return false;
        }
        if let State::Ready(before) = &*state {
            self.metrics.cache_bytes.sub(bytes(&before.dataset));
        }
        *state = match opened {
            Err(error) => {
                tracing::warn!(dataset = name, %error, "the dataset is not served");
                State::Failed(error)
            }
            Ok(dataset) => {
                for (split, found) in &dataset.packed_again {
                    tracing::warn!(dataset = name, %split, %found, "the split was packed again");
                }
                self.metrics.cache_bytes.add(bytes(&dataset));
                if let Some(base) = entry.base.filter(|base| base.frame == Frame::Full)
                    && dataset.shapes().any(|shape| shape.is_none())
                {
                    tracing::warn!(
                        dataset = name,
                        %base,
                        "its images differ in size, so its base makes no batches: requests must give one that begins \
                         with random_resized_crop:N or resize:N,center_crop:N, as the configuration should"
                    );
                }
                let served = Served { dataset, base: entry.base };
                let mut splits = Vec::new();
                for split in served.dataset.splits.keys() {
                    match served.split(*split) {
                        Ok(_) => splits.push(split.name()),
                        Err(Error { detail, .. }) => {
                            tracing::warn!(dataset = name, %split, error = detail, "the split is not served");
                        }
                    }
                }
                if !splits.is_empty() {
                    tracing::info!(dataset = name, splits = splits.join(", "), "the dataset is served");
                }
                State::Ready(Arc::new(served))
            }
        };
        true
    }

    /// Every dataset, by name.
    pub(crate) fn list(&self) -> Vec<Arc<Entry>> {
        sync::read(&self.entries).values().cloned().collect()
    }

    /// The dataset with a name.
    ///
    /// # Errors
    /// When there is none, with the nearest name.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Entry>, Error> {
        let entries = sync::read(&self.entries);
        let found = entries.get(name).cloned();
        found.ok_or_else(|| Error::not_found("dataset", name, entries.keys().map(String::as_str)))
    }

    /// Whether any of a dataset is still to be imported.
    pub(crate) fn is_importing(&self, name: &str) -> bool {
        self.get(name).is_ok_and(|entry| entry.is_partly_importing())
    }

    /// Whether any dataset is still to be imported.
    pub(crate) fn imports(&self) -> bool {
        self.list().iter().any(|entry| entry.is_partly_importing())
    }

    /// Checks that every dataset was imported once, has failed, or is not packed yet by the writer.
    ///
    /// # Errors
    /// When one is still to be imported, with its progress.
    pub(crate) fn check_ready(&self) -> Result<(), Error> {
        if self.was_ready.load(Ordering::Relaxed) {
            return Ok(());
        }
        let list = self.list();
        list.iter().filter(|entry| entry.is_importing()).try_for_each(|entry| entry.served().map(drop))
    }
}
