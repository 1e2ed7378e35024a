//! Files of a run, with plain words where the disk is full.

use std::io::{Error, ErrorKind};
use std::path::Path;

/// Replaces or creates a file, with a plain error message when the disk is full.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    pba_files::replace(path, bytes).map_err(plainly)
}

/// The same error, in plain words when the disk is full.
pub(crate) fn plainly(error: Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull => Error::new(error.kind(), "no space left on the disk"),
        _ => error,
    }
}
