//! Packed files of others, copied into the cache: only files that no other process writes to are mapped.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use pba_types::SplitName;

use crate::decode::image::{Image, decode};
use crate::error::DatasetError;
use crate::packed::read;
use crate::packed::spec::PackSpec;
use crate::packed::split::Split;
use crate::packed::target::Progress;
use crate::packed::write::{self, Measured, Packer};

/// Bytes that are copied before the next question whether to go on.
const STEP_BYTES: u64 = 64 << 20;

/// Copies the packed file `from` to `to`, where it appears when all of it was compared with its checksums and its digest. On a
/// file system that can, the two share their blocks until one is written to, so that the copy costs nothing.
///
/// A file of an earlier version is compared with its digest, and packed again with checksums.
///
/// `progress` is told before the first row and after every few; its [`ControlFlow::Break`] cancels.
///
/// # Errors
/// When `from` cannot be read, is no packed split or is damaged; when `to` cannot be written; and
/// [`DatasetError::Cancelled`].
pub(crate) fn copy(
    from: &Path,
    to: &Path,
    split: SplitName,
    progress: &dyn Fn(Progress) -> ControlFlow<()>,
) -> Result<(), DatasetError> {
    let source = pba_files::open(from).map_err(DatasetError::io(from, "open it"))?;
    let folder = to.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).map_err(DatasetError::io(folder, "create the folder"))?;
    let write_error = DatasetError::io(to, "write");
    let replacement = write::begin(to).map_err(&write_error)?;
    let told = |rows_done, rows_total| match progress(Progress { split, rows_done, rows_total }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(DatasetError::Cancelled),
    };
    // How many rows there are is known when the copy is there.
    told(0, 1)?;
    if rustix::fs::ioctl_ficlone(replacement.file(), &source).is_err() {
        loop {
            let copied = io::copy(&mut io::Read::take(&source, STEP_BYTES), &mut replacement.file());
            if copied.map_err(&write_error)? == 0 {
                break;
            }
            told(0, 1)?;
        }
    }
    let file = replacement.file().try_clone().map_err(&write_error)?;
    let copied = read::open_file(file, from)?;
    told(0, copied.len())?;
    // It is read twice: a file of others may have the right checksums, and not be what its digest says.
    let told = |rows| progress(Progress { split, rows_done: rows / 2, rows_total: copied.len() });
    if copied.head.place.is_none() {
        return pack_again(&copied, from, to, &told);
    }
    copied.check_all(&told)?;
    copied.check_digest(&|rows| told(copied.len() + rows))?;
    read::put_place(&copied, to).map_err(&write_error)?;
    replacement.commit().map_err(&write_error)
}

/// Packs the rows of a file of an earlier version once more, which is read twice as well.
fn pack_again(
    old: &Split,
    from: &Path,
    to: &Path,
    told: &dyn Fn(u64) -> ControlFlow<()>,
) -> Result<(), DatasetError> {
    old.check_digest(told)?;
    let source = format!("a packed file of an earlier version, {}", from.display());
    let spec = PackSpec { classes: old.classes().to_vec(), rows: old.len(), source };
    let mut packer = Packer::create(to, old.shape(), spec)?;
    // Mean and standard deviation are in no digest, and a file of an earlier version has no checksums.
    for row in 0..old.len() {
        let (stored, size) = (old.stored(row), old.size(row));
        let measured = match old.shape() {
            Some(shape) => Measured::of(shape, stored),
            None => {
                let Image { shape, pixels } = decode(stored).map_err(|error| {
                    DatasetError::unreadable(from.display(), format_args!("row {row}: {error}"))
                })?;
                if shape != size {
                    let reason = format!("row {row}: its image is not of the size that it says");
                    return Err(DatasetError::unreadable(from.display(), reason));
                }
                Measured::of(shape, &pixels)
            }
        };
        packer.push(stored, &measured, old.label(row))?;
        if row % 1024 == 0 && told(old.len() + row).is_break() {
            return Err(DatasetError::Cancelled);
        }
    }
    if old.is_unreadable() {
        return Err(DatasetError::unreadable(from.display(), "a part of it could not be read"));
    }
    packer.finish()
}
