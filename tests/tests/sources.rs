//! Datasets whose splits differ, change or cannot be read: what is streamed of them, and what jobs train on.

use std::path::Path;

use pba_datasets::{Measured, PackSpec, Packer};
use pba_tests::search::{Script, comparison, evaluation, spec, trainer};
use pba_tests::slow_file::SlowFile;
use pba_tests::{Server, parquet_files, wait_for};
use pba_types::ImageShape;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How a server is told of a source.
fn flag(source: &Path) -> String {
    format!("mine={}", source.display())
}

/// Writes images that are as wide and high as this and numbered from `first`, of the classes 0 to 9 in turn.
fn write(source: &TempDir, split: &str, sides: &[u32], first: u32) {
    let images: Vec<Vec<u8>> =
        sides.iter().zip(first..).map(|(side, seed)| parquet_files::png(*side, *side, seed)).collect();
    parquet_files::write(&source.path().join(format!("{split}.parquet")), &images);
}

/// An evaluation of 64 images, which takes a moment.
fn small(name: &str) -> Value {
    evaluation(json!({ "name": name, "dataset": "mine", "train_size": 64, "batch_size": 32, "epochs": 1 }))
}

/// Checks that an evaluation is refused for its dataset, in these words.
#[track_caller]
fn refused(server: &Server, asked: &Value, says: &str) {
    let refused = server.send("POST", "/v1/evaluations", asked.to_string().as_bytes()).problem();
    assert_eq!((refused.status, refused.parameter.as_deref()), (400, Some("dataset")), "{refused:?}");
    assert!(refused.detail.contains(says), "{refused:?}");
}

/// What a split is augmented and normalised with does not change with which of the other splits can be read.
#[test]
fn no_split_that_fails_changes_pixels_of_the_others() {
    let source = tempfile::tempdir().unwrap();
    let write = |split: &str, side: u32| {
        let images: Vec<Vec<u8>> = (0..20).map(|image| parquet_files::png(side, side, image)).collect();
        parquet_files::write(&source.path().join(format!("{split}.parquet")), &images);
    };
    let dataset = flag(source.path());
    let target = |split: &str| format!("mine/epochs/0/batches?schedule=none&split={split}");
    let break_split = |split: &str| {
        std::fs::write(source.path().join(format!("{split}.parquet")), "no images").unwrap();
    };
    write("train", 32);
    write("test", 48);
    let server = Server::start(&["--dataset", &dataset]);
    let whole = ["train", "test"].map(|split| server.epoch(&target(split)).bytes);
    drop(server);

    break_split("test");
    let server = Server::start(&["--dataset", &dataset]);
    assert!(server.epoch(&target("train")).bytes == whole[0]);
    drop(server);

    break_split("train");
    write("test", 48);
    let server = Server::start(&["--dataset", &dataset]);
    for base in ["", "&base=identity"] {
        let refused = server.get(&format!("/v1/datasets/{}{base}", target("test"))).problem();
        assert_eq!(refused.kind, "urn:pba:problem:broken-dataset");
        let detail = "the normalisation of split test of dataset \"mine\" is that of its train split, which could not be read";
        assert!(refused.detail.starts_with(detail), "{}", refused.detail);
    }
    let shown = server.get("/v1/datasets/mine").json();
    assert_eq!((&shown["base"], &shown["eval_base"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    server.assert_healthy();
}

/// Images of several sizes beside a training split of one are evaluated on at that.
#[test]
fn images_of_any_size_are_tested_on_at_the_size_of_those_to_train_on() {
    let source = tempfile::tempdir().unwrap();
    write(&source, "train", &[32; 20], 0);
    write(&source, "test", &[40, 64, 50, 33, 32, 20, 36, 37, 38, 39], 100);
    let trainer = trainer();
    let name = flag(source.path());
    let mut flags = vec!["--dataset", &*name];
    flags.extend(trainer.iter().flat_map(|trainer| ["--trainer", &**trainer]));
    let server = Server::start(&flags);
    let shown = server.get("/v1/datasets/mine").json();
    assert_eq!(
        (&shown["base"], &shown["eval_base"]),
        (&json!("pad_crop:4,flip,cutout:16"), &json!("resize:36,center_crop:32"))
    );
    let plain = "mine/epochs/0/batches?schedule=none&split=test";
    let by_default = server.epoch(plain);
    assert_eq!(by_default.indices().len(), 10);
    assert_eq!(by_default.digest(), server.epoch(&format!("{plain}&base=resize:36,center_crop:32")).digest());
    // No model trains on one size and is tested on others; that is the fault of the request.
    if trainer.is_none() {
        return;
    }
    let asked = evaluation(json!({ "dataset": "mine", "train_size": 20, "batch_size": 10 }));
    refused(&server, &asked, "those of the test split differ in size");
}

/// A trainer opens the source itself, which may hold something else by then than what is served.
#[test]
fn jobs_train_on_what_is_served_or_not_at_all() {
    let Some(trainer) = trainer() else { return };
    let source = tempfile::tempdir().unwrap();
    write(&source, "train", &[32; 64], 0);
    write(&source, "test", &[32; 20], 100);
    let server = Server::start(&["--trainer", &trainer, "--dataset", &flag(source.path())]);
    for split in ["train", "test"] {
        let path = source.path().join(format!("{split}.parquet"));
        let before = std::fs::read(&path).unwrap();
        write(&source, split, &[32; 64], 200);
        refused(&server, &small("changed"), &format!("those of the {split} split are others by now"));
        std::fs::write(&path, before).unwrap();
    }
    // Content is what counts, and not the time of a file.
    let id = server.start_job("evaluations", &small("same"));
    server.wait_for_job("evaluations", &id, "done");
}

/// What happens to a split that a job has nothing to do with does not keep it from going on.
#[test]
fn a_job_resumes_beside_a_split_that_broke() {
    let Some(trainer) = trainer() else { return };
    let source = tempfile::tempdir().unwrap();
    write(&source, "train", &[32; 300], 0);
    write(&source, "test", &[32; 20], 1_000);
    let name = flag(source.path());
    let flags = ["--trainer", &*trainer, "--dataset", &*name];
    let mut server = Server::start(&flags);
    let id = server.start_search(&spec(json!({ "dataset": "mine", "epochs": 200 })));
    server.wait_for_lines(&id, 12);
    let data = server.data();
    server.process.signal("TERM");
    server.process.wait();
    drop(server);
    std::fs::write(source.path().join("test.parquet"), "no images").unwrap();
    let server = Server::start_on(data, &flags);
    let lines = server.journal(&id).lines().count();
    server.wait_for_lines(&id, lines + 4);
    assert_eq!(server.search(&id)["state"], "running");
    let cancelled = server.send("DELETE", &format!("/v1/searches/{id}"), b"");
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
}

/// Splits whose classes differ are refused by the server that packs them, and by one that finds them one by one.
#[test]
fn splits_that_disagree_never_come_together() {
    let source = tempfile::tempdir().unwrap();
    let shape = ImageShape { height: 32, width: 32 };
    for (split, classes) in [("train", ["cat", "dog"]), ("test", ["dog", "cat"])] {
        let spec = PackSpec { classes: classes.map(str::to_owned).into(), rows: 8, source: String::new() };
        let mut packer =
            Packer::create(&source.path().join(format!("{split}.arrow")), Some(shape), spec).unwrap();
        for row in 0..8 {
            let pixels = vec![30 * row as u8; shape.rgb_bytes()];
            packer.push(&pixels, &Measured::of(shape, &pixels), row % 2).unwrap();
        }
        packer.finish().unwrap();
    }
    let writer = Server::start(&["--dataset", &flag(source.path())]);
    let target = |split: &str| format!("/v1/datasets/mine/epochs/0/batches?schedule=none&split={split}");
    assert_eq!(["train", "test"].map(|split| writer.get(&target(split)).status), [200, 422]);
    // As if the writer had packed it later.
    let folders = std::fs::read_dir(writer.data().path().join("datasets")).unwrap();
    let packed = folders.map(|folder| folder.unwrap().path().join("train.arrow"));
    let packed =
        packed.filter(|file| file.exists()).max_by_key(|file| file.metadata().unwrap().modified().unwrap());
    let packed = packed.expect("it is packed");
    let away = packed.with_extension("away");
    std::fs::rename(&packed, &away).unwrap();
    let replica = Server::start_on(writer.data(), &["--dataset", &flag(source.path())]);
    let shown = || replica.get("/v1/datasets/mine").json();
    assert_eq!(["train", "test"].map(|split| replica.get(&target(split)).status), [503, 503], "{}", shown());
    std::fs::rename(&away, &packed).unwrap();
    wait_for("the train split to be served", || (replica.get(&target("train")).status == 200).then_some(()));
    assert_eq!(replica.get(&target("test")).status, 422, "{}", shown());
    let error = shown()["splits"]["test"]["error"].as_str().map(str::to_owned);
    assert!(error.is_some_and(|error| error.contains("classes")), "{}", shown());
}

/// A replica that becomes the writer packs the splits that are missing, and serves the others meanwhile.
#[test]
fn what_is_missing_at_a_take_over_is_imported() {
    let source = tempfile::tempdir().unwrap();
    write(&source, "train", &[32; 40], 0);
    write(&source, "test", &[32; 4_000], 100);
    let writer = Server::start(&["--dataset", &flag(source.path())]);
    let folders = std::fs::read_dir(writer.data().path().join("datasets")).unwrap();
    let files = folders.map(|folder| folder.unwrap().path().join("test.arrow"));
    // The built-in one has a folder of its own, which is older.
    let packed = files
        .filter(|file| file.exists())
        .max_by_key(|file| file.metadata().unwrap().modified().unwrap())
        .unwrap();
    std::fs::remove_file(packed).unwrap();
    let replica = Server::start_on(writer.data(), &["--dataset", &flag(source.path())]);
    let target = |split: &str| format!("/v1/datasets/mine/epochs/0/batches?schedule=none&split={split}");
    assert_eq!(["train", "test"].map(|split| replica.get(&target(split)).status), [200, 503]);
    assert_eq!(replica.get(&target("test")).problem().kind, "urn:pba:problem:not-packed");
    drop(writer);
    wait_for("the split to be packed", || {
        let was_writer = replica.metric("pba_writer") == 1.0;
        let test = replica.get(&target("test"));
        if test.status != 200 && was_writer {
            // Clients wait for it from the moment on when this server packs.
            assert_eq!(test.problem().kind, "urn:pba:problem:importing");
        }
        assert_eq!(replica.get(&target("train")).status, 200);
        assert_eq!(replica.get("/readyz").status, 200);
        (test.status == 200).then_some(())
    });
    assert_eq!(replica.metric("pba_repairs_total{dataset=\"mine\"}"), 0.0, "nothing was damaged");
    replica.assert_healthy();
}

/// What jobs are scored on is packed first: a trainer would be scored on something else.
#[test]
fn no_job_begins_while_a_split_is_packed() {
    let (source, slow) = (tempfile::tempdir().unwrap(), SlowFile::create());
    write(&source, "train", &[32; 64], 0);
    write(&source, "validation", &[32; 30], 500);
    write(&source, "test", &[32; 20], 100);
    let writer = Server::start(&["--dataset", &flag(source.path())]);
    let folders = std::fs::read_dir(writer.data().path().join("datasets")).unwrap();
    let mut files = folders.map(|folder| folder.unwrap().path().join("test.arrow"));
    // The built-in one has a folder of its own, without this split.
    let packed = files.find(|file| file.with_file_name("val.arrow").exists()).unwrap();
    std::fs::remove_file(packed).unwrap();
    let script = Script::new("touch $here/asked");
    let flags = ["--trainer", script.path(), "--dataset", &flag(source.path())];
    let mut command = Server::command(writer.data().path(), &flags);
    slow.slow_down_at(&mut command, &source.path().join("test.parquet"));
    let replica = Server::run(command, writer.data());
    drop(writer);
    // What it begins then takes until the slow file is there.
    wait_for("the replica to take over", || (replica.metric("pba_writer") == 1.0).then_some(()));
    let send = || replica.send("POST", "/v1/evaluations", small("tested").to_string().as_bytes());
    let refused = send();
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{}", refused.text());
    let problem = refused.problem();
    assert_eq!(problem.kind, "urn:pba:problem:importing");
    assert!(
        problem.detail.starts_with("split test of dataset \"mine\" is still being imported"),
        "{problem:?}"
    );
    assert!(!script.file("asked").exists(), "a trainer was started");
    slow.end_all();
    wait_for("the job to be taken", || (send().status == 202).then_some(()));
    assert!(script.file("asked").exists());
}

/// One that is gone is not replaced by another one to be scored on.
#[test]
fn a_job_whose_split_is_gone_is_refused_or_fails() {
    let Some(trainer) = trainer() else { return };
    let source = tempfile::tempdir().unwrap();
    write(&source, "train", &[32; 300], 0);
    write(&source, "validation", &[32; 30], 500);
    write(&source, "test", &[32; 20], 800);
    let server = Server::start(&["--trainer", &trainer, "--dataset", &flag(source.path())]);
    let small_comparison = |name: &str| {
        comparison(json!({
            "name": name, "dataset": "mine", "train_size": 64, "batch_size": 32, "epochs": 1, "score": "val",
        }))
    };
    let gone =
        |split: &str| format!("{split}: it was there when this was requested, and is not there any more");
    let without = |split: &str, check: &dyn Fn()| {
        let path = source.path().join(format!("{split}.parquet"));
        let away = path.with_extension("away");
        std::fs::rename(&path, &away).unwrap();
        check();
        std::fs::rename(&away, &path).unwrap();
    };
    let refuses = |kind: &str, asked: &Value, split: &str| {
        let refused = server.send("POST", &format!("/v1/{kind}"), asked.to_string().as_bytes());
        assert_eq!(refused.status, 422, "{}", refused.text());
        let detail = refused.problem().detail;
        assert!(detail.contains(&gone(split)), "{detail}");
    };
    without("test", &|| refuses("evaluations", &small("refused"), "test"));
    without("validation", &|| refuses("comparisons", &small_comparison("refused"), "val"));
    without("validation", &|| {
        refuses("searches", &spec(json!({ "dataset": "mine", "val_size": 30 })), "val");
    });
    // Those that wait fail when their turn comes.
    let long = spec(json!({ "dataset": "mine", "epochs": 200, "val_size": 30 }));
    let id = server.start_search(&long);
    server.wait_for_lines(&id, 4);
    let jobs = [
        ("evaluations", server.start_job("evaluations", &small("tested")), "test"),
        ("comparisons", server.start_job("comparisons", &small_comparison("compared")), "val"),
    ];
    without("test", &|| {
        without("validation", &|| {
            assert_eq!(server.send("DELETE", &format!("/v1/searches/{id}"), b"").status, 200);
            for (kind, job, split) in &jobs {
                let failed = server.wait_for_job(kind, job, "failed");
                assert!(
                    failed["error"].as_str().is_some_and(|error| error.contains(&gone(split))),
                    "{failed}"
                );
            }
        });
    });
}

/// A split that comes into a source under a running server is none that a job uses.
#[test]
fn a_job_uses_no_split_that_is_not_served() {
    let Some(trainer) = trainer() else { return };
    let source = tempfile::tempdir().unwrap();
    write(&source, "train", &[32; 64], 0);
    write(&source, "validation", &[32; 30], 500);
    let server = Server::start(&["--trainer", &trainer, "--dataset", &flag(source.path())]);
    write(&source, "test", &[32; 20], 100);
    let id = server.start_job("evaluations", &small("tested"));
    let done = server.wait_for_job("evaluations", &id, "done");
    assert_eq!((&done["split"], &done["images"]), (&json!("val"), &json!(30)), "{done}");
}

/// One that could not be read when a job was requested is not used either, even if it can be by then.
#[test]
fn a_job_uses_no_split_that_could_not_be_read() {
    let Some(trainer) = trainer() else { return };
    let source = tempfile::tempdir().unwrap();
    write(&source, "train", &[32; 64], 0);
    std::fs::write(source.path().join("test.parquet"), "no images").unwrap();
    let server = Server::start(&["--trainer", &trainer, "--dataset", &flag(source.path())]);
    write(&source, "test", &[32; 20], 100);
    refused(&server, &small("tested"), "could not be read");
}
