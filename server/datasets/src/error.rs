//! Errors in a dataset, with their file, row and value.

use std::fmt::Display;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Why a dataset, or one split of it, cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The import was told to stop.
    #[error("the import was cancelled")]
    Cancelled,
    /// A split that is not packed, or not as it should be, where this process may pack nothing.
    #[error(
        "{found}; the writer of the data directory has to pack it, and tells in /v1/datasets how far it is"
    )]
    NotPacked {
        /// What was found, with the packed file.
        found: String,
    },
    /// A split that is not packed, which this process is about to pack.
    #[error("it is still being imported")]
    BeingPacked,
    /// The operating system refused: permission, disk full, and the like.
    #[error("{}: cannot {action}: {reason}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// The action that failed, as an infinitive.
        action: &'static str,
        /// The operating system's message.
        reason: String,
        /// Whose fault it is.
        fault: Fault,
    },
    /// A packed file that is not what was written, or can no longer be read.
    #[error("{}{}: damaged: {reason}", file.display(), place(*batch, rows))]
    Damaged {
        /// The packed file.
        file: PathBuf,
        /// The record batch, counted from 0; none when all of them are affected.
        batch: Option<usize>,
        /// Its rows, counted within the split.
        rows: Range<u64>,
        /// How that shows.
        reason: String,
    },
    /// A packed file that is being written to, whose samples were read in vain several times.
    #[error("the packed file {} changes all the time; nothing may write to it", file.display())]
    Changing {
        /// The packed file.
        file: PathBuf,
    },
    /// There is no dataset at a path yet, as where a disk is still to be mounted.
    #[error("{}: {reason}", path.display())]
    Nothing {
        /// The path of the dataset.
        path: PathBuf,
        /// What was looked for.
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

/// Whose fault it is that the operating system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The disk is full, or the quota of its user used up.
    DiskFull,
    /// The machine's: a disk that fails, or a lack of memory or descriptors.
    Machine,
    /// That of the user who named the file: it is not there, may not be read, and the like.
    Path,
}

impl Fault {
    fn of(error: &io::Error) -> Fault {
        if pba_files::is_full(error) {
            return Fault::DiskFull;
        }
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::IO | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::ROFS | Errno::NODEV) => {
                Fault::Machine
            }
            _ => Fault::Path,
        }
    }
}

/// ", record batch 3, samples 20..=29", for messages.
fn place(batch: Option<usize>, rows: &Range<u64>) -> String {
    match (batch, rows.end.saturating_sub(1)) {
        (None, _) => String::new(),
        (Some(batch), last) if last == rows.start => format!(", record batch {batch}, sample {last}"),
        (Some(batch), last) => format!(", record batch {batch}, samples {}..={last}", rows.start),
    }
}

impl DatasetError {
    pub(crate) fn io<'a>(file: &'a Path, action: &'static str) -> impl Fn(io::Error) -> DatasetError + 'a {
        move |error| DatasetError::Io {
            file: file.to_owned(),
            action,
            reason: error.to_string(),
            fault: Fault::of(&error),
        }
    }

    /// Whose fault it is, if the operating system refused.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            DatasetError::Io { fault, .. } => Some(*fault),
            _ => None,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_the_fault_of_the_disk_only() {
        let fault = |errno: Errno| {
            let error = DatasetError::io(Path::new("a"), "write")(errno.into());
            error.fault().unwrap()
        };
        assert_eq!([Errno::NOSPC, Errno::DQUOT, Errno::FBIG].map(fault), [Fault::DiskFull; 3]);
        assert_eq!([Errno::IO, Errno::MFILE].map(fault), [Fault::Machine; 2]);
        assert_eq!([Errno::NOENT, Errno::ACCESS].map(fault), [Fault::Path; 2]);
        assert_eq!(DatasetError::Cancelled.fault(), None);
    }
}
