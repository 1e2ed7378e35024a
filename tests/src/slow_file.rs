//! A file that takes as long to open as a test wants.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

use crate::wait_for;

/// What has a process wait; see there.
const SHIM: &str = include_str!("slow_file.c");

/// An empty file. A process that is slowed down waits where it opens it, until the test ends that.
pub struct SlowFile {
    folder: TempDir,
}

impl SlowFile {
    /// Makes one.
    ///
    /// # Panics
    /// When what has processes wait cannot be compiled.
    pub fn create() -> SlowFile {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let of = |name: &str| folder.path().join(name);
        std::fs::write(of("file"), "").expect("a file can be written");
        std::fs::write(of("slow_file.c"), SHIM).expect("a file can be written");
        rustix::fs::mkfifoat(rustix::fs::CWD, of("pipe"), Mode::RUSR | Mode::WUSR)
            .expect("a pipe can be made");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(of("slow_file.so")).arg(of("slow_file.c")).arg("-ldl");
        let made = cc.output().expect("there is a compiler");
        assert!(made.status.success(), "cc: {}", String::from_utf8_lossy(&made.stderr));
        SlowFile { folder }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("file")
    }

    /// Has a command wait for it.
    pub fn slow_down(&self, command: &mut Command) {
        self.slow_down_at(command, &self.path());
    }

    /// The same for another file.
    pub fn slow_down_at(&self, command: &mut Command, file: &Path) {
        command.env("LD_PRELOAD", self.folder.path().join("slow_file.so"));
        command.env("SLOW_FILE", file).env("SLOW_PIPE", self.folder.path().join("pipe"));
    }

    /// Lets the process that waits go on.
    ///
    /// # Panics
    /// When none waits.
    pub fn end(&self) {
        wait_for("a process that waits for the file", || {
            let flags = OFlags::WRONLY | OFlags::NONBLOCK;
            rustix::fs::open(self.folder.path().join("pipe"), flags, Mode::empty()).ok()
        });
    }

    /// Lets all processes go on, as long as what it gives is held.
    ///
    /// # Panics
    /// When the pipe is gone.
    pub fn end_all(&self) -> File {
        let pipe = self.folder.path().join("pipe");
        File::options().read(true).write(true).open(pipe).expect("the pipe is there")
    }
}
