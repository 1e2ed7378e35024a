//! Where the import cache keeps the packed splits of a source.

use std::path::{Path, PathBuf};

use pba_files::FileState;
use sha2::{Digest as _, Sha256};

use crate::error::DatasetError;
use crate::packed::hash::digest;
use crate::packed::spec::FORMAT;

/// Changed when the readers give other pixels or labels for the same files, so that what older
/// versions imported is not used.
const READERS_VERSION: u32 = 1;

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
        // Should the state print otherwise one day, everything is imported again.
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
