//! What looks after datasets once they are imported: one whose packed file is found damaged is mended, from the file if it
//! was restored, or else from its source; one that was not imported because the disk was full or failed, or there was nothing
//! at its path, is imported again; and a replica serves what its writer has packed meanwhile.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pba_datasets::{DatasetError, Progress};
use pba_types::{Digest, SplitName};

use crate::catalog::datasets::Catalog;
use crate::catalog::entry::{Entry, State};
use crate::catalog::mending::{better, guarded, is_same_source, not_packed_for, restored};

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
                self.tend(&entry, report, mended);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Mends a dataset if it is time, and puts the next attempt off if that was in vain.
    fn tend(
        &self,
        entry: &Entry,
        report: &dyn Fn(&str, Progress) -> ControlFlow<()>,
        mended: &dyn Fn(&Digest),
    ) {
        if !entry.needs_mending() {
            return;
        }
        let (begun, packs) = (Instant::now(), self.packs());
        self.mend(entry, packs, report, mended);
        // A look at what the writer has packed takes as long as it takes to list the source.
        let has_looked = !packs && !entry.is_damaged();
        let is_bad = entry.is_bad();
        let mut mending = entry.mending();
        // Asked under the lock: after a take-over it is tried at once.
        match is_bad && self.packs() == packs {
            true if has_looked => mending.was_looked_for(begun.elapsed()),
            true => mending.was_tried(begun.elapsed()),
            false => {}
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
    /// own, by packing it or by a look at what the writer has packed. What is served never becomes something else by that.
    fn mend(
        &self,
        entry: &Entry,
        packs: bool,
        report: &dyn Fn(&str, Progress) -> ControlFlow<()>,
        forget: &dyn Fn(&Digest),
    ) {
        if entry.is_missing() {
            return self.find(entry);
        }
        let name = entry.name.as_str();
        let (ready, was_damaged) = (entry.ready(), entry.is_damaged());
        for damage in entry.splits().iter().filter_map(|split| split.known_damage()) {
            match packs {
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
            let progress = |progress| {
                *entry.packing() = Some(progress);
                report(name, progress)
            };
            pba_datasets::repair(name, entry.source(), &self.cache, &progress)
        };
        let mended = match restored {
            Some(dataset) => Ok(dataset),
            None if packs => guarded(name, repair),
            // What the writer packs again is found in its place the next time.
            None => return self.look(entry),
        };
        let dataset = match mended {
            Err(DatasetError::Cancelled) => return,
            Err(error) => {
                tracing::error!(dataset = name, %error, "the dataset cannot be mended; it will be tried again");
                let mut state = entry.state_mut();
                match &*state {
                    State::Ready(served) if served.check_imported().is_err() => {
                        let not_packed = served.with_errors(|before| match before {
                            DatasetError::BeingPacked => Some(not_packed_for(&error)),
                            _ => None,
                        });
                        *state = State::Ready(Arc::new(not_packed));
                    }
                    State::Failed(_) => *state = State::Failed(error),
                    State::Ready(_) | State::Importing(_) => {}
                }
                return;
            }
            Ok(dataset) => dataset,
        };
        let dataset = match &ready {
            Some(before) => better(&before.dataset, &|split| before.serves(split), dataset),
            None => dataset,
        };
        if !self.settle(entry, Ok(dataset), packs) {
            return;
        }
        // What was decoded before the damage was known may be of it.
        let before = ready.iter().flat_map(|served| served.dataset.splits.values().flatten());
        before.for_each(|split| forget(&split.digest()));
        if was_damaged && !entry.is_bad() {
            tracing::info!(dataset = name, "mended");
            self.metrics.repairs.with_label_values(&[name]).inc();
        }
    }

    /// Has a dataset imported, as at a start, if there is something at its path by now: what was packed of it opens at once,
    /// and what was not may take hours.
    fn find(&self, entry: &Entry) {
        let Some(path) = entry.source() else { return };
        if pba_datasets::format(path).is_ok() {
            tracing::info!(dataset = entry.name, path = %path.display(), "there is something at its path by now");
            let mut state = entry.state_mut();
            if let State::Failed(DatasetError::Nothing { .. }) = *state {
                *state = State::Importing(None);
            }
        }
    }

    /// Serves what the writer has packed meanwhile, of the same state of the source. Splits that this server did not know
    /// of are let in, too, as this one serves what its writer serves; a writer lets none in ([`better`]).
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
            let known = served.dataset.splits.iter().filter(|(split, _)| is_served(**split));
            found.splits.extend(known.map(|(split, state)| (*split, state.clone())));
        }
        // Unless it has taken over meanwhile: then what is missing is packed.
        self.settle(entry, Ok(found), false);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tempfile::TempDir;

    use super::*;
    use crate::error::Cause;
    use crate::metrics::Metrics;

    /// A dataset whose test split its writer has not packed, as a replica has it.
    struct Lacking {
        folder: TempDir,
        catalog: Catalog,
    }

    fn go_on(_: &str, _: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    impl Lacking {
        fn new() -> Lacking {
            let folder = tempfile::tempdir().unwrap();
            let (cache, source) = (folder.path().join("datasets"), folder.path().join("source"));
            std::fs::create_dir(&source).unwrap();
            // Images of CIFAR-100: two bytes of labels, and pixels.
            std::fs::write(source.join("train.bin"), vec![1; 8 * (2 + 3072)]).unwrap();
            std::fs::write(source.join("test.bin"), vec![2; 8 * (2 + 3072)]).unwrap();
            pba_datasets::open("mine", &source, &cache, &|_| ControlFlow::Continue(())).unwrap();
            for packed in std::fs::read_dir(&cache).unwrap() {
                std::fs::remove_file(packed.unwrap().path().join("test.arrow")).unwrap();
            }
            let catalog = Catalog::new(&cache, false, Metrics::new().unwrap());
            catalog.add("mine", Some(source), None);
            catalog.import(&go_on);
            let lacking = Lacking { folder, catalog };
            assert_eq!(lacking.test(), Some(Cause::NotPacked));
            lacking
        }

        fn entry(&self) -> Arc<Entry> {
            self.catalog.get("mine").unwrap()
        }

        fn mend(&self) {
            self.catalog.mend(&self.entry(), self.catalog.packs(), &go_on, &|_| {});
        }

        /// Why the test split is refused, if it is.
        fn test(&self) -> Option<Cause> {
            let served = self.entry().served().unwrap();
            assert!(served.split(SplitName::Train).is_ok());
            served.split(SplitName::Test).err().map(|error| error.cause)
        }

        /// What `/v1/datasets` says of the test split, as JSON.
        fn described(&self) -> String {
            serde_json::to_string(&self.entry().describe().splits[&SplitName::Test]).unwrap()
        }
    }

    /// Nobody waits without end for what cannot be packed, and it is packed once it can be.
    #[test]
    fn what_cannot_be_packed_after_a_take_over_is_not_waited_for() {
        let lacking = Lacking::new();
        lacking.catalog.take_over();
        assert_eq!(lacking.test(), Some(Cause::Importing));
        assert!(lacking.described().contains("is still being imported"), "{}", lacking.described());
        // The source is gone.
        let (source, away) = (lacking.folder.path().join("source"), lacking.folder.path().join("away"));
        std::fs::rename(&source, &away).unwrap();
        lacking.mend();
        assert_eq!(lacking.test(), Some(Cause::NotPacked));
        let told = lacking.described();
        let [found, remedy] = ["no such file or folder", "the writer of the data directory has to pack it"];
        assert!(told.contains(found) && told.contains(remedy), "{told}");
        assert!(lacking.entry().is_bad(), "it is tried again");
        std::fs::rename(&away, &source).unwrap();
        lacking.mend();
        assert_eq!(lacking.test(), None);
        assert!(!lacking.entry().is_bad());
    }

    /// The same where what is served cannot be read again, so that it is not known whether the rest belongs to it.
    #[test]
    fn what_may_not_belong_to_the_rest_is_not_waited_for() {
        let lacking = Lacking::new();
        lacking.catalog.take_over();
        let file = lacking.folder.path().join("source/train.bin");
        let (whole, modified) = (std::fs::read(&file).unwrap(), file.metadata().unwrap().modified().unwrap());
        std::fs::write(&file, "no images").unwrap();
        lacking.mend();
        assert_eq!(lacking.test(), Some(Cause::NotPacked));
        let told = lacking.described();
        assert!(told.contains("not known whether it belongs to the train split"), "{told}");
        std::fs::write(&file, whole).unwrap();
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
        lacking.mend();
        assert_eq!(lacking.test(), None);
    }

    #[test]
    fn what_a_replica_has_found_is_not_served_once_it_is_the_writer() {
        let lacking = Lacking::new();
        let (entry, catalog) = (lacking.entry(), &lacking.catalog);
        let look = || pba_datasets::open_packed("mine", entry.source(), &catalog.cache);
        let bytes = catalog.metrics.cache_bytes.get();
        assert!(catalog.settle(&entry, look(), false));
        assert_eq!((lacking.test(), catalog.metrics.cache_bytes.get()), (Some(Cause::NotPacked), bytes));
        // A look is under way at the take-over.
        let found = look();
        catalog.take_over();
        assert!(!catalog.settle(&entry, found, false));
        assert_eq!((lacking.test(), catalog.metrics.cache_bytes.get()), (Some(Cause::Importing), bytes));
        // It ends in the same way if it has nothing to settle.
        catalog.look(&entry);
        assert_eq!(lacking.test(), Some(Cause::Importing));
        lacking.mend();
        assert_eq!(lacking.test(), None);
        assert!(catalog.metrics.cache_bytes.get() > bytes);
    }

    #[test]
    fn a_take_over_packs_at_once() {
        let lacking = Lacking::new();
        let entry = lacking.entry();
        assert!(entry.needs_mending());
        entry.mending().was_looked_for(Duration::from_secs(3600));
        assert!(!entry.needs_mending());
        lacking.catalog.take_over();
        assert!(entry.needs_mending());
    }

    /// One that comes while a replica looks is not put off by how long that took.
    #[test]
    fn a_take_over_in_a_look_packs_at_once() {
        let lacking = Lacking::new();
        let entry = lacking.entry();
        // The file of its train split was cut, and then restored from a copy.
        let train = entry.splits().pop().unwrap();
        let copy = train.path().with_extension("copy");
        std::fs::copy(train.path(), &copy).unwrap();
        std::fs::File::options().write(true).open(train.path()).unwrap().set_len(4096).unwrap();
        std::fs::rename(&copy, train.path()).unwrap();
        assert!(entry.is_damaged());
        // What was decoded of it is forgotten in the end.
        lacking.catalog.tend(&entry, &go_on, &|_| lacking.catalog.take_over());
        assert!(lacking.catalog.packs() && entry.needs_mending());
    }

    #[test]
    fn the_progress_of_a_single_split_is_shown() {
        let lacking = Lacking::new();
        let shown = || lacking.entry().describe().progress;
        lacking.catalog.take_over();
        assert_eq!(shown(), None);
        let (seen, entry) = (Cell::new(0), lacking.entry());
        let report = |_: &str, progress: Progress| {
            // What is served is read, too, which is no import.
            let told = shown().map(|shown| (shown.split, shown.rows_done, shown.rows_total));
            let expected = (progress.split, progress.rows_done, progress.rows_total);
            assert_eq!(told, (progress.split == SplitName::Test).then_some(expected));
            seen.set(seen.get() + u32::from(told.is_some()));
            ControlFlow::Continue(())
        };
        lacking.catalog.mend(&entry, true, &report, &|_| {});
        assert!(seen.get() > 0);
        assert_eq!((lacking.test(), shown()), (None, None));
    }
}
