//! What is wrong is refused before anything starts.

use super::*;

#[track_caller]
fn refuse(command: &str, change: Value, field: &str, says: &str) {
    let mut spec = small_spec();
    if command == "evaluate" {
        spec = json!({ "model": "tiny", "epochs": 1, "train_size": 96, "device": "cpu" });
    }
    for (key, value) in change.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let arguments: &[&str] = if command == "search" {
        &["search", "--check"]
    } else {
        &["evaluate", "--schedule", "none", "--check"]
    };
    let output = trainer(arguments, &spec, &CACHE);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["error"]["field"], field);
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains(says), "{message:?} does not say {says:?}");
}

#[test]
fn wrong_specs_are_refused_before_anything_starts() {
    refuse("search", json!({ "model": "vgg" }), "model", "wrn-D-K");
    refuse("search", json!({ "model": "shake-shake-26-2x97d" }), "model", "shake-shake-D-2xWd");
    refuse("search", json!({ "ops": ["Blur"] }), "ops", "\"Blur\" is not");
    refuse("search", json!({ "population": 1 }), "population", "2..=256");
    refuse("search", json!({ "perturbation_interval": 0 }), "perturbation_interval", "1..=");
    refuse("search", json!({ "lr": -0.1 }), "lr", "above 0");
    refuse("search", json!({ "train_size": 10_001 }), "train_size", "of the 10000 images of the split");
    refuse("search", json!({ "train_size": 9_000, "val_size": 2_000 }), "val_size", "1..=1000");
    refuse("search", json!({ "batch_size": 97 }), "batch_size", "1..=96");
    refuse("search", json!({ "base": "pad_crop" }), "base", "pad_crop needs a number");
    refuse("search", json!({ "strategy": "graphs" }), "strategy", "graphs needs CUDA");
    refuse("search", json!({ "streams": 4 }), "streams", "with the strategy graphs only");
    refuse("evaluate", json!({ "ablation": "all" }), "ablation", "flatten");
    refuse("evaluate", json!({ "population": 4 }), "population", "no such field");
}

/// On a machine with a GPU, days on a CPU are not begun without a word.
#[test]
fn what_takes_days_on_a_cpu_is_done_there_only_when_asked() {
    let spec = |device: &str, model: &str| json!({ "model": model, "train_size": 4_000, "device": device });
    let checked = |spec: &Value| trainer(&["search", "--check"], spec, &CACHE);
    assert!(checked(&spec("cpu", "wrn-28-10")).status.success());
    assert!(checked(&spec("auto", "tiny")).status.success());
    let devices = Command::new(env!("CARGO_BIN_EXE_pba-trainer")).arg("devices").output().unwrap();
    let devices: Value = serde_json::from_slice(&devices.stdout).unwrap();
    if devices["cuda_error"].is_null() {
        return;
    }
    let output = checked(&spec("auto", "wrn-28-10"));
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    let message = error["error"]["message"].as_str().unwrap();
    for says in ["device is \"auto\"; allowed: cpu, to insist", "this takes about", "hours"] {
        assert!(message.contains(says), "{message:?} does not say {says:?}");
    }
    // The other kinds of job too, with every size left out.
    for command in ["evaluate", "compare"] {
        let output = trainer(&[command, "--check"], &json!({ "model": "wrn-28-10" }), &CACHE);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        assert!(said.contains("hours"), "{command}: {said}");
        let output =
            trainer(&[command, "--check"], &json!({ "model": "wrn-28-10", "device": "cpu" }), &CACHE);
        assert!(output.status.success(), "{command}: {}", text(&output));
    }
    // A network has a core, however many there are.
    let output = trainer(&["evaluate", "--check"], &json!({ "model": "wrn-28-10" }), &CACHE);
    assert!(
        text(&output).contains("on 1 CPU core;") || text(&output).contains("on 1 CPU core\""),
        "{}",
        text(&output)
    );
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    // True with and without a GPU.
    refuse("search", json!({ "device": "cuda:99" }), "device", "cuda:99");
}
