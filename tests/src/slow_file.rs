//! A file that takes as long to open as a test wants.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::Mode;
use tempfile::TempDir;

use crate::wait_for;

/// What has a process wait; see there.
const SHIM: &str = include_str!("slow_file.c");

/// An empty file. A process that is slowed down waits where it opens it, until the test ends that.
pub struct SlowFile {
    folder: TempDir,
    /// Both ends of the pipe from which each wait reads a byte to go on.
    pipe: File,
    /// Waits that were ended.
    ended: AtomicU64,
}

impl SlowFile {
    /// Makes one.
    ///
    /// # Panics
    /// When what has processes wait cannot be compiled.
    pub fn create() -> SlowFile {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let of = |name: &str| folder.path().join(name);
        for (name, text) in [("file", ""), ("waits", ""), ("slow_file.c", SHIM)] {
            std::fs::write(of(name), text).expect("a file can be written");
        }
        rustix::fs::mkfifoat(rustix::fs::CWD, of("pipe"), Mode::RUSR | Mode::WUSR)
            .expect("a pipe can be made");
        let pipe = File::options().read(true).write(true).open(of("pipe")).expect("the pipe is there");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(of("slow_file.so")).arg(of("slow_file.c")).arg("-ldl");
        let made = cc.output().expect("there is a compiler");
        assert!(made.status.success(), "cc: {}", String::from_utf8_lossy(&made.stderr));
        SlowFile { folder, pipe, ended: AtomicU64::new(0) }
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
        let of = |name: &str| self.folder.path().join(name);
        command.env("LD_PRELOAD", of("slow_file.so")).env("SLOW_FILE", file);
        command.env("SLOW_PIPE", of("pipe")).env("SLOW_WAITS", of("waits"));
    }

    /// Waits until a process has come to where it waits for the file, and leaves it there.
    ///
    /// # Panics
    /// When none does.
    pub fn wait(&self) {
        wait_for("a process that waits for the file", || {
            let begun = std::fs::metadata(self.folder.path().join("waits")).ok()?.len();
            (begun > self.ended.load(Ordering::SeqCst)).then_some(())
        });
    }

    /// Lets the process that waits go on, until it opens the file again.
    ///
    /// # Panics
    /// When none waits.
    pub fn end(&self) {
        self.wait();
        self.ended.fetch_add(1, Ordering::SeqCst);
        (&self.pipe).write_all(&[0]).expect("the pipe has room");
    }

    /// Lets all processes go on that wait or will.
    ///
    /// # Panics
    /// When the pipe is gone.
    pub fn end_all(&self) {
        (&self.pipe).write_all(&[0; 1000]).expect("the pipe has room");
    }
}
