//! Files that are replaced as a whole, durably.
//!
//! New content is written to a temporary file in the same folder, synced, and renamed to its place; then
//! the folder is synced. Readers find the old content or the new, never a part of it, even after a power
//! failure.
//!
//! [`replace`] is for content at hand and one writer at a time, [`Replacement`] for all else. What else is to
//! last goes the same way: [`create_folder`], [`publish_folder`] and [`remove`] have returned once it does.
//!
//! Reading waits for nothing and has a bound: [`open`] and [`read`] refuse what is no regular file. A [`Lock`] is the
//! right to write in a folder.

mod lock;
mod state;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::{NamedTempFile, TempPath};

pub use lock::Lock;
pub use state::FileState;

/// New content for a file, on its way. Dropping it leaves nothing behind, and what was there stays.
#[derive(Debug)]
pub struct Replacement {
    path: PathBuf,
    file: NamedTempFile,
}

impl Replacement {
    /// Begins new content for the file at `path`, which need not be there. Its mode is that of any new
    /// file: 0666, less the umask.
    ///
    /// The name of the temporary file is `prefix` and some random letters, so several may be on their
    /// way to one path; the last to be committed wins. A killed process leaves its own behind.
    ///
    /// # Errors
    /// When the folder is not there or cannot be written in.
    pub fn begin(path: &Path, prefix: &str) -> io::Result<Replacement> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(prefix).permissions(Permissions::from_mode(0o666));
        Ok(Replacement { path: path.to_owned(), file: builder.tempfile_in(folder_of(path))? })
    }

    /// What the content is written to.
    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Syncs the content and puts it in its place.
    ///
    /// # Errors
    /// When the disk does not take it, or the path is a folder. What was there then stays, unless only
    /// the folder could not be synced: then it is not known which of the two a power failure would leave.
    pub fn commit(self) -> io::Result<()> {
        self.file().sync_all()?;
        self.file.persist(&self.path)?;
        sync_folder_of(&self.path)
    }
}

/// Whether a disk did not take something because it is full, its user's quota is used up, or a file would be longer
/// than it may be.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// Opens a regular file to read. Whatever else has its name is refused, and at once: a FIFO would wait for its other
/// end, and a device has no end.
///
/// # Errors
/// When there is no regular file that can be opened.
pub fn open(path: &Path) -> io::Result<File> {
    open_as(OpenOptions::new().read(true), path)
}

/// The same, as `options` say.
///
/// # Errors
/// As those of [`open`].
pub fn open_as(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let kind = file.metadata()?.file_type();
    match (kind.is_file(), kind.is_dir()) {
        (true, _) => Ok(file),
        (_, true) => Err(ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

/// Reads a regular file of at most `bytes_max` bytes.
///
/// # Errors
/// As those of [`open`]; when it is longer, or cannot be read.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(file.metadata()?.len().min(bytes_max) as usize + 1)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        false => Ok(bytes),
        true => Err(io::Error::new(ErrorKind::InvalidData, format!("it is longer than {bytes_max} bytes"))),
    }
}

/// The same for a file of UTF-8 text.
///
/// # Errors
/// As those of [`read`]; when it is not such text.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read(path, bytes_max)?).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// Creates a folder where there is none, with those that it lies in, and makes their names durable. Each is so before
/// anything is created in it, so of a folder that is there only its own name may not be on disk yet: a process may
/// have been killed after creating it.
///
/// # Errors
/// When one cannot be created, as where something else has its name, or the disk does not take it.
pub fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    check_no_other(path)?;
    let parent = folder_of(path);
    create_folder(parent)?;
    make_last(parent)?;
    match fs::create_dir(path) {
        // Another process was faster.
        Err(_) if path.is_dir() => {}
        created => created?,
    }
    sync_folder_of(path)
}

/// Checks that what is at a path, if anything is, is a folder.
///
/// # Errors
/// When it is something else.
pub fn check_no_other(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(_) if !path.is_dir() => {
            let reason = format!("{} is there, and is no folder; move it away", path.display());
            Err(io::Error::new(ErrorKind::NotADirectory, reason))
        }
        // What cannot be looked at cannot be created either, and that says why.
        _ => Ok(()),
    }
}

/// Moves a folder that is complete to where it is looked for, in the same folder. Its files must be durable, as
/// [`replace`] leaves them; their names are made so here.
///
/// # Errors
/// When there is something else, or the disk does not take it. Then it is where it was.
pub fn publish_folder(from: &Path, to: &Path) -> io::Result<()> {
    sync_folder(from)?;
    fs::rename(from, to)?;
    // A disk that does not sync may still rename; if not, the folder shows after all.
    sync_folder_of(to).inspect_err(|_| drop(fs::rename(to, from)))
}

/// Removes a file for good.
///
/// # Errors
/// When there is none, or the disk does not take it.
pub fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    sync_folder_of(path)
}

/// Removes a file that was to be made and could not, for good, if it is there.
///
/// # Errors
/// When the disk does not take that either: then it may be there after a power failure.
pub fn take_back(path: &Path) -> io::Result<()> {
    match remove(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Makes the name of what is at `path` as durable as its content, and that of the folder which it lies in.
///
/// # Errors
/// When the disk does not take it.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = folder_of(path);
    sync_folder(folder)?;
    make_last(folder)
}

/// Most folders that are remembered; then all are forgotten, and synced once more.
const LASTING_MAX: usize = 1024;

/// Folders whose own names are on disk, as this process has seen to.
static LASTING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Makes a folder's own name durable, once in a process: the one that created it may have been killed before.
fn make_last(folder: &Path) -> io::Result<()> {
    // Not locked while the disk is waited for.
    let lasting = || LASTING.lock().unwrap_or_else(PoisonError::into_inner);
    if !lasting().contains(folder) {
        sync_folder(&folder.join(".."))?;
        let mut lasting = lasting();
        if lasting.len() >= LASTING_MAX {
            lasting.clear();
        }
        lasting.insert(folder.to_owned());
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.or_else(|error| match error.kind() {
        // Some file systems cannot sync a folder, and one that can be written in need not be readable.
        // PostgreSQL ignores the same (`fsync_fname_ext`).
        ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported => Ok(()),
        _ => Err(error),
    })
}

/// Replaces the content of the file at `path`, which need not be there.
///
/// There must be one writer of `path` at a time: the temporary file is always `path` with `.partial`
/// after it, so that killed processes leave no more than one behind, which the next one replaces.
///
/// # Errors
/// As those of [`Replacement::begin`] and [`Replacement::commit`].
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with(path, |mut file| file.write_all(content))
}

/// The same with content that `write` writes.
///
/// # Errors
/// As those of [`replace`], and those of `write`.
pub fn replace_with<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&File) -> Result<(), E>,
) -> Result<(), E> {
    let mut partial = path.to_owned();
    partial.as_mut_os_string().push(".partial");
    // What lies there may be a link to something else.
    if let Err(error) = fs::remove_file(&partial)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(
            io::Error::new(error.kind(), format!("cannot remove {}: {error}", partial.display())).into()
        );
    }
    let file = open_as(OpenOptions::new().write(true).create_new(true), &partial)?;
    let file = NamedTempFile::from_parts(file, TempPath::try_from_path(partial)?);
    write(file.as_file())?;
    Ok(Replacement { path: path.to_owned(), file }.commit()?)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode()
    }

    #[test]
    fn content_is_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let [file, plain] = ["file.json", "plain"].map(|name| folder.path().join(name));
        std::fs::write(&plain, "").unwrap();
        // What a killed process left is no obstacle.
        std::fs::write(folder.path().join("file.json.partial"), "a longer half").unwrap();
        for text in ["one", "two"] {
            replace(&file, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
        // A link there leads to nothing that is written.
        let linked = folder.path().join("file.json.partial");
        std::fs::hard_link(&plain, &linked).unwrap();
        replace(&file, b"three").unwrap();
        std::os::unix::fs::symlink(&plain, &linked).unwrap();
        replace(&file, b"four").unwrap();
        assert_eq!(std::fs::read_to_string(&plain).unwrap(), "");
        assert!(file.symlink_metadata().unwrap().is_file());
        let [first, second] = [(); 2].map(|()| Replacement::begin(&file, ".new-").unwrap());
        first.file().write_all(b"first").unwrap();
        second.file().write_all(b"second").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "four");
        second.commit().unwrap();
        first.commit().unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "first");
        assert_eq!(mode(&file), mode(&plain));
        assert_eq!(folder.path().read_dir().unwrap().count(), 2);
    }

    #[test]
    fn what_fails_or_is_given_up_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        replace(&file, b"old").unwrap();
        let given_up = Replacement::begin(&file, ".new-").unwrap();
        given_up.file().write_all(b"new").unwrap();
        drop(given_up);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
        let cut_short = replace_with(&file, |mut file| {
            file.write_all(b"ne")?;
            Err(io::Error::from(ErrorKind::StorageFull))
        });
        assert_eq!(cut_short.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
        let inner = folder.path().join("folder");
        std::fs::create_dir(&inner).unwrap();
        assert!(replace(&inner, b"").is_err());
        assert!(replace(&folder.path().join("missing/file"), b"").is_err());
        assert_eq!(folder.path().read_dir().unwrap().count(), 2);
    }

    #[test]
    fn only_regular_files_of_a_length_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let [file, fifo, socket] = ["file", "fifo", "socket"].map(|name| folder.path().join(name));
        replace(&file, b"text").unwrap();
        assert_eq!(read_text(&file, 4).unwrap(), "text");
        assert!(read(&file, 3).unwrap_err().to_string().contains("longer than 3 bytes"));
        replace(&file, b"\xff").unwrap();
        assert_eq!(read(&file, 1).unwrap(), b"\xff");
        assert_eq!(read_text(&file, 1).unwrap_err().kind(), ErrorKind::InvalidData);
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let _listens = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for other in [&fifo, &socket, Path::new("/dev/zero"), folder.path()] {
            assert!(read(other, 1).is_err(), "{}", other.display());
            assert!(open_as(OpenOptions::new().write(true), other).is_err(), "{}", other.display());
        }
        // One that has its other end is refused as well.
        let _holds = OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        assert!(open_as(OpenOptions::new().write(true), &fifo).is_err());
        assert_eq!(read(&folder.path().join("none"), 1).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn folders_are_created_published_and_files_removed() {
        let folder = tempfile::tempdir().unwrap();
        let [begun, there] = ["one/two/.begun", "one/two/there"].map(|name| folder.path().join(name));
        create_folder(&begun).unwrap();
        create_folder(&begun).unwrap();
        replace(&begun.join("file"), b"content").unwrap();
        publish_folder(&begun, &there).unwrap();
        assert_eq!(std::fs::read_to_string(there.join("file")).unwrap(), "content");
        create_folder(&begun).unwrap();
        assert!(publish_folder(&begun, &there).is_err(), "what is there stays");
        assert!(begun.exists() && there.join("file").exists());
        remove(&there.join("file")).unwrap();
        assert_eq!(remove(&there.join("file")).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(create_folder(Path::new("/proc/nothing")).is_err());
        let file = folder.path().join("one/file");
        replace(&file, b"").unwrap();
        let error = create_folder(&file.join("inner")).unwrap_err().to_string();
        assert_eq!(error, format!("{} is there, and is no folder; move it away", file.display()));
    }

    #[test]
    fn a_process_that_makes_many_folders_remembers_some() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..LASTING_MAX + 10 {
            let inner = folder.path().join(number.to_string());
            std::fs::create_dir(&inner).unwrap();
            make_last(&inner).unwrap();
            assert!(LASTING.lock().unwrap().len() <= LASTING_MAX);
        }
    }
}
