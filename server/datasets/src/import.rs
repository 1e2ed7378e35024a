//! The one way from a path to a dataset: find its format, pack what is not packed yet, open it.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pba_types::SplitName;

use crate::cache::Key;
use crate::dataset::{BUILT_IN, Dataset};
use crate::error::DatasetError;
use crate::formats;
use crate::formats::files::label;
use crate::formats::format::{Format, Found, Source};
use crate::formats::shapes::Shapes;
use crate::packed::copy::copy;
use crate::packed::read;
use crate::packed::split::SplitState;
use crate::packed::target::{self, Progress};

/// Bytes at the beginning of a file that tell its format.
const MAGIC_BYTES_MAX: usize = 16;

/// The format in which [`open`] would read what is at `path`, which is looked at and not read.
///
/// # Errors
/// When there is nothing at `path`, nothing in a format we read, or it cannot be listed.
pub fn format(path: &Path) -> Result<&'static str, DatasetError> {
    // Opening a pipe would wait for its writer.
    if path.metadata().is_ok_and(|found| !found.is_dir() && !found.is_file()) {
        return Err(nothing(path));
    }
    find(path).map(|(format, _)| format.name)
}

/// Opens the dataset at `path` under the name `name`, whatever its format.
///
/// It is packed into `cache_dir` first, unless it has not changed since that was done; a packed dataset is
/// copied there, so that no other program writes to what is mapped. Several processes may do so at the same time.
///
/// While a split is being packed, `progress` is told of it: before the first row, and after every few.
/// When it answers [`ControlFlow::Break`], the import is cancelled; splits that were finished stay in
/// the cache.
///
/// A split that cannot be read is an error in its place, and the others serve; it is tried again the
/// next time.
///
/// # Errors
/// When there is nothing at `path`, nothing in a format we read, or it cannot be listed; and
/// [`DatasetError::Cancelled`].
pub fn open(
    name: &str,
    path: &Path,
    cache_dir: &Path,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<Dataset, DatasetError> {
    open_with(name, path, cache_dir, Trust::UntilTouched, progress)
}

/// As [`open`], or [`shapes`] without a path, but for packed splits that are damaged: everything in the cache is
/// read, and what is not as it was written is packed again.
///
/// # Errors
/// As theirs.
pub fn repair(
    name: &str,
    path: Option<&Path>,
    cache_dir: &Path,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<Dataset, DatasetError> {
    match path {
        Some(path) => open_with(name, path, cache_dir, Trust::AfterReading, progress),
        None => shapes_with(cache_dir, Trust::AfterReading, progress),
    }
}

/// As [`open`], or [`shapes`] without a path, but nothing is packed: a split that is not in the cache is an error in
/// its place, [`DatasetError::NotPacked`], as is one that cannot be opened there.
///
/// # Errors
/// As those of [`open`], but for being cancelled.
pub fn open_packed(name: &str, path: Option<&Path>, cache_dir: &Path) -> Result<Dataset, DatasetError> {
    let progress = |_| ControlFlow::Continue(());
    match path {
        Some(path) => open_with(name, path, cache_dir, Trust::OfOthers, &progress),
        None => shapes_with(cache_dir, Trust::OfOthers, &progress),
    }
}

/// When a packed split in the cache is taken for what was written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// At once, as each image is compared when it is touched.
    UntilTouched,
    /// When all of it was read and compared.
    AfterReading,
    /// At once, and none is packed: the cache is another server's.
    OfOthers,
}

fn open_with(
    name: &str,
    path: &Path,
    cache_dir: &Path,
    trust: Trust,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<Dataset, DatasetError> {
    let (format, found) = find(path)?;
    let (files, Imported { mut splits, packed_again }) = match found {
        Found::Packed(files) => {
            let folder = Key::of_files(path, files.values())?.folder(cache_dir);
            let copy = |name, to: &Path| copy(&files[&name], to, name, progress);
            let imported = import(files.keys().copied(), &folder, trust, &copy, progress)?;
            (files, imported)
        }
        Found::Source(source) => (source.splits(), import_source(&*source, cache_dir, trust, progress)?),
    };
    agree(path, &files, &mut splits);
    Ok(Dataset { name: name.to_owned(), format: format.name, splits, packed_again })
}

/// The built-in dataset, drawn on first use and kept in `cache_dir`. It reports its progress and is
/// cancelled as in [`open`].
///
/// # Errors
/// When the cache cannot be written or read, and [`DatasetError::Cancelled`].
pub fn shapes(
    cache_dir: &Path,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<Dataset, DatasetError> {
    shapes_with(cache_dir, Trust::UntilTouched, progress)
}

fn shapes_with(
    cache_dir: &Path,
    trust: Trust,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<Dataset, DatasetError> {
    let Imported { splits, packed_again } = import_source(&Shapes, cache_dir, trust, progress)?;
    if let Some(error) = splits.values().find_map(|state| state.as_ref().err()) {
        return Err(error.clone());
    }
    Ok(Dataset { name: BUILT_IN.to_owned(), format: BUILT_IN, splits, packed_again })
}

/// Splits that were opened, and what was found in the place of those that had to be packed again.
struct Imported {
    splits: BTreeMap<SplitName, SplitState>,
    packed_again: BTreeMap<SplitName, DatasetError>,
}

/// Opens every split of a source from the cache. One that is not there, or not as it should be, is
/// packed first.
fn import_source(
    source: &dyn Source,
    cache_dir: &Path,
    trust: Trust,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<Imported, DatasetError> {
    let folder = source.key()?.folder(cache_dir);
    let pack = |name, to: &Path| {
        let spec = source.spec(name)?;
        target::pack(to, name, &spec, progress, &|target| {
            source.rows(name, target)?;
            // What it was when it was found is what the folder is called.
            match source.key()?.folder(cache_dir) == folder {
                true => Ok(()),
                false => Err(target.changed().into()),
            }
        })
    };
    import(source.splits().into_keys(), &folder, trust, &pack, progress)
}

/// Opens splits from a folder of the cache. One that is not there, or not as it should be, is made first.
fn import(
    names: impl IntoIterator<Item = SplitName>,
    folder: &Path,
    trust: Trust,
    make: &dyn Fn(SplitName, &Path) -> Result<(), DatasetError>,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<Imported, DatasetError> {
    let (mut splits, mut packed_again) = (BTreeMap::new(), BTreeMap::new());
    for name in names {
        let file = folder.join(format!("{name}.arrow"));
        let is_there = file.exists();
        let trusted = || {
            let split = read::open(&file)?;
            if trust == Trust::AfterReading {
                let rows_total = split.len();
                split.check_all(&|rows_done| progress(Progress { split: name, rows_done, rows_total }))?;
            }
            Ok(split)
        };
        let opened = match trusted() {
            Err(DatasetError::Cancelled) => Err(DatasetError::Cancelled),
            Err(found) if trust == Trust::OfOthers => {
                let missing = || format!("{} is not packed yet", file.display());
                let found = if is_there { found.to_string() } else { missing() };
                Err(DatasetError::NotPacked { found })
            }
            Err(found) => {
                let made = make(name, &file);
                if is_there && made.is_ok() {
                    packed_again.insert(name, found);
                }
                made.and_then(|()| read::open(&file))
            }
            opened => opened,
        };
        if matches!(opened, Err(DatasetError::Cancelled)) {
            return Err(DatasetError::Cancelled);
        }
        splits.insert(name, opened.map(Arc::new));
    }
    Ok(Imported { splits, packed_again })
}

/// Fails the splits whose classes differ from those of the first one that is ready.
///
/// Sizes may differ: each split is packed in its own way, and a base augmentation that crops gives
/// images of one size from any.
fn agree(root: &Path, files: &BTreeMap<SplitName, PathBuf>, splits: &mut BTreeMap<SplitName, SplitState>) {
    let Some(first) = splits.values().find_map(|state| state.as_ref().ok()).cloned() else { return };
    for (name, state) in splits {
        let Ok(split) = state else { continue };
        if split.classes() != first.classes() {
            let (found, expected) = (split.classes().len(), first.classes().len());
            let file = label(root, &files[name]);
            *state = Err(DatasetError::classes(file, found, expected));
        }
    }
}

fn find(path: &Path) -> Result<(&'static Format, Found), DatasetError> {
    let metadata = match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let reason = "no such file or folder".to_owned();
            return Err(DatasetError::Nothing { path: path.to_owned(), reason });
        }
        metadata => metadata.map_err(DatasetError::io(path, "read it"))?,
    };
    if !metadata.is_dir() {
        return find_file(path)?.ok_or_else(|| nothing(path));
    }
    for format in formats::ALL {
        if let Some(found) = (format.find)(path)? {
            return Ok((format, found));
        }
    }
    Err(nothing(path))
}

/// A single file's format: told by its first bytes; by its extension when they are damaged, so that the
/// format's own reader can say what is wrong.
fn find_file(path: &Path) -> Result<Option<(&'static Format, Found)>, DatasetError> {
    let mut beginning = [0; MAGIC_BYTES_MAX];
    let mut file = pba_files::open(path).map_err(DatasetError::io(path, "open it"))?;
    let filled = file.read(&mut beginning).map_err(DatasetError::io(path, "read it"))?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let forms = || formats::ALL.into_iter().filter_map(|format| Some((format, format.file.as_ref()?)));
    let by_magic = forms().find(|(_, file)| beginning[..filled].starts_with(file.magic));
    let form = by_magic.or_else(|| forms().find(|(_, file)| file.extension == extension));
    Ok(form.map(|(format, file)| (format, (file.open)(path))))
}

fn nothing(path: &Path) -> DatasetError {
    let mut formats = formats::ALL;
    // Those that the path itself could be come first.
    formats.sort_by_key(|format| format.file.is_none());
    let looked_for = formats.map(|format| format.looked_for).join(", ");
    let reason = format!("no dataset found; looked for {looked_for}");
    DatasetError::Nothing { path: path.to_owned(), reason }
}
