//! `benches/gpu/run.sh`, as far as it goes without a GPU.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

#[test]
fn it_runs_dry() {
    let folder = TempDir::new().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/gpu/run.sh");
    std::fs::copy(script, folder.path().join("run.sh")).unwrap();
    symlink(env!("CARGO_BIN_EXE_pba-trainer"), folder.path().join("pba-trainer")).unwrap();
    let run = |arguments: &[&str], succeeds: bool| {
        let output = Command::new("bash").arg(folder.path().join("run.sh")).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), succeeds, "{text}");
        text.into_owned()
    };
    let measured = run(&["measure", "--dry-run"], true);
    for says in [
        "### Ways to train tiny",
        "| graphs | not here",
        "| stacked | - | bf16 |",
        "| sequential | - | bf16 |",
        "| with one, written beside the second |",
        "Written beside the training it costs",
        "\"event\":\"spent\",\"train\":",
        "\"event\":\"done\"",
    ] {
        assert!(measured.contains(says), "{measured} does not say {says}");
    }
    assert!(!measured.contains("failed with"), "{measured}");
    assert!(run(&["compare", "--dry-run"], false).contains("no schedule yet"));
    assert!(run(&["search", "--dry-run"], true).contains("out-dry/search/schedule.json"));
    // What is done is found done.
    assert!(run(&["search", "--dry-run"], true).contains("\"event\":\"resumed\",\"epoch\":6"));
    let compared = run(&["compare", "--dry-run"], true);
    for says in ["# gpu-compared", "8 of 8 runs have ended", "| gpu | none |", "\"event\":\"compared\""] {
        assert!(compared.contains(says), "{compared} does not say {says}");
    }
    assert!(run(&["compare", "--dry-run"], true).contains("8 of 8 runs have ended"));
    assert!(run(&["dance"], false).contains("usage:"));
    assert!(run(&["search", "--dry"], false).contains("usage:"));
    // What is done is not taken for the result of a run that failed.
    let spoiled = folder.path().join("out-dry/search/events.jsonl");
    std::fs::write(&spoiled, "{}\n").unwrap();
    let failed = run(&["search", "--dry-run"], false);
    assert!(failed.contains("failed with 1") && !failed.contains("The schedule is"), "{failed}");
}
