//! Files of a run, with plain words where the disk is full, and what else fails for that.

use std::io::{Error, ErrorKind};
use std::path::Path;

use pba_datasets::{DatasetError, Fault};

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

/// Whether something failed because a disk is full.
pub(crate) fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let kind = cause.downcast_ref::<Error>().map(Error::kind);
        let fault = cause.downcast_ref::<DatasetError>().and_then(DatasetError::fault);
        matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
            || fault == Some(Fault::DiskFull)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_faults_through_all_that_is_said_of_it() {
        let full = || plainly(Error::from(ErrorKind::StorageFull));
        assert!(is_full(&Err::<(), _>(full()).context("cannot write the journal").unwrap_err()));
        assert!(!is_full(&Error::from(ErrorKind::NotFound).into()));
    }
}
