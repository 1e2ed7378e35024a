//! What tells one state of a file from another.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

/// What tells one state of a file from another: its length, and the times of its last change, to the nanosecond. One
/// of these times no program can set, so an edit that keeps the length and puts the time back is noticed, and so is
/// another file in its place.
///
/// Not noticed is an edit within the same tick of the clock that files are stamped with, some milliseconds, as
/// the change before it; nor one on a file system that keeps no times; nor what another program writes through a map,
/// or a disk or memory loses. Nor is it told where a file lies: the numbers of devices and, on mounts of remote
/// stores, of files differ after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    /// Its length.
    pub bytes: u64,
    /// Nanoseconds since 1970.
    modified: i64,
    /// Of content or of what the file is called, by whom it may be read, and the like.
    changed: i64,
}

impl FileState {
    /// The state that was found of a file.
    pub fn of(found: &Metadata) -> FileState {
        FileState {
            bytes: found.len(),
            modified: nanoseconds(found.mtime(), found.mtime_nsec()),
            changed: nanoseconds(found.ctime(), found.ctime_nsec()),
        }
    }

    /// When the content was last changed, in nanoseconds since 1970.
    pub fn modified_nanoseconds(&self) -> i64 {
        self.modified
    }

    /// The state of an open file.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn of_open(file: &File) -> io::Result<FileState> {
        // Half of what `File::metadata` costs, which asks for the time of creation, too.
        let found = rustix::fs::fstat(file)?;
        Ok(FileState {
            bytes: found.st_size as u64,
            modified: nanoseconds(found.st_mtime, found.st_mtime_nsec as i64),
            changed: nanoseconds(found.st_ctime, found.st_ctime_nsec as i64),
        })
    }
}

/// The years 1678 to 2262 have a number; that of a time beyond them is one of these, which is as good.
fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_edit_that_puts_length_and_time_back_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "one").unwrap();
        let state = || FileState::of(&path.metadata().unwrap());
        let (before, modified) = (state(), path.metadata().unwrap().modified().unwrap());
        assert_eq!(state(), before);
        assert_eq!(FileState::of_open(&File::open(&path).unwrap()).unwrap(), before);
        // Longer than a tick of the clock.
        std::thread::sleep(Duration::from_millis(50));
        let mut file = File::options().write(true).open(&path).unwrap();
        file.write_all(b"two").unwrap();
        file.set_modified(modified).unwrap();
        assert_eq!((state().bytes, state().modified), (before.bytes, before.modified));
        assert_ne!(state(), before);
        // As does another file in its place.
        let (before, other) = (state(), folder.path().join("b"));
        std::fs::copy(&path, &other).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(state(), before);
    }
}
