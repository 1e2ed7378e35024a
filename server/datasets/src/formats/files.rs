//! Files of a dataset, and how they are named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pba_types::SplitName;

use crate::error::DatasetError;

/// Entries of one folder; no honest dataset has more shards.
const ENTRIES_MAX: usize = 100_000;

/// The files of each split, at least one.
pub(crate) type Files = BTreeMap<SplitName, Vec<PathBuf>>;

/// The first file of each split, by which messages name it.
pub(crate) fn first(files: &Files) -> BTreeMap<SplitName, PathBuf> {
    files.iter().map(|(&name, files)| (name, files[0].clone())).collect()
}

/// How messages name a file of a dataset: relative to it.
pub(crate) fn label(root: &Path, file: &Path) -> String {
    match file.strip_prefix(root) {
        Ok(relative) if !relative.as_os_str().is_empty() => relative.display().to_string(),
        _ => file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned(),
    }
}

/// Entries of a folder except hidden ones, sorted by name; none when it is not a folder.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let io = DatasetError::io(folder, "list it");
    let mut paths = Vec::new();
    for entry in folder.read_dir().map_err(&io)? {
        let entry = entry.map_err(&io)?;
        if paths.len() == ENTRIES_MAX {
            return Err(io(std::io::Error::other(format!("more than {ENTRIES_MAX} entries"))));
        }
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// The split that a file's or folder's name begins with, as `train-00000-of-00002.parquet` does.
pub(crate) fn split_of(path: &Path) -> Option<SplitName> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    // "val" stands for "valid" and "validation" too.
    SplitName::ALL.into_iter().find(|split| name.starts_with(split.name()))
}

/// The split that a single file is: the one it is named after, or all is for training.
pub(crate) fn split_of_one(file: &Path) -> SplitName {
    split_of(file).unwrap_or(SplitName::Train)
}
