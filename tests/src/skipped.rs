//! Tests that this machine cannot run, told of where it is read.
//!
//! The harness keeps to itself what a test prints that passes. So each test that is skipped, or a part of one, is a line
//! of a file, which `make test` prints at its end. Where all tests should run, `PBA_TEST_NO_SKIPS=1` makes them fail.

use std::fs::OpenOptions;
use std::io::Write;
use std::panic::Location;
use std::path::Path;

use crate::repository;

/// The file with a line for each, in the repository.
const FILE: &str = "target/skipped-tests.txt";

/// Notes that the test that calls this is skipped, or a part of it, and why.
///
/// # Panics
/// When no test may be skipped, or it cannot be noted.
#[track_caller]
pub fn skip(why: &str) {
    let no_skips = std::env::var_os("PBA_TEST_NO_SKIPS").is_some_and(|value| value == "1");
    note(&repository(FILE), why, no_skips, Location::caller());
}

fn note(file: &Path, why: &str, no_skips: bool, place: &Location<'_>) {
    assert!(!no_skips, "{why}, and PBA_TEST_NO_SKIPS is 1");
    // The harness names the thread of a test after it.
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("{test} ({}:{}): {why}\n", place.file(), place.line());
    let folder = file.parent().expect("a file has a folder");
    std::fs::create_dir_all(folder).expect("target/ can be made");
    // Tests of several processes write at the same time: a line in one go.
    let file = OpenOptions::new().create(true).append(true).open(file);
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file takes a line");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_is_noted_with_test_and_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("target/skipped.txt");
        for why in ["there is no a", "there is no b"] {
            note(&file, why, false, Location::caller());
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("what_is_skipped_is_noted") && lines[0].contains("skipped.rs:"), "{text}");
        assert!(lines[1].ends_with(": there is no b"), "{text}");
    }

    #[test]
    #[should_panic = "there is no a, and PBA_TEST_NO_SKIPS is 1"]
    fn where_all_tests_should_run_a_skip_fails() {
        note(Path::new("/no/such/file"), "there is no a", true, Location::caller());
    }
}
