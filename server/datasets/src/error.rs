//! What can be wrong with a dataset, named with its file, row and value.

use std::io;
use std::path::{Path, PathBuf};

/// Why a dataset, or one split of it, cannot be served.
///
/// Rows are counted from 0 within the file that is named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The path leads nowhere.
    #[error("{}: no such file or folder", path.display())]
    NotFound {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The path holds nothing in a format that is read.
    #[error("{}: no dataset found; looked for {looked_for}", path.display())]
    NothingReadable {
        /// The path as it was given.
        path: PathBuf,
        /// Formats and names that would have been read.
        looked_for: String,
    },
    /// The operating system refused: permission, disk full, and the like.
    #[error("{}: cannot {action}: {reason}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What could not be done, an infinitive.
        action: &'static str,
        /// The operating system's words.
        reason: String,
    },
    /// A Parquet file that is cut off or damaged.
    #[error("{file}: not a readable Parquet file: {reason}")]
    Parquet {
        /// The file, relative to the dataset.
        file: String,
        /// What the Parquet reader says.
        reason: String,
    },
    /// A set of shards with a gap.
    #[error("{file}: this shard is missing; the dataset has {shards}")]
    MissingShard {
        /// The absent file, relative to the dataset.
        file: String,
        /// How many shards the other names promise.
        shards: u64,
    },
    /// A table without a column that is needed.
    #[error("{file}: no {wanted}; its columns are {columns}")]
    NoColumn {
        /// The file, relative to the dataset.
        file: String,
        /// What was looked for.
        wanted: &'static str,
        /// Names and types of the columns there are.
        columns: String,
    },
    /// A table with several columns that would do, none with a name that decides.
    #[error("{file}: several columns could be the {wanted}: {candidates}; name one {prefer:?}")]
    AmbiguousColumn {
        /// The file, relative to the dataset.
        file: String,
        /// What was looked for.
        wanted: &'static str,
        /// The columns that would do.
        candidates: String,
        /// A name that would decide.
        prefer: &'static str,
    },
    /// An image that does not decode.
    #[error("{file}{}: {reason}{}", row_note(*row), count_note(*bad, *rows))]
    Image {
        /// The file of the first bad image, relative to the dataset.
        file: String,
        /// Its row, if the file holds many.
        row: Option<u64>,
        /// What is wrong with it.
        reason: String,
        /// How many rows of the split are bad.
        bad: u64,
        /// How many rows the split has.
        rows: u64,
    },
    /// A label that names no class.
    #[error("{file}, row {row}: label {value} is not allowed; allowed are {allowed}")]
    Label {
        /// The file, relative to the dataset.
        file: String,
        /// The row.
        row: u64,
        /// The offending value.
        value: String,
        /// What would have been accepted.
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
    /// A file or folder that is not as its format has it.
    #[error("{file}: {reason}")]
    Malformed {
        /// The file or folder, relative to the dataset.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A split without a row.
    #[error("{file}: no rows")]
    Empty {
        /// The file, relative to the dataset.
        file: String,
    },
    /// A file of fixed-size records that does not end with a whole record.
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
    /// A packed file that is cut off, damaged, or written by something else.
    #[error("{}: not a packed split: {reason}", file.display())]
    Packed {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A description that a packed file cannot have.
    #[error("cannot pack {what} {value}; allowed are {allowed}")]
    Pack {
        /// The offending property.
        what: &'static str,
        /// Its value.
        value: String,
        /// What would have been accepted.
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
