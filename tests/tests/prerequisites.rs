//! `deploy/prerequisites.sh`: a machine that lacks something is told what, and how to get it, at once.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use pba_tests::repository;

/// What the script itself runs.
const TOOLS: [&str; 9] = ["sh", "cut", "dirname", "getconf", "head", "id", "sed", "sort", "uname"];

fn link(folder: &Path, tool: &str) {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|path| path.join(tool)).find(|path| path.exists());
    symlink(found.unwrap_or_else(|| panic!("no {tool} here")), folder.join(tool)).unwrap();
}

fn script(folder: &Path, name: &str, lines: &str) {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs the script on a machine that has these tools and those that `more` adds.
fn on_a_machine(what: &str, more: impl Fn(&Path)) -> Output {
    let folder = tempfile::tempdir().unwrap();
    TOOLS.iter().for_each(|tool| link(folder.path(), tool));
    more(folder.path());
    let script = repository("deploy/prerequisites.sh");
    Command::new("/bin/sh").arg(script).arg(what).env("PATH", folder.path()).output().unwrap()
}

#[track_caller]
fn lacks(output: &Output, says: &[&str], says_not: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for says in says {
        assert!(text.contains(says), "{text:?} does not say {says:?}");
    }
    for says_not in says_not {
        assert!(!text.contains(says_not), "{text:?} says {says_not:?}");
    }
}

#[test]
fn everything_that_is_missing_is_named_at_once() {
    let bare = on_a_machine("trainer", |folder| script(folder, "apt-get", ""));
    let packages = "apt-get install build-essential bash python3 python3-venv";
    lacks(&bare, &["cargo is missing", "(cc)", "(c++)", "python3 is missing", packages], &[]);
    let other = on_a_machine("trainer", |folder| script(folder, "dnf", ""));
    lacks(&other, &["dnf install gcc gcc-c++ bash python3"], &["venv", "apt-get"]);
    // A stream needs no Python.
    lacks(&on_a_machine("server", |_| ()), &["cargo is missing", "(cc)"], &["python3", "(c++)"]);
}

#[test]
fn an_old_python_or_one_without_venv_is_named() {
    let with = |version: &str, venv: i32| {
        on_a_machine("tests", |folder| {
            ["rustup", "cc", "c++", "bash", "apt-get"].iter().for_each(|tool| script(folder, tool, ""));
            script(folder, "cargo", "echo cargo 1.95.0");
            let python = format!("case \"$2\" in *ensurepip*) exit {venv} ;; *) echo {version} ;; esac");
            script(folder, "python3", &python);
        })
    };
    lacks(&with("3.8.10", 0), &["python3 is Python 3.8.10; 3.9 or newer is needed", "PYTHON="], &["install"]);
    lacks(
        &with("3.11.2", 1),
        &["cannot make virtual environments", "apt-get install python3-venv"],
        &["cargo"],
    );
    for version in ["3.9.2", "3.10.0", "3.14.1"] {
        let output = with(version, 0);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn an_old_cargo_is_named() {
    let old = on_a_machine("server", |folder| {
        script(folder, "cargo", "echo cargo 1.85.0");
        script(folder, "cc", "");
    });
    lacks(&old, &["cargo is 1.85.0; Rust 1.95 or newer is needed"], &["(cc)"]);
}
