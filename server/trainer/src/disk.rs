//! Files of a run, with plain words where the disk is full, and what else fails for that.

use std::io::{Error, ErrorKind};
use std::path::Path;

use pba_datasets::{DatasetError, Fault};
use pba_search::protocol::exit;

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

/// How the trainer ends because of an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    let of_cause = |cause: &(dyn std::error::Error + 'static)| {
        if let Some(error) = cause.downcast_ref::<DatasetError>() {
            return match error.fault() {
                None => Some(exit::BROKEN_DATASET),
                Some(Fault::DiskFull) => Some(exit::DISK_FULL),
                Some(_) => None,
            };
        }
        cause.downcast_ref::<Error>().is_some_and(pba_files::is_full).then_some(exit::DISK_FULL)
    };
    error.chain().find_map(of_cause).unwrap_or(exit::FAILED)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_faults_through_all_that_is_said_of_it() {
        let full = || plainly(Error::from(ErrorKind::StorageFull));
        let told = Err::<(), _>(full()).context("cannot write the journal").unwrap_err();
        assert_eq!(exit_code(&told), exit::DISK_FULL);
        assert_eq!(exit_code(&Error::from(ErrorKind::NotFound).into()), exit::FAILED);
    }
}
