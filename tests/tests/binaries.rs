//! What the binaries are made of.

use std::process::Command;

/// `pba` starts the trainer as a child process, so that it never needs what the trainer links.
#[test]
fn pba_links_no_training_library() {
    let binary = pba_tests::binary::path();
    let output =
        Command::new("ldd").arg(&binary).output().expect("ldd is there: it comes with the C library");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("not found"), "{text}");
    // A line is `NAME => PATH (ADDRESS)`; the address differs from run to run and may spell "c10".
    let libraries: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(output.status.success() && libraries.contains(&"libc.so.6"), "{output:?}");
    for foreign in ["torch", "c10", "cuda", "cudnn", "nvidia", "python", "libgomp", "libssl"] {
        assert!(
            !libraries.iter().any(|library| library.contains(foreign)),
            "{} links {foreign}; only pba-trainer may, see ARCHITECTURE.md:\n{text}",
            binary.display()
        );
    }
}

#[test]
fn pba_says_its_version() {
    assert_eq!(pba_tests::pba(&["--version"]).ok(), format!("pba {}\n", env!("CARGO_PKG_VERSION")));
}

/// A trainer that is copied elsewhere must not depend on the folder that it was built in.
#[test]
fn the_trainer_names_no_folder_of_its_build() {
    let Some(trainer) = pba_tests::search::trainer() else { return };
    let output = Command::new("readelf").args(["-d", &trainer]).output();
    let output = output.expect("readelf is there: it comes with the C compiler");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.lines().find(|line| line.contains("RUNPATH") || line.contains("RPATH"));
    let paths = paths.unwrap_or_else(|| panic!("no run path: {text}"));
    let paths = paths.split_once('[').and_then(|(_, rest)| rest.split_once(']')).expect("in brackets").0;
    // A libtorch of the user's own, outside the repository, is named as it is.
    let repository = pba_tests::repository("");
    assert!(!paths.contains(repository.to_str().unwrap().trim_end_matches('/')), "{paths}");
    assert!(paths.split(':').any(|path| path == "$ORIGIN/../lib"), "{paths}");
}
