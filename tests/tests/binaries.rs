//! What the binaries are made of.

use std::process::Command;

/// `pba` starts the trainer as a child process, so that it never needs what the trainer links.
#[test]
fn pba_links_no_training_library() {
    let binary = pba_tests::binary::path();
    let output =
        Command::new("ldd").arg(&binary).output().expect("ldd is there: it comes with the C library");
    let libraries = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && libraries.contains("libc.so"), "{output:?}");
    assert!(!libraries.contains("not found"), "{libraries}");
    for foreign in ["torch", "c10", "cuda", "cudnn", "nvidia", "python", "libgomp", "libssl"] {
        assert!(
            !libraries.contains(foreign),
            "{} links {foreign}; only pba-trainer may, see ARCHITECTURE.md:\n{libraries}",
            binary.display()
        );
    }
}

#[test]
fn pba_says_its_version() {
    assert_eq!(pba_tests::pba(&["--version"]).ok(), format!("pba {}\n", env!("CARGO_PKG_VERSION")));
}
