//! Broken datasets: each says what is wrong with it, and the rest is served.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, StringArray};
use pba_tests::{Server, parquet_files, pba, wait_for};
use tempfile::TempDir;

/// A folder of datasets, one sub-folder each.
struct Data(TempDir);

impl Data {
    fn new() -> Data {
        Data(tempfile::tempdir().unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Starts a server of datasets named like their folders.
    #[track_caller]
    fn serve(&self, names: &[&str]) -> Server {
        let datasets: Vec<String> =
            names.iter().map(|name| format!("{name}={}", self.path(name).display())).collect();
        let flags: Vec<&str> = datasets.iter().flat_map(|dataset| ["--dataset", dataset]).collect();
        Server::start(&flags)
    }
}

/// Checks that a split is refused with `422` and words that name file and row, that the dataset
/// shows them too, and that stream, preview and log agree.
#[track_caller]
fn broken(server: &Server, dataset: &str, split: &str, says: &[&str]) {
    for page in ["batches", "preview.png"] {
        let answer = server.get(&format!("/v1/datasets/{dataset}/epochs/0/{page}?split={split}"));
        assert_eq!(answer.status, 422, "{}", answer.text());
        let problem = answer.problem();
        for says in says.iter().chain([&dataset]) {
            assert!(problem.detail.contains(says), "{:?} does not say {says:?}", problem.detail);
        }
    }
    let description = server.get(&format!("/v1/datasets/{dataset}"));
    assert_eq!(description.status, 200);
    for says in says {
        assert!(description.text().contains(says), "{} does not say {says:?}", description.text());
        // Lines are written by a thread of their own.
        wait_for("the log's line", || server.process.stderr().contains(says).then_some(()));
    }
}

#[track_caller]
fn serves(server: &Server, dataset: &str, split: &str, rows: usize) {
    let epoch = server.epoch(&format!("{dataset}/epochs/0/batches?split={split}"));
    assert_eq!(epoch.indices().len(), rows);
}

#[test]
fn one_bad_image_is_named_by_its_row() {
    let data = Data::new();
    parquet_files::write(&data.path("mixed/train.parquet"), &parquet_files::images(30));
    let mut images = parquet_files::images(300);
    images[217] = b"this is no picture".to_vec();
    parquet_files::write(&data.path("mixed/test.parquet"), &images);
    let half = images[5].len() / 2;
    images[5].truncate(half);
    parquet_files::write(&data.path("mixed/val.parquet"), &images);
    let server = data.serve(&["mixed"]);
    broken(&server, "mixed", "test", &["test.parquet", "row 217"]);
    broken(&server, "mixed", "val", &["val.parquet", "row 5", "first of 2 bad images among 300"]);
    serves(&server, "mixed", "train", 30);
    assert_eq!(server.get("/v1/datasets/mixed").json()["splits"]["train"]["samples"], 30);
    server.assert_healthy();
}

#[test]
fn rows_are_counted_within_the_file_that_is_named() {
    let data = Data::new();
    let mut images = parquet_files::images(40);
    parquet_files::write(&data.path("shards/train-00000-of-00002.parquet"), &images);
    images[7].clear();
    parquet_files::write(&data.path("shards/train-00001-of-00002.parquet"), &images);
    parquet_files::write(&data.path("gap/train-00001-of-00003.parquet"), &images);
    let server = data.serve(&["shards", "gap"]);
    broken(&server, "shards", "train", &["train-00001-of-00002.parquet", "row 7"]);
    broken(&server, "gap", "train", &["train-00000-of-00003.parquet", "missing"]);
    server.assert_healthy();
}

#[test]
fn parquet_files_cut_at_many_points() {
    let data = Data::new();
    let whole = data.path("whole/train.parquet");
    parquet_files::write(&whole, &parquet_files::images(50));
    let bytes = std::fs::read(&whole).unwrap();
    let length = bytes.len();
    let mut points: Vec<usize> = (1..24).map(|part| part * length / 24).collect();
    points.extend([0, 1, 4, 7, 8, length - 9, length - 8, length - 5, length - 4, length - 1]);
    let names: Vec<String> = points.iter().map(|point| format!("cut-{point}")).collect();
    for (name, &point) in names.iter().zip(&points) {
        std::fs::create_dir(data.path(name)).unwrap();
        std::fs::write(data.path(name).join("test.parquet"), &bytes[..point]).unwrap();
        std::fs::copy(&whole, data.path(name).join("train.parquet")).unwrap();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).chain(["whole"]).collect();
    let server = data.serve(&names);
    for name in names.iter().filter(|name| name.starts_with("cut-")) {
        broken(&server, name, "test", &["test.parquet"]);
        serves(&server, name, "train", 50);
    }
    serves(&server, "whole", "train", 50);
    server.assert_healthy();
}

#[test]
fn parquet_files_with_flipped_bytes_never_harm_the_server() {
    let data = Data::new();
    let whole = data.path("whole/train.parquet");
    parquet_files::write(&whole, &parquet_files::images(20));
    let bytes = std::fs::read(&whole).unwrap();
    // Mostly in the footer, where lengths and types stand.
    let footer = bytes.len().saturating_sub(700);
    let names: Vec<String> = (0..60).map(|number| format!("flipped-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let mut damaged = bytes.clone();
        let place = if number % 4 == 0 { number * bytes.len() / 60 } else { footer + number * 700 / 60 };
        damaged[place] ^= 1 << (number % 8);
        std::fs::create_dir(data.path(name)).unwrap();
        std::fs::write(data.path(name).join("train.parquet"), damaged).unwrap();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let server = data.serve(&names);
    for name in &names {
        let answer = server.get(&format!("/v1/datasets/{name}/epochs/0/batches"));
        match answer.status {
            200 => assert!(answer.complete),
            _ => assert_eq!(answer.problem().status, 422),
        }
    }
    serves(&server, "shapes", "test", 2000);
    assert_eq!(server.get("/readyz").status, 200);
}

#[test]
fn images_of_different_sizes() {
    let data = Data::new();
    let mut images = parquet_files::images(20);
    images[13] = parquet_files::png(32, 31, 0);
    parquet_files::write(&data.path("sizes/train.parquet"), &images);
    parquet_files::write(&data.path("sizes/test.parquet"), &vec![parquet_files::png(47, 33, 0); 5]);
    let server = data.serve(&["sizes"]);
    // No damage: they are cropped to one size.
    serves(&server, "sizes", "train", 20);
    serves(&server, "sizes", "test", 5);
    server.assert_healthy();
}

#[test]
fn tables_without_the_columns() {
    let data = Data::new();
    let images = parquet_files::image_column(&parquet_files::images(3));
    let labels: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 2]));
    let words: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let negative: ArrayRef = Arc::new(Int64Array::from(vec![0, -1, 2]));
    let missing: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), None, Some(2)]));
    let write = |name: &str, columns: Vec<(&str, &ArrayRef)>| {
        let columns = columns.into_iter().map(|(name, column)| (name, Arc::clone(column)));
        parquet_files::write_columns(&data.path(name).join("train.parquet"), columns);
    };
    write("no-image", vec![("text", &words), ("label", &labels)]);
    write("no-label", vec![("image", &images)]);
    write("two-images", vec![("left", &images), ("right", &images), ("label", &labels)]);
    write("negative", vec![("image", &images), ("label", &negative)]);
    write("null", vec![("image", &images), ("label", &missing)]);
    write("words", vec![("picture", &images), ("kind", &words)]);
    parquet_files::write(&data.path("no-rows/train.parquet"), &[]);
    let server = data.serve(&["no-image", "no-label", "two-images", "negative", "null", "words", "no-rows"]);
    broken(&server, "no-image", "train", &["train.parquet", "column of images", "text", "label"]);
    broken(&server, "no-label", "train", &["train.parquet", "column of labels", "image"]);
    broken(&server, "two-images", "train", &["train.parquet", "left", "right"]);
    broken(&server, "negative", "train", &["train.parquet", "row 1", "-1"]);
    broken(&server, "null", "train", &["train.parquet", "row 1", "null"]);
    broken(&server, "no-rows", "train", &["train.parquet", "no rows"]);
    serves(&server, "words", "train", 3);
    server.assert_healthy();
}

#[test]
fn a_folder_without_a_dataset() {
    let data = Data::new();
    std::fs::create_dir(data.path("empty")).unwrap();
    std::fs::create_dir(data.path("notes")).unwrap();
    std::fs::write(data.path("notes/README.md"), "nothing here").unwrap();
    let server = data.serve(&["empty", "notes"]);
    for name in ["empty", "notes"] {
        broken(&server, name, "train", &["no dataset found", "train*.parquet"]);
    }
    server.assert_healthy();
}

/// Checks that a server refuses to start.
#[track_caller]
fn refuses_to_start(dataset: &str, says: &[&str]) {
    let data = pba_tests::server::data_folder();
    let mut process = Server::spawn(data.path(), &[&format!("--dataset={dataset}")]);
    assert_eq!(process.wait().code(), Some(1));
    assert_eq!(process.line(), None, "it must not claim to listen");
    pba_tests::wait_for("the error", || process.stderr().contains("error: ").then_some(()));
    for says in says {
        assert!(process.stderr().contains(says), "{} does not say {says:?}", process.stderr());
    }
}

/// A disk may be mounted later: it keeps no other dataset from being served.
#[test]
fn a_path_that_is_not_there() {
    let data = Data::new();
    let server = data.serve(&["missing"]);
    broken(&server, "missing", "train", &["no such file or folder"]);
    let missing = data.path("missing").display().to_string();
    let flag = format!("--dataset=missing={missing}");
    pba(&["serve", "--check", &flag]).refused(1, &["\"missing\"", &missing]);
}

#[test]
fn names_that_cannot_be() {
    let data = Data::new();
    let folder = data.path("");
    for name in ["", "a/b", "..", "-x", "a b"] {
        refuses_to_start(&format!("{name}={}", folder.display()), &["is not a dataset name"]);
    }
    refuses_to_start(&format!("shapes={}", folder.display()), &["\"shapes\"", "built-in"]);
    refuses_to_start("no-path", &["NAME=PATH"]);
}

#[test]
fn a_repaired_dataset_is_read_anew() {
    let data = Data::new();
    let path = data.path("mine/train.parquet");
    parquet_files::write(&path, &parquet_files::images(40));
    cut(&path);
    let server = data.serve(&["mine"]);
    broken(&server, "mine", "train", &["train.parquet"]);
    let kept = server.data();
    drop(server);
    parquet_files::write(&path, &parquet_files::images(40));
    let dataset = format!("mine={}", data.path("mine").display());
    let server = Server::start_on(Arc::clone(&kept), &["--dataset", &dataset]);
    serves(&server, "mine", "train", 40);
    drop(server);
    // What is kept packed is not trusted blindly: a damaged copy is made anew.
    for entry in std::fs::read_dir(kept.path().join("datasets")).unwrap() {
        let packed = entry.unwrap().path().join("train.arrow");
        if packed.metadata().is_ok_and(|metadata| metadata.len() < 1 << 20) {
            cut(&packed);
        }
    }
    let server = Server::start_on(kept, &["--dataset", &dataset]);
    serves(&server, "mine", "train", 40);
    server.assert_healthy();
}

fn cut(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}
