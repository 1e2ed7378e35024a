//! The settings of the paper by name, as a request gives them.

use pba_tests::search::{Script, trainer};
use pba_tests::server::data_folder;
use pba_tests::{Server, parquet_files, wait_for};
use serde_json::{Value, json};

/// Checks some fields of the spec that the server answers with.
#[track_caller]
fn filled(answer: &Value, expected: Value) {
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&answer["spec"][field], value, "{field} of {answer}");
    }
}

#[test]
fn a_preset_fills_in_what_a_request_leaves_out() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let id =
        server.start_search(&json!({ "preset": "rsvhn", "dataset": "shapes", "device": "cpu", "seed": 7 }));
    let expected = json!({
        "preset": "rsvhn", "dataset": "shapes", "model": "wrn-40-2", "epochs": 160, "batch_size": 128,
        "lr": 0.1, "weight_decay": 0.005, "lr_schedule": { "steps": [80, 120], "factor": 0.1 },
        "base": "identity", "train_size": 1000, "val_size": 7325, "val_split": "train", "population": 16,
        "perturbation_interval": 3, "seed": 7, "split_seed": 7,
    });
    filled(&server.search(&id), expected.clone());
    let id = server
        .start_job("evaluations", &json!({ "preset": "cifar10", "dataset": "shapes", "device": "cpu" }));
    filled(
        &server.job("evaluations", &id),
        json!({
            "model": "wrn-28-10", "schedule": "cifar10-pba", "epochs": 200, "lr": 0.1,
            "base": "pad_crop:4,flip,cutout:16",
        }),
    );
    // On the command line, where a flag wins.
    let started = server.pba(&[
        "evaluate",
        "--preset",
        "rcifar10",
        "--model",
        "shake-shake-26-2x96d",
        "--dataset",
        "shapes",
        "--schedule",
        "none",
        "--device",
        "cpu",
        "--lr",
        "0.5",
        "--split-seed",
        "9",
        "--json",
    ]);
    filled(
        &started.json(),
        json!({
            "preset": "rcifar10", "schedule": "none", "epochs": 1800, "lr": 0.5, "weight_decay": 0.0025,
            "train_size": 4000, "seed": 0, "split_seed": 9,
        }),
    );
    server.pba(&["search", "start", "--preset", "cifar100"]).refused(1, &["preset", "rcifar10, rsvhn"]);
    server
        .pba(&["evaluate", "--preset", "imagenet"])
        .refused(1, &["imagenet", "cifar10, cifar100, svhn, rcifar10"]);
    // The dataset by its usual name, which this server does not know.
    server.pba(&["search", "start", "--preset", "rcifar10"]).refused(1, &["404", "cifar10"]);
    server.pba(&["search", "start", "--model", "wrn-41-2"]).refused(1, &["shake-shake-D-2xWd"]);

    let data = server.data();
    drop(server);
    let server = Server::start_on(data, &["--trainer", script.path()]);
    filled(&server.search("shapes-wrn-40-2-1"), expected);
}

#[test]
fn members_are_scored_with_the_datasets_own_val_split_unless_asked_otherwise() {
    let script = Script::idles();
    // The built-in dataset again, with its test split as one named val.
    let data = data_folder();
    let packed = std::fs::read_dir(data.path().join("datasets")).unwrap().map(|entry| entry.unwrap().path());
    let packed = packed.into_iter().find(|path| path.join("train.arrow").exists()).unwrap();
    let mine = tempfile::tempdir().unwrap();
    std::fs::copy(packed.join("train.arrow"), mine.path().join("train.arrow")).unwrap();
    std::fs::copy(packed.join("test.arrow"), mine.path().join("val.arrow")).unwrap();
    let mine = format!("mine={}", mine.path().display());
    let server = Server::start_on(data, &["--trainer", script.path(), "--dataset", &mine]);
    let val_split = |spec: Value| server.search(&server.start_search(&spec))["spec"]["val_split"].clone();
    assert_eq!(val_split(json!({ "dataset": "mine", "device": "cpu" })), "val");
    assert_eq!(val_split(json!({ "dataset": "mine", "val_split": "train", "device": "cpu" })), "train");
    assert_eq!(val_split(json!({ "dataset": "shapes", "device": "cpu" })), "train");
}

/// No preset trains on other images than its name says.
#[test]
fn a_val_split_that_cannot_be_read_is_not_replaced() {
    let Some(trainer) = trainer() else { return };
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<Vec<u8>> = (0..200).map(|seed| parquet_files::png(16, 16, seed)).collect();
    parquet_files::write(&folder.path().join("train.parquet"), &images);
    std::fs::write(folder.path().join("val.parquet"), "junk").unwrap();
    let dataset = format!("mine={}", folder.path().display());
    let server = Server::start(&["--trainer", &trainer, "--dataset", &dataset]);
    wait_for("the dataset", || (server.get("/readyz").status == 200).then_some(()));
    let mut spec =
        json!({ "dataset": "mine", "model": "tiny", "epochs": 1, "train_size": 64, "val_size": 20 });
    let refused = server.send("POST", "/v1/searches", spec.to_string().as_bytes());
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("cannot read the val split"), "{}", refused.text());
    spec["val_split"] = json!("train");
    assert_eq!(server.send("POST", "/v1/searches", spec.to_string().as_bytes()).status, 202);
}
