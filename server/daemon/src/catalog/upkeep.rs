//! What looks after datasets once they are imported: one whose packed file is found damaged is mended, from the file if it
//! was restored, or else from its source; one that was not imported because the disk was full or failed is imported again;
//! and a replica serves what its writer has packed meanwhile.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pba_datasets::{DatasetError, Progress};
use pba_types::{Digest, SplitName};

use crate::catalog::datasets::Catalog;
use crate::catalog::entry::{Entry, State};
use crate::catalog::mending::{better, bytes, guarded, is_same_source, restored};

/// How often the datasets are looked at for damage that was found.
const LOOK_EVERY: Duration = Duration::from_secs(1);
impl Catalog {
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
}
