//! The datasets of the server, imported or not.
//!
//! After the imports, their thread looks after what they made: a dataset whose packed file is found damaged is
//! mended, from the file if it was restored, or else from its source; one that was not imported because the
//! disk was full or failed is imported again.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use pba_augment::{Base, FRAME_SIDE_MAX, Frame, ImageShape};
use pba_datasets::{BUILT_IN, Dataset, DatasetError, Normalization, Progress, SplitState};
use pba_types::{Digest, SplitName};
use pba_wire::datasets::{self as wire, DatasetState, ImageStorage, ImportProgress, ReadySplit, Sizes};
use pba_wire::stream::CHANNELS;

use crate::catalog::mending::{better, bytes, cause, guarded, is_ours, is_same_source, restored};
use crate::error::{Cause, Error};
use crate::metrics::Metrics;

/// Checks a dataset's name, and that its path exists.
///
/// # Errors
/// When the path does not exist, or the name is invalid or that of the built-in dataset.
pub(crate) fn check_dataset(name: &str, path: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        pba_types::check_name(name).is_ok(),
        "{name:?} is not a dataset name; allowed are {}",
        pba_types::names_allowed()
    );
    anyhow::ensure!(name != BUILT_IN, "{name:?} is the name of the built-in dataset; give yours another one");
    anyhow::ensure!(path.exists(), "dataset {name:?}: there is nothing at {}", path.display());
    Ok(())
}

/// How often the datasets are looked at for damage that was found.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time from one attempt to mend a dataset to the next, at first, which doubles up to the greatest: an attempt
/// reads all of it.
const MEND_DELAYS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// One split, shared with the streams that send it.
pub(crate) type SplitHandle = Arc<pba_datasets::Split>;

/// Datasets by name. While the server runs, each is imported, then ready or failed.
pub(crate) struct Catalog {
    entries: RwLock<BTreeMap<String, Arc<Entry>>>,
    /// Folder of packed datasets.
    cache: PathBuf,
    /// Whether this server packs there. In the directory of another server, its writer does that.
    packs: AtomicBool,
    /// Whether every import had ended once. What a replica imports that becomes the writer later does not take it from
    /// those whom it serves.
    was_ready: AtomicBool,
    metrics: Metrics,
}

/// A dataset in any state.
pub(crate) struct Entry {
    name: String,
    /// None for the built-in one.
    source: Option<PathBuf>,
    /// Base augmentation chosen by the owner.
    base: Option<Base>,
    state: RwLock<State>,
    /// When it may be mended next, and how long after that again.
    mending: Mutex<(Instant, Duration)>,
    /// Whether it was told that the writer has packed another state of its source.
    has_told: AtomicBool,
}

enum State {
    Importing(Option<Progress>),
    Ready(Arc<Served>),
    Failed(DatasetError),
}

/// An open dataset.
pub(crate) struct Served {
    dataset: Dataset,
    /// Base augmentation chosen by the owner.
    base: Option<Base>,
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
        let state = RwLock::new(State::Importing(None));
        let mending = Mutex::new((Instant::now(), MEND_DELAYS.0));
        let has_told = AtomicBool::new(false);
        let entry = Arc::new(Entry { name: name.to_owned(), source, base, state, mending, has_told });
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(name.to_owned(), entry);
    }

    /// Packs from now on what is not packed yet: what nothing is served of is imported as at a start, and of others the
    /// splits that are missing.
    pub(crate) fn take_over(&self) {
        self.packs.store(true, Ordering::Relaxed);
        for entry in self.list() {
            let mut state = entry.state_mut();
            let being_packed = match &*state {
                State::Failed(DatasetError::NotPacked { .. }) => State::Importing(None),
                State::Ready(served) if served.lacks() && !served.serves_any() => {
                    self.metrics.cache_bytes.sub(bytes(&served.dataset));
                    State::Importing(None)
                }
                State::Ready(served) if served.lacks() => {
                    let mut dataset = served.dataset.clone();
                    for state in dataset.splits.values_mut().filter(|state| is_not_packed(state)) {
                        *state = Err(DatasetError::BeingPacked);
                    }
                    State::Ready(Arc::new(Served { dataset, base: served.base }))
                }
                _ => continue,
            };
            *state = being_packed;
        }
        self.clear_away();
    }

    fn packs(&self) -> bool {
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
        while let Some(entry) = importing().min_by_key(|entry| entry.source.is_some()) {
            let name = entry.name.as_str();
            let progress = |progress| {
                *entry.state_mut() = State::Importing(Some(progress));
                report(name, progress)
            };
            let open = || match &entry.source {
                _ if !self.packs() => pba_datasets::open_packed(name, entry.source(), &self.cache),
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
            self.settle(&entry, opened);
        }
        self.was_ready.store(true, Ordering::Relaxed);
    }

    /// Looks after the imported datasets until it is over, and imports those that have to be by now. Mending is
    /// reported as in [`Catalog::import`], and `mended` is told of each split that was damaged.
    pub(crate) fn look_after(
        &self,
        report: &dyn Fn(&str, Progress) -> ControlFlow<()>,
        mended: &dyn Fn(&Digest),
        is_over: &dyn Fn() -> bool,
    ) {
        while !is_over() {
            self.import(report);
            for entry in self.list() {
                if entry.needs_mending() {
                    let begun = Instant::now();
                    self.mend(&entry, report, mended);
                    // A look at what the writer has packed takes as long as it takes to list the source.
                    let has_looked = !self.packs() && !entry.is_damaged();
                    match entry.is_bad() {
                        true if has_looked => entry.was_looked_for(begun.elapsed()),
                        true => entry.was_tried(begun.elapsed()),
                        false => {}
                    }
                }
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Counts the damage that is known, which takes no look at a disk.
    pub(crate) fn count_damage(&self) {
        for entry in self.list() {
            let damaged: usize = entry.splits().iter().map(|split| split.known_damaged_batches()).sum();
            self.metrics.damaged_record_batches.with_label_values(&[entry.name.as_str()]).set(damaged as i64);
        }
    }

    /// Mends a dataset whose packed files are damaged, or that could not be imported through no fault of its
    /// own. What is served never becomes something else by that.
    fn mend(
        &self,
        entry: &Entry,
        report: &dyn Fn(&str, Progress) -> ControlFlow<()>,
        forget: &dyn Fn(&Digest),
    ) {
        let name = entry.name.as_str();
        let (ready, was_damaged) = (entry.ready(), entry.is_damaged());
        for damage in entry.splits().iter().filter_map(|split| split.known_damage()) {
            match self.packs() {
                true => {
                    tracing::error!(dataset = name, error = %damage, "damaged; it is to be mended from its source")
                }
                false => {
                    tracing::error!(dataset = name, error = %damage, "damaged; the writer has to mend it")
                }
            }
        }
        let restored = ready.as_ref().filter(|_| was_damaged).and_then(|served| restored(&served.dataset));
        let repair = || {
            let progress = |progress| report(name, progress);
            pba_datasets::repair(name, entry.source(), &self.cache, &progress)
        };
        let mended = match restored {
            Some(dataset) => Ok(dataset),
            None if self.packs() => guarded(name, repair),
            // What the writer packs again is found in its place the next time.
            None => return self.look(entry),
        };
        let dataset = match mended {
            Err(DatasetError::Cancelled) => return,
            Err(error) => {
                tracing::error!(dataset = name, %error, "the dataset cannot be mended; it will be tried again");
                if ready.is_none() {
                    *entry.state_mut() = State::Failed(error);
                }
                return;
            }
            Ok(dataset) => dataset,
        };
        let dataset = match &ready {
            Some(before) => {
                self.metrics.cache_bytes.sub(bytes(&before.dataset));
                better(&before.dataset, &|split| before.serves(split), dataset)
            }
            None => dataset,
        };
        self.settle(entry, Ok(dataset));
        // What was decoded before the damage was known may be of it.
        let before = ready.iter().flat_map(|served| served.dataset.splits.values().flatten());
        before.for_each(|split| forget(&split.digest()));
        if was_damaged && !entry.is_bad() {
            tracing::info!(dataset = name, "mended");
            self.metrics.repairs.with_label_values(&[name]).inc();
        }
    }

    /// Serves what the writer has packed meanwhile.
    fn look(&self, entry: &Entry) {
        let name = entry.name.as_str();
        let found = guarded(name, || pba_datasets::open_packed(name, entry.source(), &self.cache));
        let Ok(mut found) = found else { return };
        let before = entry.ready();
        if let Some(served) = &before
            && served.serves_any()
            && !served.has(SplitName::Train)
        {
            // It would be what the others are augmented and normalised like.
            found.splits.remove(&SplitName::Train);
        }
        let is_known = |split| {
            before.as_ref().and_then(|served| served.dataset.splits.get(split)).is_some_and(Result::is_ok)
        };
        if !found.splits.iter().any(|(split, state)| state.is_ok() && !is_known(split)) {
            return;
        }
        if let Some(served) = before {
            let is_served = |split| served.serves(split);
            let is_same = is_same_source(&served.dataset, &is_served, &found);
            if is_same != Some(true) {
                if is_same == Some(false) && !entry.has_told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        dataset = name,
                        "its source has changed since this server opened it; restart this server to serve what it is now"
                    );
                }
                return;
            }
            self.metrics.cache_bytes.sub(bytes(&served.dataset));
            let known = served.dataset.splits.iter().filter(|(split, _)| is_served(**split));
            found.splits.extend(known.map(|(split, state)| (*split, state.clone())));
        }
        self.settle(entry, Ok(found));
    }

    fn settle(&self, entry: &Entry, opened: Result<Dataset, DatasetError>) {
        let name = entry.name.as_str();
        let state = match opened {
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
        *entry.state_mut() = state;
    }

    /// Every dataset, by name.
    pub(crate) fn list(&self) -> Vec<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The dataset with a name.
    ///
    /// # Errors
    /// When there is none, with the nearest name.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Entry>, Error> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
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

    /// Checks that every dataset was imported once, or failed.
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

impl Entry {
    /// Its source; none for the built-in one.
    pub(crate) fn source(&self) -> Option<&Path> {
        self.source.as_deref()
    }

    /// The dataset itself.
    ///
    /// # Errors
    /// When it is still being imported, with its progress; when it could not be read.
    pub(crate) fn served(&self) -> Result<Arc<Served>, Error> {
        let name = &self.name;
        match &*self.state() {
            State::Ready(served) => Ok(Arc::clone(served)),
            State::Importing(progress) => {
                let done = progress.map(|Progress { split, rows_done, rows_total }| {
                    format!(", {rows_done} of {rows_total} rows of split {split} so far")
                });
                let detail = format!(
                    "dataset {name:?} is still being imported{}; /v1/datasets/{name} shows its progress, \
                     and /readyz answers 200 when every import has ended",
                    done.unwrap_or_default()
                );
                Err(Error::new(Cause::Importing, detail))
            }
            State::Failed(error) => {
                Err(Error::new(cause(error), format!("dataset {name:?} could not be read: {error}")))
            }
        }
    }

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

    fn is_importing(&self) -> bool {
        matches!(*self.state(), State::Importing(_))
    }

    /// Whether any of it is still to be imported.
    fn is_partly_importing(&self) -> bool {
        match &*self.state() {
            State::Importing(_) => true,
            State::Failed(_) => false,
            State::Ready(served) => {
                served.dataset.splits.values().any(|state| matches!(state, Err(DatasetError::BeingPacked)))
            }
        }
    }

    fn ready(&self) -> Option<Arc<Served>> {
        match &*self.state() {
            State::Ready(served) => Some(Arc::clone(served)),
            _ => None,
        }
    }

    /// Its splits that could be read, in order; none before it was imported.
    pub(crate) fn splits(&self) -> Vec<SplitHandle> {
        let splits = self.ready().map(|served| served.dataset.splits.values().flatten().cloned().collect());
        splits.unwrap_or_default()
    }

    /// Whether this is what is served of one of its splits now.
    pub(crate) fn has(&self, split: &SplitHandle) -> bool {
        self.ready()
            .is_some_and(|served| served.dataset.splits.values().flatten().any(|now| Arc::ptr_eq(now, split)))
    }

    /// Whether a packed file of it is damaged, or it could not be imported through no fault of its own.
    fn is_bad(&self) -> bool {
        match &*self.state() {
            State::Importing(_) => false,
            State::Failed(error) => is_ours(error),
            State::Ready(served) => served.dataset.splits.values().any(|state| match state {
                Ok(split) => split.damaged_batches() > 0,
                Err(error) => is_ours(error),
            }),
        }
    }

    /// Whether a packed file of it is damaged.
    fn is_damaged(&self) -> bool {
        self.splits().iter().any(|split| split.damaged_batches() > 0)
    }

    /// Whether it should be mended now.
    fn needs_mending(&self) -> bool {
        let is_bad = self.is_bad();
        let mut mending = self.mending.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_bad {
            mending.1 = MEND_DELAYS.0;
        }
        is_bad && Instant::now() >= mending.0
    }

    /// A look at what the writer has packed found nothing new and took so long: the next leaves most of the time to
    /// others.
    fn was_looked_for(&self, took: Duration) {
        let mut mending = self.mending.lock().unwrap_or_else(PoisonError::into_inner);
        mending.0 = Instant::now() + 50 * took;
    }

    /// An attempt to mend it was in vain and took so long: the next is put off, so that most of the time is left for others.
    fn was_tried(&self, took: Duration) {
        let mut mending = self.mending.lock().unwrap_or_else(PoisonError::into_inner);
        let delay = mending.1;
        *mending = (Instant::now() + delay.max(10 * took), (2 * delay).min(MEND_DELAYS.1));
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
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
        let has_shape = |split| {
            let state = self.dataset.split(split).and_then(|state| state.as_ref().ok());
            state.and_then(|split| split.shape())
        };
        if self.base.is_some() {
            return Ok(base.for_evaluation());
        }
        Ok(match (self.reference(split)?.shape(), has_shape(split)) {
            // Of any size, as one that the model was trained with.
            (Some(ImageShape { height, width }), None) if height.min(width) <= FRAME_SIDE_MAX => {
                Base::middle(height.min(width))
            }
            _ => base.for_evaluation(),
        })
    }

    /// Base augmentation to train with on images like those of a split.
    fn own_base(&self, split: SplitName) -> Result<Base, Error> {
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
                    "the normalisation of split {name} of dataset {dataset:?} is that of its train split, which could not be read: \
                     {error}"
                ),
            )),
            None => Err(self.no_split(name)),
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
    fn lacks(&self) -> bool {
        self.dataset.splits.values().any(is_not_packed)
    }

    /// Whether any split can be streamed.
    fn serves_any(&self) -> bool {
        self.dataset.splits.keys().any(|split| self.serves(*split))
    }

    /// Whether a split can be streamed.
    fn serves(&self, split: SplitName) -> bool {
        self.split(split).is_ok()
    }

    /// A split that can be streamed, and the normalisation of its pixels.
    ///
    /// # Errors
    /// When the dataset has no such split, or it or what it is normalised like could not be read.
    pub(crate) fn split(&self, name: SplitName) -> Result<(SplitHandle, Normalization), Error> {
        match self.dataset.split(name) {
            Some(Ok(split)) => {
                let like = self.reference(name)?;
                Ok((Arc::clone(split), Normalization { mean: like.mean(), std: like.std() }))
            }
            Some(Err(error)) => {
                let dataset = &self.dataset.name;
                let detail = format!("split {name} of dataset {dataset:?} could not be read: {error}");
                Err(Error::new(cause(error), detail))
            }
            None => Err(self.no_split(name)),
        }
    }
}

fn is_not_packed(state: &SplitState) -> bool {
    matches!(state, Err(DatasetError::NotPacked { .. }))
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
