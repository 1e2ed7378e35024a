//! Where the import cache keeps the packed splits of a source.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::error::DatasetError;
use crate::packed::hash::digest;
use crate::packed::spec::FORMAT;

/// Changed when the readers give other pixels or labels for the same files, so that what older
/// versions imported is not used.
const READERS_VERSION: u32 = 1;

/// What tells one state of a file from another: length, and the times of its last change, to the nanosecond. One of these times no program can set, so an edit that keeps the length and puts the time back
/// is noticed.
///
/// Not noticed is an edit within the same tick of the clock that files are stamped with, some milliseconds, as
/// the change before it; nor one on a file system that keeps no times. Nor is it told where a file lies: the
/// numbers of devices and, on mounts of remote stores, of files differ after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileState {
    pub(crate) bytes: u64,
    /// Nanoseconds since 1970.
    modified: i64,
    changed: i64,
}

impl FileState {
    pub(crate) fn of(found: &Metadata) -> FileState {
        // The years 1678 to 2262 have one; a time beyond them is one of them, which is as good.
        let time =
            |seconds: i64, nanoseconds: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds);
        FileState {
            bytes: found.len(),
            modified: time(found.mtime(), found.mtime_nsec()),
            changed: time(found.ctime(), found.ctime_nsec()),
        }
    }
}

/// What tells one state of a source from another: its path, and path and state of each of its files, so that a
/// changed source is imported again.
pub(crate) struct Key(Sha256);

impl Key {
    pub(crate) fn new(source: &Path) -> Result<Key, DatasetError> {
        let source = source.canonicalize().map_err(DatasetError::io(source, "resolve the path"))?;
        let text = format!("{FORMAT} readers {READERS_VERSION}\n{}\n", source.display());
        Ok(Key(Sha256::new_with_prefix(text)))
    }

    /// Of files at `source` that nothing is known of yet.
    pub(crate) fn of_files<'a>(
        source: &Path,
        files: impl IntoIterator<Item = &'a PathBuf>,
    ) -> Result<Key, DatasetError> {
        let mut key = Key::new(source)?;
        for file in files {
            let metadata = file.metadata().map_err(DatasetError::io(file, "read it"))?;
            key.add(file, FileState::of(&metadata));
        }
        Ok(key)
    }

    /// Of a built-in dataset.
    pub(crate) fn built_in(name: &str, version: u32) -> Key {
        Key(Sha256::new_with_prefix(format!("{FORMAT} {name} {version}")))
    }

    pub(crate) fn add(&mut self, file: &Path, state: FileState) {
        self.add_text(&format!("{} {state:?}", file.display()));
    }

    pub(crate) fn add_text(&mut self, text: &str) {
        self.0.update(text);
        self.0.update("\n");
    }

    /// The folder of the packed splits.
    pub(crate) fn folder(self, cache: &Path) -> PathBuf {
        cache.join(digest(self.0).to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_edit_that_puts_length_and_time_back_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "one").unwrap();
        let state = || FileState::of(&path.metadata().unwrap());
        let (before, modified) = (state(), path.metadata().unwrap().modified().unwrap());
        assert_eq!(state(), before);
        // Longer than a tick of the clock.
        std::thread::sleep(Duration::from_millis(50));
        let mut file = File::options().write(true).open(&path).unwrap();
        file.write_all(b"two").unwrap();
        file.set_modified(modified).unwrap();
        assert_eq!((state().bytes, state().modified), (before.bytes, before.modified));
        assert_ne!(state(), before);
        // As does another file in its place.
        let (before, other) = (state(), folder.path().join("b"));
        std::fs::copy(&path, &other).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(state(), before);
    }
}
