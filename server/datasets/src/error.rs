//! Errors in a dataset, with their file, row and value.

use std::io;
use std::path::{Path, PathBuf};

/// Why a dataset, or one split of it, cannot be served.
///
/// Rows are counted from 0 within the file that is named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The path does not exist.
    #[error("{}: no such file or folder", path.display())]
    NotFound {
        /// The path as it was given.
        path: PathBuf,
    },
    /// Nothing at the path is in a supported format.
    #[error("{}: no dataset found; looked for {looked_for}", path.display())]
    NothingReadable {
        /// The path as it was given.
        path: PathBuf,
        /// The supported formats and names.
        looked_for: String,
    },
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
    /// A Parquet file that is truncated or damaged.
    #[error("{file}: not a readable Parquet file: {reason}")]
    Parquet {
        /// The file, relative to the dataset.
        file: String,
        /// The Parquet reader's message.
        reason: String,
    },
    /// A set of shards with a gap.
    #[error("{file}: this shard is missing; the dataset has {shards}")]
    MissingShard {
        /// The absent file, relative to the dataset.
        file: String,
        /// The number of shards according to the other names.
        shards: u64,
    },
    /// A table without a column that is needed.
    #[error("{file}: no {wanted}; its columns are {columns}")]
    NoColumn {
        /// The file, relative to the dataset.
        file: String,
        /// The column that was looked for.
        wanted: &'static str,
        /// Names and types of the existing columns.
        columns: String,
    },
    /// A table with several candidate columns, none with a name that decides.
    #[error("{file}: several columns could be the {wanted}: {candidates}; name one {prefer:?}")]
    AmbiguousColumn {
        /// The file, relative to the dataset.
        file: String,
        /// The column that was looked for.
        wanted: &'static str,
        /// The candidate columns.
        candidates: String,
        /// A name that would decide.
        prefer: &'static str,
    },
    /// An image that cannot be decoded.
    #[error("{file}{}: {reason}{}", row_note(*row), count_note(*bad, *rows))]
    Image {
        /// The file of the first bad image, relative to the dataset.
        file: String,
        /// Its row, if the file holds many.
        row: Option<u64>,
        /// The reason.
        reason: String,
        /// How many rows of the split are bad.
        bad: u64,
        /// How many rows the split has.
        rows: u64,
    },
    /// A label without a class.
    #[error("{file}, row {row}: label {value} is not allowed; allowed are {allowed}")]
    Label {
        /// The file, relative to the dataset.
        file: String,
        /// The row.
        row: u64,
        /// The offending value.
        value: String,
        /// The allowed values.
        allowed: String,
    },
    /// Splits that do not agree about the classes.
    #[error("{file}: has {found} classes, but the other splits have {expected}, or different ones")]
    Classes {
        /// The file, relative to the dataset.
        file: String,
        /// Classes named here.
        found: usize,
        /// Classes named elsewhere.
        expected: usize,
    },
    /// A file or folder that violates its format.
    #[error("{file}: {reason}")]
    Malformed {
        /// The file or folder, relative to the dataset.
        file: String,
        /// The reason.
        reason: String,
    },
    /// A split without rows.
    #[error("{file}: no rows")]
    Empty {
        /// The file, relative to the dataset.
        file: String,
    },
    /// A file of fixed-size records that does not end with a complete record.
    #[error("{file}: {found} bytes; expected a multiple of {record}, as in {format}")]
    FileSize {
        /// The file, relative to the dataset.
        file: String,
        /// Its length in bytes.
        found: u64,
        /// Length of a record in bytes.
        record: u64,
        /// The format it was taken for.
        format: &'static str,
    },
    /// A source that no longer has the rows that were found in it at first.
    #[error("{split}: it changed while it was being read")]
    Changed {
        /// The split, in words.
        split: String,
    },
    /// The import was told to stop.
    #[error("the import was cancelled")]
    Cancelled,
    /// A packed file that is truncated, damaged, or written by another program.
    #[error("{}: not a packed split: {reason}", file.display())]
    Packed {
        /// The file.
        file: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A description that a packed file cannot have.
    #[error("cannot pack {what} {value}; allowed are {allowed}")]
    Pack {
        /// The offending property.
        what: &'static str,
        /// Its value.
        value: String,
        /// The allowed values.
        allowed: String,
    },
}

impl DatasetError {
    pub(crate) fn io<'a>(file: &'a Path, action: &'static str) -> impl Fn(io::Error) -> DatasetError + 'a {
        move |error| DatasetError::Io { file: file.to_owned(), action, reason: error.to_string() }
    }
}

fn row_note(row: Option<u64>) -> String {
    row.map(|row| format!(", row {row}")).unwrap_or_default()
}

fn count_note(bad: u64, rows: u64) -> String {
    if bad > 1 { format!(" (the first of {bad} bad images among {rows})") } else { String::new() }
}
