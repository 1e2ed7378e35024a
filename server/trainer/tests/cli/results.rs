//! The same spec gives the same result.

use super::*;

#[test]
fn the_same_spec_gives_the_same_journal_whatever_the_strategy_or_the_cores() {
    let (one, other, stacked) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let journal = complete(one.path(), &small_spec());
    let output = spawn(on_a_core(other.path()), &small_spec()).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::read_to_string(other.path().join("events.jsonl")).unwrap(), journal);
    println!("digest {}", digest(&journal));

    let schedule = fs::read_to_string(one.path().join("schedule.json")).unwrap();
    let schedule = pba_schedules::formats::json::read(&schedule).unwrap();
    assert_eq!(schedule.digest().to_string(), digest(&journal));
    assert_eq!((schedule.name(), schedule.epochs()), ("small", 6));
    assert_eq!(checkpoints(one.path()).last().unwrap(), "checkpoint-000006.safetensors");
    // This one was saved at its end only, which the journal does not tell.
    assert_eq!(checkpoints(other.path()), ["checkpoint-000006.safetensors"]);

    // Rounding may differ, so this one only has to end.
    let mut spec = small_spec();
    spec["strategy"] = "stacked".into();
    complete(stacked.path(), &spec);
}

/// The built-in dataset as a packed folder, with its `test` split as the split that is named.
fn packed_with(split: &str) -> TempDir {
    let mut packed = fs::read_dir(&*CACHE).unwrap().map(|entry| entry.unwrap().path());
    let packed = packed.find(|path| path.join("train.arrow").exists()).unwrap();
    let folder = TempDir::new().unwrap();
    fs::copy(packed.join("train.arrow"), folder.path().join("train.arrow")).unwrap();
    fs::copy(packed.join("test.arrow"), folder.path().join(format!("{split}.arrow"))).unwrap();
    folder
}

#[test]
fn members_are_scored_with_the_datasets_own_val_split() {
    let [with_val, without] = ["val", "test"].map(packed_with);
    let run = |dataset: &TempDir, arguments: &[&str], spec: &Value| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pba-trainer"));
        command.args(arguments).args(["--spec", "-", "--dataset"]).arg(dataset.path());
        command.arg("--cache").arg(&*CACHE);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        spawn(command, spec).wait_with_output().unwrap()
    };
    let mut spec = small_spec();
    spec["val_split"] = "val".into();
    // All of the 10,000 images of train, and none of them to score with.
    spec["train_size"] = 10_000.into();
    spec["val_size"] = 2_000.into();
    assert!(run(&with_val, &["search", "--check"], &spec).status.success());
    for (field, value, allowed) in [
        ("train_size", 10_001, "1..=10000, the images of the train"),
        ("val_size", 2_001, "1..=2000, the images"),
    ] {
        let mut wrong = spec.clone();
        wrong[field] = value.into();
        let output = run(&with_val, &["search", "--check"], &wrong);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(allowed), "{}", text(&output));
    }
    let output = run(&without, &["search", "--check"], &spec);
    assert!(
        text(&output).contains("val_split is \\\"val\\\"; allowed: train, as the dataset has no"),
        "{}",
        text(&output)
    );

    let scores = |split: &str| {
        let mut spec = small_spec();
        spec["epochs"] = 2.into();
        spec["val_split"] = split.into();
        let folder = TempDir::new().unwrap();
        let output = run(&with_val, &["search", "--dir", folder.path().to_str().unwrap()], &spec);
        assert!(output.status.success(), "{}", text(&output));
        let journal = fs::read_to_string(folder.path().join("events.jsonl")).unwrap();
        let scored: Value = serde_json::from_str(journal.lines().nth(1).unwrap()).unwrap();
        assert_eq!(scored["event"], "scored");
        scored["scores"].clone()
    };
    assert_ne!(scores("val"), scores("train"), "the same members, other images");
}

#[test]
fn networks_that_are_random_themselves_repeat_themselves() {
    for model in ["shake-shake-8-2x16d", "pyramidnet-11-a48-shakedrop"] {
        let spec = json!({
            "model": model, "population": 2, "epochs": 4, "perturbation_interval": 2, "batch_size": 4,
            "train_size": 8, "val_size": 10, "seed": 11, "device": "cpu",
        });
        let [undisturbed, killed, on_one_core] = [(); 3].map(|()| TempDir::new().unwrap());
        complete(undisturbed.path(), &spec);
        let expected = ending(undisturbed.path());
        let mut child = search_in(killed.path(), &spec);
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        told.by_ref().find(|line| line.contains("\"scored\"")).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        complete(killed.path(), &spec);
        assert!(ending(killed.path()) == expected, "{model}: resumed, it ends otherwise");
        let output = spawn(on_a_core(on_one_core.path()), &spec).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert!(ending(on_one_core.path()) == expected, "{model}: on one core it ends otherwise");
    }
}
