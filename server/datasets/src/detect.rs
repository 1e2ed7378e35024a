//! Which format a path holds, and the one way to open it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dataset::Dataset;
use crate::error::DatasetError;
use crate::import::{self, Progress};
use pba_types::SplitName;

use crate::split::SplitState;
use crate::{cifar, folder, packed, parquet};

/// The files of each split.
pub(crate) type Files = BTreeMap<SplitName, Vec<PathBuf>>;

/// Files of one source; no honest dataset has more shards.
const FILES_MAX: usize = 100_000;

/// What was looked for, for the message when there is nothing.
const LOOKED_FOR: &str = "packed splits (train.arrow, val.arrow, test.arrow), \
    Parquet files (train*.parquet, val*.parquet, test*.parquet; also in data/, train/, val/, test/; or a single .parquet file), \
    CIFAR-10 binary (data_batch_1.bin .. data_batch_5.bin, test_batch.bin), CIFAR-100 binary (train.bin, test.bin), \
    folders of JPEG and PNG images (train/CLASS/, val/CLASS/, test/CLASS/; or CLASS/)";

enum Source {
    Packed(Files),
    Parquet(Files),
    Cifar(cifar::Source),
    Folder(folder::Source),
}

impl Source {
    fn format(&self) -> &'static str {
        match self {
            Source::Packed(_) => "packed",
            Source::Parquet(_) => "parquet",
            Source::Cifar(_) => "cifar",
            Source::Folder(_) => "folder",
        }
    }
}

/// The format in which [`open`] would read what is at `path`, which is looked at and not read.
///
/// # Errors
/// When there is nothing at `path`, nothing in a format we read, or it cannot be listed.
pub fn format(path: &Path) -> Result<&'static str, DatasetError> {
    // To open a pipe is to wait for who writes to it.
    if path.metadata().is_ok_and(|found| !found.is_dir() && !found.is_file()) {
        return Err(nothing(path));
    }
    find(path).map(|source| source.format())
}

/// Opens the dataset at `path` under the name `name`, whatever its format.
///
/// A packed dataset is mapped as it is. Anything else is decoded into `cache_dir` first, which
/// calls `progress` as it goes; when the source is unchanged since, that is skipped. Several
/// processes may do so at the same time.
///
/// A split that cannot be read is [`SplitState::Failed`], and the others serve; it is tried again
/// the next time.
///
/// # Errors
/// When there is nothing at `path`, nothing in a format we read, or it cannot be listed.
pub fn open(
    name: &str,
    path: &Path,
    cache_dir: &Path,
    progress: &dyn Fn(Progress),
) -> Result<Dataset, DatasetError> {
    let source = find(path)?;
    let format = source.format();
    let (files, mut splits) = match source {
        Source::Packed(files) => {
            let open = |(name, files): (&SplitName, &Vec<PathBuf>)| {
                let state = match packed::open(&files[0]) {
                    Ok(split) => SplitState::Ready(Arc::new(split)),
                    Err(error) => SplitState::Failed(error),
                };
                (*name, state)
            };
            let splits = files.iter().map(open).collect();
            (files, splits)
        }
        Source::Parquet(files) => {
            let all: Vec<PathBuf> = files.values().flatten().cloned().collect();
            let folder = import::folder(cache_dir, path, &all)?;
            let splits = parquet::import(path, &files, &folder, progress);
            (files, splits)
        }
        Source::Cifar(source) => {
            let all: Vec<PathBuf> = source.files.values().flatten().chain(&source.names).cloned().collect();
            let folder = import::folder(cache_dir, path, &all)?;
            let splits = cifar::import(path, &source, &folder, progress);
            (source.files, splits)
        }
        Source::Folder(source) => {
            let folder = source.cache_folder(cache_dir, path)?;
            let splits = folder::import(path, &source, &folder, progress);
            (source.files(), splits)
        }
    };
    agree(path, &files, &mut splits);
    Ok(Dataset::new(name, format, splits))
}

/// Fails the splits whose classes differ from those of the first one that is ready.
///
/// Sizes may differ: each split is kept in its own way, and a base augmentation that crops gives
/// images of one size from any.
fn agree(root: &Path, files: &Files, splits: &mut BTreeMap<SplitName, SplitState>) {
    let Some(first) = splits.values().find_map(|state| state.ready().ok()).cloned() else { return };
    for (name, state) in splits {
        let SplitState::Ready(split) = state else { continue };
        if split.classes() != first.classes() {
            let (found, expected) = (split.classes().len(), first.classes().len());
            let file = label(root, &files[name][0]);
            *state = SplitState::Failed(DatasetError::Classes { file, found, expected });
        }
    }
}

/// How messages name a file of a dataset: relative to it.
pub(crate) fn label(root: &Path, file: &Path) -> String {
    match file.strip_prefix(root) {
        Ok(relative) if !relative.as_os_str().is_empty() => relative.display().to_string(),
        _ => file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned(),
    }
}

fn find(path: &Path) -> Result<Source, DatasetError> {
    let metadata = match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(DatasetError::NotFound { path: path.to_owned() });
        }
        metadata => metadata.map_err(DatasetError::io(path, "read it"))?,
    };
    if !metadata.is_dir() {
        let files = Files::from([(split_of(path).unwrap_or(SplitName::Train), vec![path.to_owned()])]);
        return match kind(path)? {
            Some(Kind::Packed) => Ok(Source::Packed(files)),
            Some(Kind::Parquet) => Ok(Source::Parquet(files)),
            None => Err(nothing(path)),
        };
    }
    let listing = list(path)?;
    let packed: Files = SplitName::ALL
        .into_iter()
        .map(|name| (name, path.join(format!("{name}.arrow"))))
        .filter(|(_, file)| listing.contains(file))
        .map(|(name, file)| (name, vec![file]))
        .collect();
    if !packed.is_empty() {
        return Ok(Source::Packed(packed));
    }
    if let Some(source) = cifar::find(path)? {
        return Ok(Source::Cifar(source));
    }
    match parquet_files(path, &listing)? {
        files if files.is_empty() => folder::find(path)?.map(Source::Folder).ok_or_else(|| nothing(path)),
        files => Ok(Source::Parquet(files)),
    }
}

fn nothing(path: &Path) -> DatasetError {
    DatasetError::NothingReadable { path: path.to_owned(), looked_for: LOOKED_FOR.to_owned() }
}

enum Kind {
    Packed,
    Parquet,
}

/// Told by the first bytes; by the extension when they are damaged, so that the format's own
/// reader can say what is wrong.
fn kind(path: &Path) -> Result<Option<Kind>, DatasetError> {
    let mut beginning = [0; 6];
    let mut file = File::open(path).map_err(DatasetError::io(path, "open it"))?;
    let filled = file.read(&mut beginning).map_err(DatasetError::io(path, "read it"))?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    Ok(match &beginning[..filled] {
        b"ARROW1" => Some(Kind::Packed),
        [b'P', b'A', b'R', b'1', ..] => Some(Kind::Parquet),
        _ if extension == "arrow" => Some(Kind::Packed),
        _ if extension == "parquet" => Some(Kind::Parquet),
        _ => None,
    })
}

/// Entries of a folder, hidden ones left out, sorted by name; empty when it is not a folder.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let io = DatasetError::io(folder, "list it");
    let mut paths = Vec::new();
    for entry in folder.read_dir().map_err(&io)? {
        let entry = entry.map_err(&io)?;
        if paths.len() == FILES_MAX {
            return Err(io(std::io::Error::other(format!("more than {FILES_MAX} entries"))));
        }
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// The split that a file's or folder's name begins with, as `train-00000-of-00002.parquet` does.
fn split_of(path: &Path) -> Option<SplitName> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    // "val" stands for "valid" and "validation" too.
    SplitName::ALL.into_iter().find(|split| name.starts_with(split.as_str()))
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "parquet") && path.is_file()
}

fn parquet_files(root: &Path, listing: &[PathBuf]) -> Result<Files, DatasetError> {
    let mut files = Files::new();
    let mut nameless = Vec::new();
    let data = list(&root.join("data"))?;
    for entry in listing.iter().chain(&data) {
        match split_of(entry) {
            Some(split) if is_parquet(entry) => files.entry(split).or_default().push(entry.clone()),
            Some(split) if entry.is_dir() => {
                let inner = list(entry)?.into_iter().filter(|file| is_parquet(file));
                inner.for_each(|file| files.entry(split).or_default().push(file));
            }
            None if is_parquet(entry) => nameless.push(entry.clone()),
            _ => {}
        }
    }
    if files.is_empty() && nameless.len() == 1 {
        files.insert(SplitName::Train, nameless);
    } else if files.is_empty() && !nameless.is_empty() {
        let names: Vec<String> = nameless.iter().take(5).map(|file| label(root, file)).collect();
        let looked_for = format!(
            "Parquet files named by split (train*.parquet, val*.parquet, test*.parquet), as there are several; found {}",
            names.join(", ")
        );
        return Err(DatasetError::NothingReadable { path: root.to_owned(), looked_for });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &[&str], expected: &[(SplitName, &[&str])]) {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        let files = parquet_files(folder.path(), &list(folder.path()).unwrap()).unwrap();
        let found: Vec<(SplitName, Vec<String>)> = files
            .iter()
            .map(|(split, files)| (*split, files.iter().map(|file| label(folder.path(), file)).collect()))
            .collect();
        let expected: Vec<(SplitName, Vec<String>)> = expected
            .iter()
            .map(|(split, files)| (*split, files.iter().map(|f| (*f).to_owned()).collect()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn parquet_files_are_found_by_their_names() {
        use SplitName::{Test, Train, Val};
        check(
            &["train.parquet", "test.parquet", "validation.parquet", "README.md", ".train.parquet"],
            &[(Train, &["train.parquet"]), (Val, &["validation.parquet"]), (Test, &["test.parquet"])],
        );
        check(
            &["data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet"],
            &[(Train, &["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"])],
        );
        check(
            &["train/0001.parquet", "train/0000.parquet", "test/0000.parquet", "valid/a.parquet"],
            &[
                (Train, &["train/0000.parquet", "train/0001.parquet"]),
                (Val, &["valid/a.parquet"]),
                (Test, &["test/0000.parquet"]),
            ],
        );
        check(&["cifar.parquet"], &[(Train, &["cifar.parquet"])]);
        check(&["notes.txt"], &[]);
    }
}
