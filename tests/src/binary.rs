//! The `pba` binary as a command that ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The binary under test: `PBA_BIN`, or else `pba` of the profile that the tests are built with.
///
/// # Panics
/// When it is not there.
pub fn path() -> PathBuf {
    if let Some(path) = std::env::var_os("PBA_BIN") {
        let path = PathBuf::from(path);
        return std::path::absolute(path).expect("the current directory is known");
    }
    let path = profile_folder().join("pba");
    assert!(
        path.exists(),
        "{} is missing: `make test` builds it before it runs the tests; so does `cargo build -p pba-server`",
        path.display()
    );
    path
}

/// `target/<profile>`: a test runs from `target/<profile>/deps`, a binary from there.
pub(crate) fn profile_folder() -> PathBuf {
    let executable = std::env::current_exe().expect("a test knows where it is");
    let folder = executable.parent().expect("a program lies in a folder");
    let folder = if folder.ends_with("deps") { folder.parent().expect("it lies in target") } else { folder };
    folder.to_owned()
}

/// Where tests keep what outlives them: beside what cargo builds.
pub(crate) fn kept_folder() -> PathBuf {
    let folder = profile_folder().join("pba-tests");
    std::fs::create_dir_all(&folder).expect("target can be written to");
    folder
}

/// `pba` with arguments, in a directory, shielded from this shell's configuration. Its trainers save the members
/// after each epoch, as theirs take a moment only, and its servers have no load balancer to wait for.
pub fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(path());
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("PBA_") || name == "RUST_LOG" || name.to_lowercase().ends_with("_proxy") {
            command.env_remove(&*name);
        }
    }
    command.env("PBA_SAVE_SECONDS", "0").env("PBA_DRAIN_DELAY_SECONDS", "0");
    command
}

/// A command that minds SIGINT, as one that is started from a terminal does. A shell has what it starts in
/// the background ignore it, whole test runs included.
pub fn interruptible(command: &Command) -> Command {
    const RUN: &str = "import os, signal, sys\n\
        signal.signal(signal.SIGINT, signal.SIG_DFL)\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    let venv = crate::repository(".venv/bin/python");
    let mut whole = Command::new(if venv.exists() { venv } else { "python3".into() });
    whole.args(["-c", RUN]).arg(command.get_program()).args(command.get_args());
    take_surroundings(&mut whole, command);
    whole
}

/// Gives a command the directory and the environment of another.
pub(crate) fn take_surroundings(command: &mut Command, other: &Command) {
    if let Some(directory) = other.get_current_dir() {
        command.current_dir(directory);
    }
    for (name, value) in other.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Pba {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
}

impl From<Output> for Pba {
    fn from(output: Output) -> Pba {
        Pba {
            stdout: String::from_utf8(output.stdout).expect("standard output is text"),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }
}

impl Pba {
    /// Standard output of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Standard output of a command that must have succeeded, as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON: {error}: {text}"))
    }

    /// Checks that the command was refused with a code, saying why on standard error only.
    #[track_caller]
    pub fn refused(self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "errors belong on standard error");
        for says in says {
            assert!(self.stderr.contains(says), "{:?} does not say {says:?}", self.stderr);
        }
    }
}

/// Runs `pba` to its end, in an empty directory of its own.
pub fn pba(arguments: &[&str]) -> Pba {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    pba_in(directory.path(), arguments)
}

/// Runs `pba` to its end in a directory.
pub fn pba_in(directory: &Path, arguments: &[&str]) -> Pba {
    command(directory, arguments).output().expect("pba starts").into()
}
