//! Errors in a dataset, with their file, row and value.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// Why a dataset, or one split of it, cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The import was told to stop.
    #[error("the import was cancelled")]
    Cancelled,
    /// The operating system refused: permission, disk full, and the like.
    #[error("{}: cannot {action}: {reason}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// The action that failed, as an infinitive.
        action: &'static str,
        /// The operating system's message.
        reason: String,
    },
    /// What is there, or is missing, is no dataset that can be read.
    #[error("{place}: {reason}")]
    Unreadable {
        /// The file or folder, relative to its dataset; and the row, counted from 0 within its file.
        place: String,
        /// What is wrong, with the offending value.
        reason: String,
    },
    /// A description that a packed file cannot have.
    #[error("cannot pack {what}; allowed are {allowed}")]
    Pack {
        /// The offending property and its value.
        what: String,
        /// The allowed values.
        allowed: String,
    },
}

impl DatasetError {
    pub(crate) fn io<'a>(file: &'a Path, action: &'static str) -> impl Fn(io::Error) -> DatasetError + 'a {
        move |error| DatasetError::Io { file: file.to_owned(), action, reason: error.to_string() }
    }

    pub(crate) fn unreadable(place: impl Display, reason: impl Display) -> DatasetError {
        DatasetError::Unreadable { place: place.to_string(), reason: reason.to_string() }
    }

    /// A label without a class.
    pub(crate) fn label(file: &str, row: u64, value: impl Display, allowed: impl Display) -> DatasetError {
        let reason = format!("label {value} is not allowed; allowed are {allowed}");
        DatasetError::unreadable(format_args!("{file}, row {row}"), reason)
    }

    /// A set of shards with a gap.
    pub(crate) fn missing_shard(file: String, shards: u64) -> DatasetError {
        DatasetError::unreadable(file, format_args!("this shard is missing; the dataset has {shards}"))
    }

    /// A split that has, or whose file names, other classes than it should.
    pub(crate) fn classes(file: String, found: usize, expected: usize) -> DatasetError {
        let reason =
            format_args!("has {found} classes, but the other splits have {expected}, or different ones");
        DatasetError::unreadable(file, reason)
    }
}
