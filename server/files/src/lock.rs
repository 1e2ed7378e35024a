//! The right to write in a folder, which one process has at a time.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A folder that is locked until this is dropped, or the process ends.
///
/// Both the folder and a file in it are locked. The folder cannot be removed while there is anything in it, but older
/// versions of this program, and file systems that lock no folders, know the file only.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    locked: File,
    /// The file, if `locked` is the folder.
    _file: Option<File>,
}

impl Lock {
    /// Locks a folder if it is not locked yet, with the file of this name in it; else there is none.
    ///
    /// # Errors
    /// When the file cannot be created, or not be locked on this file system.
    pub fn take(folder: &Path, name: &str) -> io::Result<Option<Lock>> {
        let path = folder.join(name);
        let file = crate::open_as(OpenOptions::new().write(true).create(true), &path)?;
        if !is_locked(&file)? {
            return Ok(None);
        }
        let locked = File::open(folder)?;
        Ok(match is_locked(&locked) {
            Ok(true) => Some(Lock { path: folder.to_owned(), locked, _file: Some(file) }),
            Ok(false) => None,
            // As on NFS, where what is locked must be open for writing.
            Err(_) => Some(Lock { path, locked: file, _file: None }),
        })
    }

    /// What is locked: the folder, or the file in it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether what is locked is still at its path. If not, others may have locked what is there now.
    ///
    /// # Errors
    /// When there is nothing, or it cannot be looked at.
    pub fn is_in_place(&self) -> io::Result<bool> {
        let id = |found: Metadata| (found.dev(), found.ino());
        Ok(id(self.path.metadata()?) == id(self.locked.metadata()?))
    }
}

fn is_locked(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_first_has_it_whatever_becomes_of_the_file() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let take = || Lock::take(&folder, "lock").unwrap();
        let first = take().expect("it is free");
        assert!(take().is_none());
        fs::remove_file(folder.join("lock")).unwrap();
        assert!(take().is_none(), "a file that was removed lets no other in");
        assert!(first.is_in_place().unwrap());
        drop(first);
        // As older versions do.
        let older = File::create(folder.join("lock")).unwrap();
        older.lock().unwrap();
        assert!(take().is_none());
        drop(older);
        let second = take().expect("it is free again");
        let elsewhere = outer.path().join("elsewhere");
        fs::rename(&folder, &elsewhere).unwrap();
        assert!(second.is_in_place().is_err());
        fs::create_dir(&folder).unwrap();
        assert!(!second.is_in_place().unwrap());
        assert!(take().is_some());
        fs::remove_dir_all(&folder).unwrap();
        fs::rename(&elsewhere, &folder).unwrap();
        assert!(second.is_in_place().unwrap());
        let made = std::process::Command::new("mkfifo").arg(folder.join("fifo")).status().unwrap();
        assert!(made.success());
        assert!(Lock::take(&folder, "fifo").is_err());
    }
}
