//! `pba-trainer evaluate`.

use super::*;

#[test]
fn an_evaluation_tells_a_test_error() {
    let spec = json!({ "model": "tiny", "epochs": 2, "train_size": 320, "device": "cpu", "seed": 3 });
    let evaluated = |schedule: &str| -> Value {
        let output = trainer(&["evaluate", "--schedule", schedule], &spec, &CACHE);
        assert!(output.status.success(), "{}", text(&output));
        let last = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
        serde_json::from_str(&last).unwrap()
    };
    let none = evaluated("none");
    assert_eq!((&none["event"], &none["images"]), (&json!("evaluated"), &json!(2000)));
    assert!(none["test_error"].as_f64().unwrap() < 0.95, "{none}");
    assert_eq!(evaluated("none"), none, "the same seed, the same error");
    assert_ne!(evaluated("cifar10-pba"), none);
}

/// Runs an evaluation with a published schedule in a folder.
fn evaluation_in(folder: &Path, spec: &Value) -> Child {
    spawn(command(&["evaluate", "--dir", folder.to_str().unwrap()], &CACHE), spec)
}

#[test]
fn an_evaluation_that_is_killed_ends_as_if_nothing_had_happened() {
    let (whole, killed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let spec = json!({
        "model": "tiny", "epochs": 12, "train_size": 320, "device": "cpu", "seed": 3, "schedule": "cifar10-pba",
        "ablation": "flatten",
    });
    let journal = |folder: &Path| fs::read_to_string(folder.join("events.jsonl")).unwrap_or_default();
    let output = evaluation_in(whole.path(), &spec).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let expected = journal(whole.path());
    assert_eq!(expected.lines().count(), 14, "{expected}");
    assert_eq!(checkpoints(whole.path()).last().unwrap(), "checkpoint-000012.safetensors");
    for lines in [1, 5, 12] {
        let mut child = evaluation_in(killed.path(), &spec);
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let seen = journal(killed.path()).lines().count();
        told.by_ref().filter(|line| line.contains("\"trained\"")).nth(lines - seen.clamp(1, lines));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            expected.starts_with(&journal(killed.path())),
            "what happened twice happened in the same way"
        );
    }
    let output = evaluation_in(killed.path(), &spec).wait_with_output().unwrap();
    assert!(text(&output).starts_with("{\"event\":\"resumed\",\"epoch\":"), "{}", text(&output));
    assert_eq!(journal(killed.path()), expected);
    assert_eq!(checkpoints(killed.path()).last(), checkpoints(whole.path()).last());

    // That of the dataset, by name: it means the same.
    let mut named = spec.clone();
    assert!(named["base"].is_null(), "{named}");
    named["base"] = "pad_crop:4,flip".into();
    let output = evaluation_in(killed.path(), &named).wait_with_output().unwrap();
    assert!(text(&output).starts_with("{\"event\":\"resumed\",\"epoch\":"), "{}", text(&output));
    assert_eq!(journal(killed.path()), expected);

    let mut other = spec;
    other["seed"] = 4.into();
    let output = evaluation_in(killed.path(), &other).wait_with_output().unwrap();
    assert!(text(&output).contains("the job's folder holds another evaluation"), "{}", text(&output));
}

#[test]
fn a_seed_of_its_own_chooses_the_images() {
    let evaluated = |seeds: Value| -> Value {
        let mut spec = json!({ "model": "tiny", "epochs": 1, "train_size": 64, "device": "cpu" });
        spec.as_object_mut().unwrap().extend(seeds.as_object().unwrap().clone());
        let output = trainer(&["evaluate"], &spec, &CACHE);
        assert!(output.status.success(), "{}", text(&output));
        let last = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
        serde_json::from_str(&last).unwrap()
    };
    let default = evaluated(json!({ "seed": 3 }));
    assert_eq!(evaluated(json!({ "seed": 3, "split_seed": 3 })), default);
    let other_images = evaluated(json!({ "seed": 3, "split_seed": 4 }));
    assert_ne!(other_images, default, "other images");
    assert_ne!(evaluated(json!({ "seed": 4 })), other_images, "the same images, in another order");
}
