//! Files that commands read and write.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use pba_files::Replacement;

/// As many links as the system itself follows.
const LINKS_MAX: usize = 40;

/// Longest file that a command reads: more than a server takes by default.
const BYTES_MAX: u64 = 64 << 20;

/// Reads a file of text, or what comes through a pipe.
///
/// # Errors
/// When it cannot be read, is longer than 64 MiB, or is not UTF-8 text.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text));
    read.with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(text.len() as u64 <= BYTES_MAX, "{} is longer than {BYTES_MAX} bytes", path.display());
    Ok(text)
}

/// A file that appears under its name only when it is complete; until then, the previous file stays.
pub(crate) struct OutFile {
    path: PathBuf,
    /// None for a device or a pipe, which is written to directly.
    replacement: Option<Replacement>,
    file: File,
}

impl OutFile {
    /// Begins to write at a path. A link's target is written, not the link.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub(crate) fn create(path: &Path) -> anyhow::Result<OutFile> {
        let context = || format!("cannot write {}", path.display());
        let path = target(path);
        let found = std::fs::metadata(&path).ok();
        if found.as_ref().is_some_and(|found| !found.is_file()) {
            let file = File::options().write(true).open(&path).with_context(context)?;
            return Ok(OutFile { path, replacement: None, file });
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let replacement = Replacement::begin(&path, ".tmp")
            .with_context(|| format!("cannot write to {}", folder.display()))?;
        if let Some(found) = found {
            replacement.file().set_permissions(found.permissions()).with_context(context)?;
        }
        let file = replacement.file().try_clone().with_context(context)?;
        Ok(OutFile { path, replacement: Some(replacement), file })
    }

    /// A handle to write to.
    ///
    /// # Errors
    /// When the system refuses another handle.
    pub(crate) fn writer(&self) -> anyhow::Result<File> {
        self.file.try_clone().with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// When writing to the disk fails.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        let Some(replacement) = self.replacement else { return Ok(()) };
        replacement.commit().with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Writes a file at once.
///
/// # Errors
/// When that fails; the previous file then stays.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let file = OutFile::create(path)?;
    file.writer()?.write_all(bytes).with_context(|| format!("cannot write {}", path.display()))?;
    file.finish()
}

/// Where a path leads, through links whose target need not exist.
fn target(path: &Path) -> PathBuf {
    let mut target = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(link) = std::fs::read_link(&target) else { break };
        target = target.parent().unwrap_or(Path::new("")).join(link);
    }
    target
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_are_replaced_whole_where_links_lead_and_keep_their_modes() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, far, private] =
            ["file", "link", "far", "private"].map(|name| folder.path().join(name));
        std::os::unix::fs::symlink("link", &far).unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        // At first the links lead to what is not there.
        for text in ["one", "two"] {
            write(&far, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
            assert!(far.is_symlink() && link.is_symlink() && !file.is_symlink());
        }
        std::fs::write(folder.path().join("plain"), "").unwrap();
        assert_eq!(mode(&file), mode(&folder.path().join("plain")));
        std::fs::write(&private, "").unwrap();
        std::fs::set_permissions(&private, Permissions::from_mode(0o600)).unwrap();
        write(&private, b"three").unwrap();
        assert_eq!(mode(&private), 0o600);

        let unfinished = OutFile::create(&file).unwrap();
        unfinished.writer().unwrap().write_all(b"half").unwrap();
        drop(unfinished);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
        assert!(write(folder.path(), b"").unwrap_err().to_string().contains("cannot write"));
    }
}
