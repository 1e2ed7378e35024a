//! The import cache: a source is decoded once, and packed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use crate::error::DatasetError;
use crate::pack::{self, FORMAT};
use crate::packed;
use pba_types::SplitName;

use crate::split::Split;

/// Changed when the readers give other pixels or labels for the same files, so that what older
/// versions imported is not used.
const READERS_VERSION: u32 = 1;

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The split being imported.
    pub split: SplitName,
    /// Its rows that are done.
    pub rows_done: u64,
    /// Its rows in all.
    pub rows_total: u64,
}

/// The folder in which the packed splits of one source are kept.
///
/// Its name depends on the source's path, and on lengths and modification times of its files, so
/// a changed source is imported anew.
pub(crate) fn folder(cache: &Path, source: &Path, files: &[PathBuf]) -> Result<PathBuf, DatasetError> {
    let mut key = Key::new(source)?;
    for file in files {
        let metadata = file.metadata().map_err(DatasetError::io(file, "read it"))?;
        key.add(file, metadata.len(), metadata.modified().ok());
    }
    Ok(key.folder(cache))
}

/// What tells one state of a source from another; see [`folder`].
pub(crate) struct Key(Sha256);

impl Key {
    pub(crate) fn new(source: &Path) -> Result<Key, DatasetError> {
        let source = source.canonicalize().map_err(DatasetError::io(source, "resolve the path"))?;
        let text = format!("{FORMAT} readers {READERS_VERSION}\n{}\n", source.display());
        Ok(Key(Sha256::new_with_prefix(text)))
    }

    /// Some file systems keep no time; length and path must do there.
    pub(crate) fn add(&mut self, file: &Path, bytes: u64, modified: Option<SystemTime>) {
        let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        self.add_text(&format!("{} {bytes} {modified:?}", file.display()));
    }

    pub(crate) fn add_text(&mut self, text: &str) {
        self.0.update(text);
        self.0.update("\n");
    }

    pub(crate) fn folder(self, cache: &Path) -> PathBuf {
        cache.join(pack::digest(self.0).to_string())
    }
}

/// Where split `name` is kept.
pub(crate) fn file(folder: &Path, name: SplitName) -> PathBuf {
    folder.join(format!("{name}.arrow"))
}

/// The split as it was imported before, if it was, and whole.
pub(crate) fn cached(folder: &Path, name: SplitName) -> Option<Arc<Split>> {
    packed::open(&file(folder, name)).ok().map(Arc::new)
}

/// How many threads decode. The result does not depend on it.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Applies `work` to `0..count` on several threads, and gives the results in order.
pub(crate) fn in_parallel<T: Send>(count: usize, threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let share = count.div_ceil(threads.max(1)).max(1);
    let work = &work;
    std::thread::scope(|scope| {
        let range = |start: usize| start..(start + share).min(count);
        // The calling thread takes the first share.
        let others: Vec<_> = (share..count)
            .step_by(share)
            .map(|start| scope.spawn(move || range(start).map(work).collect::<Vec<T>>()))
            .collect();
        let mut results: Vec<T> = range(0).map(work).collect();
        for other in others {
            results.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_does_not_depend_on_the_number_of_threads() {
        for count in [0, 1, 2, 7, 64, 65] {
            let expected: Vec<usize> = (0..count).map(|i| i * i).collect();
            for threads in [1, 2, 3, 8, 100] {
                assert_eq!(in_parallel(count, threads, |i| i * i), expected, "{count} on {threads}");
            }
        }
    }
}
