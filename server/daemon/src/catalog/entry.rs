//! A dataset of the catalog in any state, and when it is to be mended.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use pba_augment::Base;
use pba_datasets::{DatasetError, Progress};

use crate::catalog::mending::{cause, is_ours};
use crate::catalog::served::{Served, SplitHandle};
use crate::error::{Cause, Error};
use crate::sync;

/// Time from one attempt to mend a dataset to the next, at first, which doubles up to the greatest: an attempt
/// reads all of it.
const MEND_DELAYS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// A dataset in any state.
pub(crate) struct Entry {
    pub(super) name: String,
    /// None for the built-in one.
    source: Option<PathBuf>,
    /// Base augmentation chosen by the owner.
    pub(super) base: Option<Base>,
    state: RwLock<State>,
    mending: Mutex<Mending>,
    /// How far the split is that is packed beside others that are served.
    packing: Mutex<Option<Progress>>,
    /// Whether it was told that the writer has packed another state of its source.
    pub(super) has_told: AtomicBool,
}

pub(super) enum State {
    Importing(Option<Progress>),
    Ready(Arc<Served>),
    Failed(DatasetError),
}

/// When a dataset may be mended next, and how long after that again.
pub(super) struct Mending {
    next: Instant,
    delay: Duration,
}

impl Mending {
    /// At once.
    pub(super) fn due() -> Mending {
        Mending { next: Instant::now(), delay: MEND_DELAYS.0 }
    }

    /// A look at what the writer has packed found nothing new and took so long: the next leaves most of the time to
    /// others.
    pub(super) fn was_looked_for(&mut self, took: Duration) {
        self.next = Instant::now() + 50 * took;
    }

    /// An attempt was in vain and took so long: the next is put off, so that most of the time is left for others.
    pub(super) fn was_tried(&mut self, took: Duration) {
        self.next = Instant::now() + self.delay.max(10 * took);
        self.delay = (2 * self.delay).min(MEND_DELAYS.1);
    }
}

impl Entry {
    /// One that is still to be imported. Without a source it is the built-in one.
    pub(super) fn new(name: &str, source: Option<PathBuf>, base: Option<Base>) -> Entry {
        let state = RwLock::new(State::Importing(None));
        let (mending, packing) = (Mutex::new(Mending::due()), Mutex::default());
        Entry {
            name: name.to_owned(),
            source,
            base,
            state,
            mending,
            packing,
            has_told: AtomicBool::new(false),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

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
                    "dataset {name:?} is still being imported{}; /v1/datasets/{name} shows its progress",
                    done.unwrap_or_default()
                );
                Err(Error::new(Cause::Importing, detail))
            }
            State::Failed(error) => {
                Err(Error::new(cause(error), format!("dataset {name:?} could not be read: {error}")))
            }
        }
    }

    pub(super) fn is_importing(&self) -> bool {
        matches!(*self.state(), State::Importing(_))
    }

    /// Whether any of it is still to be imported.
    pub(super) fn is_partly_importing(&self) -> bool {
        match &*self.state() {
            State::Importing(_) => true,
            State::Failed(_) => false,
            State::Ready(served) => served.check_imported().is_err(),
        }
    }

    /// How far the split is that is packed beside others that are served.
    pub(super) fn packing(&self) -> MutexGuard<'_, Option<Progress>> {
        sync::lock(&self.packing)
    }

    pub(super) fn ready(&self) -> Option<Arc<Served>> {
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
    pub(super) fn is_bad(&self) -> bool {
        match &*self.state() {
            State::Importing(_) => false,
            State::Failed(error) => is_ours(error),
            State::Ready(served) => served.dataset.splits.values().any(|state| match state {
                Ok(split) => split.damaged_batches() > 0,
                Err(error) => is_ours(error),
            }),
        }
    }

    /// Whether there was nothing at its path.
    pub(super) fn is_missing(&self) -> bool {
        matches!(*self.state(), State::Failed(DatasetError::Nothing { .. }))
    }

    /// Whether a packed file of it is damaged.
    pub(super) fn is_damaged(&self) -> bool {
        self.splits().iter().any(|split| split.damaged_batches() > 0)
    }

    /// Whether it should be mended now.
    pub(super) fn needs_mending(&self) -> bool {
        let is_bad = self.is_bad();
        let mut mending = self.mending();
        if !is_bad {
            mending.delay = MEND_DELAYS.0;
        }
        is_bad && Instant::now() >= mending.next
    }

    pub(super) fn mending(&self) -> MutexGuard<'_, Mending> {
        sync::lock(&self.mending)
    }

    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        sync::read(&self.state)
    }

    pub(super) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        sync::write(&self.state)
    }
}
