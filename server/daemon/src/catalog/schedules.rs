//! The schedules of the server: the published ones, and those that were added.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use anyhow::Context;
use pba_schedules::{Schedule, formats::json, library};
use pba_wire::schedules::ScheduleSummary;

use crate::error::Error;

/// Digits of a digest that are enough if they match one schedule only; lists show twelve.
const DIGEST_DIGITS_MIN: usize = 12;

/// The names of RandAugment's policies.
const RAND_AUGMENT_ALLOWED: &str = "randaugment:N:M with N in 1..=8 and M in 0..=30";

/// Schedules by name. Names are immutable: a name never changes its content.
pub(crate) struct Registry {
    directory: PathBuf,
    is_writer: bool,
    schedules: RwLock<Schedules>,
}

type Schedules = BTreeMap<String, Arc<Schedule>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Created,
    /// The name already had the same content.
    Unchanged,
}

impl Registry {
    /// Opens the registry whose added schedules are files in `directory`. If another server writes there,
    /// they are read again for each request.
    ///
    /// A file that is not a schedule is left alone, with a warning.
    ///
    /// # Errors
    /// When the directory cannot be created or listed.
    pub(crate) fn open(directory: &Path, is_writer: bool) -> anyhow::Result<Registry> {
        pba_files::create_folder(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let schedules = RwLock::new(load(directory, true)?);
        Ok(Registry { directory: directory.to_owned(), is_writer, schedules })
    }

    /// Every schedule, by name, then the policies that never change.
    pub(crate) fn list(&self) -> Vec<Arc<Schedule>> {
        listed(&self.read())
    }

    /// The schedule with a name, a digest, or the beginning of a digest. RandAugment's policies have names
    /// without being listed.
    ///
    /// # Errors
    /// When there is none, with the nearest name, and when a name of RandAugment's has numbers that are
    /// not allowed.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Schedule>, Error> {
        let schedules = self.read();
        if let Some(schedule) = schedules.get(name) {
            return Ok(Arc::clone(schedule));
        }
        let unlisted = library::named(name)
            .map_err(|error| Error::parameter("schedule", name, error, RAND_AUGMENT_ALLOWED))?;
        if let Some(schedule) = unlisted {
            return Ok(Arc::new(schedule));
        }
        if name.len() >= DIGEST_DIGITS_MIN && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let digits = name.to_ascii_lowercase();
            let mut found =
                schedules.values().filter(|schedule| schedule.digest().to_string().starts_with(&digits));
            // Any of several names for the same content will do, but not of different contents.
            if let Some(schedule) = found.next()
                && found.all(|other| other.digest() == schedule.digest())
            {
                return Ok(Arc::clone(schedule));
            }
        }
        Err(unknown(name, &schedules))
    }

    /// Adds a schedule under its name, on disk first.
    ///
    /// # Errors
    /// When the name has different content, or writing fails.
    pub(crate) fn put(&self, schedule: Schedule) -> Result<Put, Error> {
        let mut schedules = self.write();
        if let Some(known) = schedules.get(schedule.name()) {
            if known.digest() == schedule.digest() {
                return Ok(Put::Unchanged);
            }
            return Err(Error::conflict(format!(
                "schedule {:?} exists with other content (digest {}); names are immutable, so choose another",
                known.name(),
                known.digest()
            )));
        }
        let path = self.path(schedule.name());
        pba_files::replace(&path, json::write(&schedule).as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
            .map_err(|error| Error::internal(format!("{error:#}")))?;
        schedules.insert(schedule.name().to_owned(), Arc::new(schedule));
        Ok(Put::Created)
    }

    /// Removes a schedule.
    ///
    /// # Errors
    /// When there is none, when it is a published one, or when removing it fails.
    pub(crate) fn delete(&self, name: &str) -> Result<(), Error> {
        let mut schedules = self.write();
        if matches!(library::named(name), Ok(Some(_))) {
            return Err(Error::conflict(format!("schedule {name:?} is built in and cannot be removed")));
        }
        if !schedules.contains_key(name) {
            return Err(unknown(name, &schedules));
        }
        let path = self.path(name);
        pba_files::remove(&path)
            .map_err(|error| Error::internal(format!("cannot remove {}: {error}", path.display())))?;
        schedules.remove(name);
        Ok(())
    }

    /// The schedules as they are now; on a replica, as they are on disk.
    fn read(&self) -> Schedules {
        let on_disk = || {
            load(&self.directory, false).inspect_err(|error| {
                tracing::error!(error = format!("{error:#}"), "the schedules are outdated");
            })
        };
        let known = || self.schedules.read().unwrap_or_else(PoisonError::into_inner).clone();
        if self.is_writer { known() } else { on_disk().unwrap_or_else(|_| known()) }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Schedules> {
        self.schedules.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }
}

/// By name, the policies that never change last.
fn listed(schedules: &Schedules) -> Vec<Arc<Schedule>> {
    let mut schedules: Vec<_> = schedules.values().cloned().collect();
    schedules.sort_by_key(|schedule| schedule.is_constant());
    schedules
}

/// The error for a name that is nobody's.
fn unknown(name: &str, schedules: &Schedules) -> Error {
    let listed = listed(schedules);
    Error::not_found("schedule", name, listed.iter().map(|schedule| schedule.name()))
}

/// The published schedules, and those in a directory, with or without a warning of other files.
fn load(directory: &Path, warns: bool) -> anyhow::Result<Schedules> {
    let published = library::all().into_iter();
    let mut schedules: Schedules =
        published.map(|schedule| (schedule.name().to_owned(), Arc::new(schedule))).collect();
    let cannot_list = || format!("cannot list {}", directory.display());
    for file in std::fs::read_dir(directory).with_context(cannot_list)? {
        let path = file.with_context(cannot_list)?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read_file(&path) {
            Err(_) if !warns => {}
            Ok(schedule) if path.file_stem().is_none_or(|stem| stem != schedule.name()) => {
                if warns {
                    let name = schedule.name();
                    tracing::warn!(path = %path.display(), name, "not in a file of its name; file ignored");
                }
            }
            Ok(schedule) if !schedules.contains_key(schedule.name()) => {
                schedules.insert(schedule.name().to_owned(), Arc::new(schedule));
            }
            Ok(schedule) if warns => {
                tracing::warn!(path = %path.display(), name = schedule.name(), "name taken; file ignored")
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), error = %error, "not a schedule; file ignored")
            }
        }
    }
    Ok(schedules)
}

fn read_file(path: &Path) -> anyhow::Result<Schedule> {
    Ok(json::read(&std::fs::read_to_string(path)?)?)
}

/// The summary of a schedule, as shown in lists.
pub(crate) fn summary(schedule: &Schedule) -> ScheduleSummary {
    ScheduleSummary {
        name: schedule.name().to_owned(),
        digest: schedule.digest().to_string(),
        epochs: schedule.epochs(),
        segments: schedule.segments().len(),
        provenance: schedule.provenance.clone(),
    }
}

#[cfg(test)]
mod tests {
    use pba_schedules::{Op, Policy, Provenance, Segment};

    use super::*;
    use crate::error::Cause;

    fn schedule(name: &str, epochs: u32) -> Schedule {
        let segment = Segment { epochs, policy: Policy::zero(&Op::PAPER).unwrap() };
        Schedule::new(name, vec![segment], Provenance::default()).unwrap()
    }

    #[test]
    fn names_are_immutable_and_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::open(directory.path(), true).unwrap();
        assert_eq!(registry.put(schedule("mine", 3)).unwrap(), Put::Created);
        assert_eq!(registry.put(schedule("mine", 3)).unwrap(), Put::Unchanged);
        assert_eq!(registry.put(schedule("mine", 4)).unwrap_err().cause, Cause::Conflict);
        assert_eq!(registry.put(schedule("svhn-pba", 4)).unwrap_err().cause, Cause::Conflict);
        drop(registry);

        std::fs::write(directory.path().join("broken.json"), "{").unwrap();
        let registry = Registry::open(directory.path(), true).unwrap();
        assert_eq!(registry.get("mine").unwrap().epochs(), 3);
        let digest = registry.get("mine").unwrap().digest().to_string();
        assert_eq!(registry.get(&digest).unwrap().name(), "mine");
        assert_eq!(registry.get(&digest[..12]).unwrap().name(), "mine");
        assert!(registry.get(&digest[..11]).is_err());
        registry.delete("mine").unwrap();
        assert_eq!(registry.delete("mine").unwrap_err().cause, Cause::NotFound);
        assert_eq!(registry.delete("cifar10-pba").unwrap_err().cause, Cause::Conflict);
        assert!(Registry::open(directory.path(), true).unwrap().get("mine").is_err());
        assert!(directory.path().join("broken.json").exists(), "nothing of the user's is lost");
    }

    #[test]
    fn a_replica_shows_what_the_writer_has_now() {
        let directory = tempfile::tempdir().unwrap();
        let [writer, replica] = [true, false].map(|is| Registry::open(directory.path(), is).unwrap());
        for epochs in [3, 4] {
            assert!(replica.get("mine").is_err());
            writer.put(schedule("mine", epochs)).unwrap();
            assert_eq!(replica.get("mine").unwrap().epochs(), epochs);
            let digest = writer.get("mine").unwrap().digest().to_string();
            assert_eq!(replica.get(&digest).unwrap().name(), "mine");
            assert_eq!(replica.list().len(), writer.list().len());
            writer.delete("mine").unwrap();
        }
    }

    #[test]
    fn a_mistyped_name_is_helped() {
        let directory = tempfile::tempdir().unwrap();
        let error = Registry::open(directory.path(), true).unwrap().get("cifar10_pba").unwrap_err();
        assert!(error.detail.contains("did you mean \"cifar10-pba\"?"), "{}", error.detail);
    }
}
