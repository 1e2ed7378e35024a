//! The schedules of the server: the published ones, and those that were added.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use anyhow::Context;
use pba_schedules::{PROVENANCE_FIELDS_MAX, Schedule, formats::json, library};
use pba_wire::schedules::ScheduleSummary;

use crate::catalog::stored::{Others, Schedules, Stored, load, read_file, state_of};
use crate::data_lock::DataLock;
use crate::error::{Cause, Error};
use crate::sync;

/// Digits of a digest that are enough if they match one schedule only; lists show twelve.
const DIGEST_DIGITS_MIN: usize = 12;

/// The names of RandAugment's policies.
const RAND_AUGMENT_ALLOWED: &str = "randaugment:N:M with N in 1..=8 and M in 0..=30";

/// What may be added to a registry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Schedules.
    pub(crate) count: usize,
    /// Bytes of one, as it is stored.
    pub(crate) bytes: usize,
    /// Bytes of all together.
    pub(crate) bytes_total: usize,
}

/// Schedules by name. Names are immutable: a name never changes its content.
///
/// Readers take the schedules as they are, and never wait for the disk; changes are made one at a time,
/// on disk first.
pub(crate) struct Registry {
    directory: PathBuf,
    lock: Arc<DataLock>,
    bounds: Bounds,
    /// Locked only while they are taken or replaced as a whole.
    schedules: RwLock<Arc<Schedules>>,
    /// Locked while the disk is read or written.
    changing: Mutex<()>,
    /// Files in the directory that are no schedules of their names. Locked only while they are taken or replaced.
    others: Mutex<Others>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Created,
    /// The name already had the same content.
    Unchanged,
}

impl Registry {
    /// Opens the registry whose added schedules are files in `directory`. If another server writes there,
    /// [`Registry::refresh`] reads them again.
    ///
    /// A file that is not a schedule is left alone, with a warning.
    ///
    /// # Errors
    /// When the directory cannot be created or listed.
    pub(crate) fn open(directory: &Path, lock: &Arc<DataLock>, bounds: Bounds) -> anyhow::Result<Registry> {
        if lock.is_writer() {
            create(directory)?;
        }
        let (mut others, directory, lock) = (Others::new(), directory.to_owned(), Arc::clone(lock));
        let schedules = RwLock::new(Arc::new(load(&directory, &Schedules::new(), &mut others)?));
        let (changing, others) = (Mutex::new(()), Mutex::new(others));
        Ok(Registry { directory, lock, bounds, schedules, changing, others })
    }

    /// Takes over what is in the directory, where this server writes from now on.
    ///
    /// # Errors
    /// When the directory cannot be created or listed.
    pub(crate) fn take_over(&self) -> anyhow::Result<()> {
        let _one = self.names();
        create(&self.directory)?;
        self.replace(self.load_again()?);
        Ok(())
    }

    /// If another server writes to the directory: takes over what is in it now. Waits for the disk.
    pub(crate) fn refresh(&self) {
        if self.lock.is_writer() {
            return;
        }
        let _one = self.names();
        match self.load_again() {
            Ok(found) => self.replace(found),
            Err(error) => tracing::error!(error = format!("{error:#}"), "the schedules are outdated"),
        }
    }

    fn load_again(&self) -> anyhow::Result<Schedules> {
        let mut others = self.others().clone();
        let loaded = load(&self.directory, &self.known(), &mut others)?;
        *self.others() = others;
        Ok(loaded)
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        sync::lock(&self.others)
    }

    /// The files in its directory that are no schedules of their names, and why, as far as it was seen when the
    /// schedules were read.
    pub(crate) fn ignored(&self) -> Vec<String> {
        let others = self.others();
        let ignored =
            others.iter().map(|(path, other)| format!("{} is ignored: {}", path.display(), other.reason));
        ignored.collect()
    }

    /// A summary of every schedule, by name, then the policies that never change.
    pub(crate) fn list(&self) -> Vec<ScheduleSummary> {
        listed(&self.known()).into_iter().map(|stored| stored.summary.clone()).collect()
    }

    /// The schedule with a name, a digest, or the beginning of a digest. RandAugment's policies have names
    /// without being listed.
    ///
    /// # Errors
    /// When there is none, with the nearest name, and when a name of RandAugment's has numbers that are
    /// not allowed.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Schedule>, Error> {
        let schedules = self.known();
        let is_digest = name.len() >= DIGEST_DIGITS_MIN && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let Some(Stored { schedule: known, .. }) = schedules.get(name) {
            let is_other = |stored: &&Stored| {
                let digest = stored.schedule.digest();
                digest != known.digest() && digest.to_string().starts_with(&name.to_ascii_lowercase())
            };
            if is_digest && let Some(other) = schedules.values().find(is_other) {
                return Err(Error::parameter(
                    "schedule",
                    name,
                    format!("is a schedule's name, and begins the digest of {:?}", other.schedule.name()),
                    "a complete digest, or another name",
                ));
            }
            return Ok(Arc::clone(known));
        }
        let unlisted = library::named(name)
            .map_err(|error| Error::parameter("schedule", name, error, RAND_AUGMENT_ALLOWED))?;
        if let Some(schedule) = unlisted {
            return Ok(Arc::new(schedule));
        }
        if is_digest {
            let digits = name.to_ascii_lowercase();
            let schedules = schedules.values().map(|stored| &stored.schedule);
            let mut found = schedules.filter(|schedule| schedule.digest().to_string().starts_with(&digits));
            // Any of several names for the same content will do, but not of different contents.
            if let Some(schedule) = found.next()
                && found.all(|other| other.digest() == schedule.digest())
            {
                return Ok(Arc::clone(schedule));
            }
        }
        Err(unknown(name, &schedules))
    }

    /// Adds a schedule that a client sends, within the bounds, unless `is_promised` to something else: it is asked
    /// while no other request can take a name.
    ///
    /// # Errors
    /// As those of [`Registry::put`]; when the name is promised, it is too large, or there are as many as are allowed.
    pub(crate) fn add(&self, schedule: Schedule, is_promised: impl FnOnce() -> bool) -> Result<Put, Error> {
        let fields = schedule.provenance.other.len();
        if fields > PROVENANCE_FIELDS_MAX {
            let detail =
                format!("provenance has {fields} fields of its own; allowed are {PROVENANCE_FIELDS_MAX}");
            return Err(Error::body(detail));
        }
        let names = self.names();
        if is_promised() {
            let name = schedule.name();
            let detail =
                format!("the name {name:?} is reserved for the schedule of a search; choose another one");
            return Err(Error::conflict(detail));
        }
        self.store(schedule, Some(self.bounds), &names)
    }

    /// Checks before a document is read that its schedule could be added, and returns its length without white
    /// space: what would be stored is longer.
    ///
    /// # Errors
    /// When it is too large.
    pub(crate) fn check_size(&self, document: &str) -> Result<usize, Error> {
        let bytes = document.bytes().filter(|byte| !byte.is_ascii_whitespace()).count();
        check_size(bytes, self.bounds)?;
        Ok(bytes)
    }

    /// Keeps a schedule that was learned here, on disk first. It returns when it is there for good.
    ///
    /// # Errors
    /// When the name has different content, writing fails, or the data directory is no longer this server's; then
    /// nothing has changed.
    pub(crate) fn put(&self, schedule: Schedule) -> Result<Put, Error> {
        self.store(schedule, None, &self.names())
    }

    fn store(
        &self,
        schedule: Schedule,
        bounds: Option<Bounds>,
        _names: &MutexGuard<'_, ()>,
    ) -> Result<Put, Error> {
        let mut schedules = Schedules::clone(&self.known());
        let path = self.path(schedule.name());
        let mut put = Put::Created;
        if let Some(Stored { schedule: known, file, .. }) = schedules.get(schedule.name()) {
            let is_same = known.digest() == schedule.digest();
            // What is no longer on disk, or not as it was written, is written again.
            if is_same && (file.is_none() || state_of(&path).ok() == *file) {
                return Ok(Put::Unchanged);
            }
            put = Put::Unchanged;
            if !is_same {
                return Err(Error::conflict(format!(
                    "schedule {:?} exists with other content (digest {}); names are immutable, so choose another",
                    known.name(),
                    known.digest()
                )));
            }
        }
        let text = json::write_with_digest(&schedule);
        if let Some(bounds) = bounds.filter(|_| put == Put::Created) {
            check_room(&schedules, text.len(), bounds)?;
        }
        self.lock.check_in_place()?;
        // What a failed change could not take back is replaced by the same, and nothing else.
        let is_same = |left: Schedule| left.name() == schedule.name() && left.digest() == schedule.digest();
        let is_ours = put == Put::Unchanged;
        if !is_ours && path.exists() && !read_file(&path).is_ok_and(is_same) {
            return Err(Error::conflict(format!(
                "{} is there, with other content, and was not there when this server started; move it away, or choose \
                 another name",
                path.display()
            )));
        }
        let written = pba_files::replace(&path, text.as_bytes()).and_then(|()| state_of(&path));
        let stamp = written.map_err(|error| {
            // Its content or its name may not be there after a power failure, so it was not added.
            let error = Error::disk("write", &path, &error);
            if is_ours {
                return error;
            }
            match pba_files::take_back(&path) {
                Ok(()) => error.unchanged(),
                Err(again) => {
                    error.and(&format!("nor can it be undone: {again}; it may be there after a restart"))
                }
            }
        })?;
        let stored = Stored::new(schedule, Some(stamp));
        schedules.insert(stored.schedule.name().to_owned(), stored);
        self.replace(schedules);
        Ok(put)
    }

    /// Whether there is a file that a new schedule of this name could not replace. Waits for the disk.
    pub(crate) fn has_file(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The same, as far as it was seen when the schedules were read.
    pub(crate) fn has_other(&self, name: &str) -> bool {
        self.others().contains_key(&self.path(name))
    }

    /// Removes a schedule, on disk first. It returns when it is gone for good.
    ///
    /// # Errors
    /// When there is none, when it is a published one, when removing it fails, or when the data directory is no longer
    /// this server's; then nothing has changed.
    pub(crate) fn delete(&self, name: &str) -> Result<(), Error> {
        let _one = self.names();
        let mut schedules = Schedules::clone(&self.known());
        if matches!(library::named(name), Ok(Some(_))) {
            return Err(Error::conflict(format!("schedule {name:?} is built in and cannot be removed")));
        }
        let Some(removed) = schedules.remove(name) else { return Err(unknown(name, &schedules)) };
        self.lock.check_in_place()?;
        let path = self.path(name);
        match std::fs::remove_file(&path) {
            // It was removed by hand.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(|error| Error::disk("remove", &path, &error).unchanged())?,
        }
        if let Err(error) = pba_files::sync_folder_of(&path) {
            // It could be there again after a power failure, so it was not removed. If it cannot be put back
            // either, it is shown as long as this server runs, which never takes a stream its schedule.
            let back = pba_files::replace(&path, json::write_with_digest(&removed.schedule).as_bytes());
            let error = Error::disk("remove", &path, &error);
            return Err(match back {
                Ok(()) => error.unchanged(),
                Err(again) => error.and(&format!("nor can it be put back: {again}")),
            });
        }
        self.replace(schedules);
        Ok(())
    }

    /// The schedules as this server knows them.
    fn known(&self) -> Arc<Schedules> {
        Arc::clone(&sync::read(&self.schedules))
    }

    fn replace(&self, schedules: Schedules) {
        let mut known = sync::write(&self.schedules);
        let old = std::mem::replace(&mut *known, Arc::new(schedules));
        // Readers do not wait for what is freed.
        drop(known);
        drop(old);
    }

    /// While this is held, no name is added or removed. Waits for a change that is under way, and thus for the disk.
    pub(crate) fn names(&self) -> MutexGuard<'_, ()> {
        sync::lock(&self.changing)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }
}

fn create(directory: &Path) -> anyhow::Result<()> {
    pba_files::create_folder(directory).with_context(|| format!("cannot create {}", directory.display()))
}

fn check_size(bytes: usize, bounds: Bounds) -> Result<(), Error> {
    if bytes <= bounds.bytes {
        return Ok(());
    }
    let detail = format!(
        "the schedule takes {bytes} bytes with its provenance; allowed are {} (schedule_bytes_max)",
        bounds.bytes
    );
    Err(Error::new(Cause::TooLarge, detail))
}

/// Checks that one more schedule may be added.
fn check_room(schedules: &Schedules, bytes: usize, bounds: Bounds) -> Result<(), Error> {
    check_size(bytes, bounds)?;
    let added = || schedules.values().filter_map(|stored| stored.file);
    let (count, total) = (added().count(), added().map(|file| file.bytes).sum::<u64>());
    if count >= bounds.count {
        let detail = format!(
            "{count} schedules were added: the limit (schedules_max); remove some that are no longer used"
        );
        return Err(Error::new(Cause::TooMany, detail));
    }
    if total + bytes as u64 > bounds.bytes_total as u64 {
        let detail = format!(
            "the schedules that were added take {total} bytes, and with this one of {bytes} they would take more \
             than the {} that are allowed (schedules_bytes_max); remove some that are no longer used",
            bounds.bytes_total
        );
        return Err(Error::new(Cause::TooMany, detail));
    }
    Ok(())
}

/// By name, the policies that never change last.
fn listed(schedules: &Schedules) -> Vec<&Stored> {
    let mut schedules: Vec<_> = schedules.values().collect();
    schedules.sort_by_key(|stored| stored.schedule.is_constant());
    schedules
}

/// The error for a name that no schedule has.
fn unknown(name: &str, schedules: &Schedules) -> Error {
    let listed = listed(schedules);
    Error::not_found("schedule", name, listed.iter().map(|stored| stored.schedule.name()))
}

#[cfg(test)]
mod tests {
    use pba_schedules::{Op, Policy, Provenance, Segment};

    use super::*;

    const BOUNDS: Bounds = Bounds { count: 3, bytes: 4000, bytes_total: 6000 };

    /// The registry in a directory: the first one there writes.
    fn open(directory: &Path) -> anyhow::Result<Registry> {
        Registry::open(directory, &DataLock::of_test(directory), BOUNDS)
    }

    fn schedule(name: &str, epochs: u32) -> Schedule {
        let segment = Segment { epochs, policy: Policy::zero(&Op::PAPER).unwrap() };
        Schedule::new(name, vec![segment], Provenance::default()).unwrap()
    }

    #[test]
    fn names_are_immutable_and_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let registry = open(directory.path()).unwrap();
        assert_eq!(registry.put(schedule("mine", 3)).unwrap(), Put::Created);
        assert_eq!(registry.put(schedule("mine", 3)).unwrap(), Put::Unchanged);
        assert_eq!(registry.put(schedule("mine", 4)).unwrap_err().cause, Cause::Conflict);
        assert_eq!(registry.put(schedule("svhn-pba", 4)).unwrap_err().cause, Cause::Conflict);
        drop(registry);

        std::fs::write(directory.path().join("broken.json"), "{").unwrap();
        let registry = open(directory.path()).unwrap();
        assert_eq!(registry.get("mine").unwrap().epochs(), 3);
        let digest = registry.get("mine").unwrap().digest().to_string();
        assert_eq!(registry.get(&digest).unwrap().name(), "mine");
        assert_eq!(registry.get(&digest[..12]).unwrap().name(), "mine");
        assert!(registry.get(&digest[..11]).is_err());
        registry.delete("mine").unwrap();
        assert_eq!(registry.delete("mine").unwrap_err().cause, Cause::NotFound);
        assert_eq!(registry.delete("cifar10-pba").unwrap_err().cause, Cause::Conflict);
        assert!(open(directory.path()).unwrap().get("mine").is_err());
        assert!(directory.path().join("broken.json").exists(), "nothing of the user's is lost");
    }

    #[test]
    fn a_name_that_begins_the_digest_of_another_is_neither() {
        let directory = tempfile::tempdir().unwrap();
        let registry = open(directory.path()).unwrap();
        registry.put(schedule("mine", 3)).unwrap();
        let digest = registry.get("mine").unwrap().digest().to_string();
        registry.put(schedule(&digest[..12], 4)).unwrap();
        assert_eq!(registry.get(&digest[..12]).unwrap_err().parameter.as_deref(), Some("schedule"));
        assert_eq!(registry.get(&digest[..13]).unwrap().epochs(), 3);
        assert_eq!(registry.get(&digest).unwrap().epochs(), 3);
        registry.delete("mine").unwrap();
        assert_eq!(registry.get(&digest[..12]).unwrap().epochs(), 4);
    }

    #[test]
    fn what_is_added_has_few_fields_of_provenance_and_what_is_there_any_number() {
        let directory = tempfile::tempdir().unwrap();
        let of = |fields: usize| {
            let fields: Vec<String> = (0..fields).map(|field| format!("\"f{field}\":1")).collect();
            let mut schedule = schedule("mine", 3);
            schedule.provenance = serde_json::from_str(&format!("{{{}}}", fields.join(","))).unwrap();
            schedule
        };
        let registry = open(directory.path()).unwrap();
        let error = registry.add(of(PROVENANCE_FIELDS_MAX + 1), || false).unwrap_err();
        assert!(error.detail.contains("65 fields"), "{}", error.detail);
        registry.put(of(PROVENANCE_FIELDS_MAX + 1)).unwrap();
        drop(registry);
        assert!(open(directory.path()).unwrap().get("mine").is_ok());
    }

    #[test]
    fn a_replica_shows_what_the_writer_has_now() {
        let directory = tempfile::tempdir().unwrap();
        let [writer, replica] = [(); 2].map(|()| open(directory.path()).unwrap());
        for epochs in [3, 4] {
            assert!(replica.get("mine").is_err());
            writer.put(schedule("mine", epochs)).unwrap();
            replica.refresh();
            assert_eq!(replica.get("mine").unwrap().epochs(), epochs);
            let digest = writer.get("mine").unwrap().digest().to_string();
            assert_eq!(replica.get(&digest).unwrap().name(), "mine");
            assert_eq!(replica.list().len(), writer.list().len());
            writer.delete("mine").unwrap();
            replica.refresh();
        }
    }

    #[test]
    fn what_is_added_is_bounded_and_what_is_learned_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let registry = open(directory.path()).unwrap();
        let with_source = |name: &str, bytes: usize| {
            let mut schedule = schedule(name, 3);
            schedule.provenance.source = Some("x".repeat(bytes));
            schedule
        };
        assert_eq!(registry.add(schedule("promised", 3), || true).unwrap_err().cause, Cause::Conflict);
        assert_eq!(registry.add(with_source("large", 4000), || false).unwrap_err().cause, Cause::TooLarge);
        registry.add(with_source("a", 2500), || false).unwrap();
        let error = registry.add(with_source("b", 2500), || false).unwrap_err();
        assert_eq!((error.cause, error.detail.contains("schedules_bytes_max")), (Cause::TooMany, true));
        registry.add(schedule("b", 3), || false).unwrap();
        registry.add(schedule("c", 4), || false).unwrap();
        let error = registry.add(schedule("d", 3), || false).unwrap_err();
        assert_eq!((error.cause, error.detail.contains("schedules_max")), (Cause::TooMany, true));
        assert_eq!(registry.add(schedule("c", 4), || false).unwrap(), Put::Unchanged);
        registry.put(with_source("learned", 4000)).unwrap();
        registry.delete("learned").unwrap();
        registry.delete("a").unwrap();
        registry.add(schedule("d", 3), || false).unwrap();
    }

    #[test]
    fn a_failed_change_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let registry = open(directory.path()).unwrap();
        // Notes of a user's are not overwritten.
        let notes = directory.path().join("mine.json");
        std::fs::write(&notes, "notes").unwrap();
        assert_eq!(registry.put(schedule("mine", 3)).unwrap_err().cause, Cause::Conflict);
        assert_eq!(std::fs::read_to_string(&notes).unwrap(), "notes");
        // What cannot be written: the temporary file's place is taken by a folder.
        std::fs::create_dir_all(directory.path().join("other.json.partial/full")).unwrap();
        assert_eq!(registry.put(schedule("other", 3)).unwrap_err().cause, Cause::Internal);
        assert!(registry.get("other").is_err() && !directory.path().join("other.json").exists());
        // What cannot be removed.
        let gone = directory.path().join("gone.json");
        registry.put(schedule("gone", 3)).unwrap();
        std::fs::remove_file(&gone).unwrap();
        std::fs::create_dir(&gone).unwrap();
        assert_eq!(registry.delete("gone").unwrap_err().cause, Cause::Internal);
        assert!(registry.get("gone").is_ok());
        std::fs::remove_dir(&gone).unwrap();
        registry.delete("gone").unwrap();
        // What a failed change left behind in spite of all is replaced by the same, and by nothing else: it may be the
        // user's.
        let left = directory.path().join("left.json");
        std::fs::write(&left, json::write(&schedule("left", 3))).unwrap();
        let before = std::fs::read(&left).unwrap();
        assert_eq!(registry.put(schedule("left", 4)).unwrap_err().cause, Cause::Conflict);
        assert_eq!(std::fs::read(&left).unwrap(), before);
        assert_eq!(registry.put(schedule("left", 3)).unwrap(), Put::Created);
    }

    #[test]
    fn a_directory_that_was_replaced_is_not_written_to() {
        let outer = tempfile::tempdir().unwrap();
        let directory = outer.path().join("schedules");
        std::fs::create_dir(&directory).unwrap();
        let registry = open(&directory).unwrap();
        registry.put(schedule("mine", 3)).unwrap();
        std::fs::rename(&directory, outer.path().join("elsewhere")).unwrap();
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("mine.json"), "another server's").unwrap();
        for error in [registry.put(schedule("other", 3)).unwrap_err(), registry.delete("mine").unwrap_err()] {
            assert_eq!((error.cause, error.detail.contains("moved away")), (Cause::Conflict, true));
        }
        assert!(directory.join("mine.json").exists() && !directory.join("other.json").exists());
        assert!(registry.get("mine").is_ok() && registry.get("other").is_err());
    }

    #[test]
    fn a_damaged_file_is_no_other_schedule() {
        let directory = tempfile::tempdir().unwrap();
        let registry = open(directory.path()).unwrap();
        registry.put(schedule("mine", 3)).unwrap();
        let path = directory.path().join("mine.json");
        let whole = std::fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            let after = open(directory.path()).unwrap();
            // Damage to what is known of its origin changes no pixel.
            let known = after.get("mine");
            assert!(
                known.is_err() || known.unwrap().digest() == schedule("mine", 3).digest(),
                "byte {place}"
            );
        }
    }

    #[test]
    fn a_mistyped_name_is_helped() {
        let directory = tempfile::tempdir().unwrap();
        let error = open(directory.path()).unwrap().get("cifar10_pba").unwrap_err();
        assert!(error.detail.contains("did you mean \"cifar10-pba\"?"), "{}", error.detail);
    }
}
