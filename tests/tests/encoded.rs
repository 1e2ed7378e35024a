//! Images of different sizes: packed as they are, decoded as they are sent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use pba_tests::{Epoch, Server, epoch, parquet_files, repository};
use tempfile::TempDir;

/// JPEGs that are committed: of every kind of subsampling, progressive, grey, CMYK; 1x1 to 48x37.
const IMAGES: [(&str, &str); 10] = [
    ("colour", "rgb_420.jpg"),
    ("colour", "rgb_420_even.jpg"),
    ("colour", "rgb_422.jpg"),
    ("colour", "rgb_444.jpg"),
    ("colour", "rgb_progressive.jpg"),
    ("colour", "rgb_restarts.jpg"),
    ("grey", "gray.jpg"),
    ("grey", "gray_progressive.jpg"),
    ("odd", "cmyk.jpg"),
    ("odd", "tall.jpg"),
];

fn image(name: &str) -> Vec<u8> {
    std::fs::read(repository("server/datasets/tests/all/images").join(name)).unwrap()
}

/// A folder of them for each split; the test split has two more, which are PNG and one pixel large.
fn photos() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |split: &str, class: &str, name: &str| {
        let file = folder.path().join(split).join(class).join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, image(name)).unwrap();
    };
    for (class, name) in IMAGES {
        write("train", class, name);
        write("test", class, name);
    }
    write("test", "colour", "rgba.png");
    write("test", "odd", "one_pixel.jpg");
    folder
}

/// A server of them under the name `photos`.
#[track_caller]
fn serve(folder: &TempDir, flags: &[&str]) -> Server {
    Server::start(&[&["--dataset", &format!("photos={}", folder.path().display())], flags].concat())
}

fn shape(epoch: &Epoch) -> String {
    let field = epoch.batches[0].schema();
    field.field(0).metadata()["ARROW:extension:metadata"].clone()
}

/// Small crops, so that every reduction occurs, and everything else that happens to a training image.
const REQUEST: &str = "photos/epochs/199/batches?schedule=cifar10-pba&seed=7\
                       &base=random_resized_crop:6,pad_crop:1,flip,cutout:2";

#[test]
fn they_are_described_and_sent_at_one_size() {
    let folder = photos();
    let server = serve(&folder, &[]);
    let about = server.get("/v1/datasets/photos").json();
    assert_eq!(about["base"], "random_resized_crop:224,flip");
    assert_eq!(about["eval_base"], "resize:256,center_crop:224");
    let train = &about["splits"]["train"];
    assert_eq!((train["images"].as_str(), train["shape"].is_null()), (Some("encoded"), true));
    assert_eq!(train["sizes"], serde_json::json!({ "height": [23, 61], "width": [2, 37] }));
    assert_eq!(train["samples"], 10);
    let shapes = server.get("/v1/datasets/shapes").json();
    assert_eq!(shapes["splits"]["train"]["images"], "decoded");
    assert_eq!(shapes["splits"]["train"]["shape"], serde_json::json!([32, 32, 3]));
    assert_eq!(shapes["eval_base"], "identity");

    for (split, rows) in [("train", 10), ("test", 12)] {
        let epoch = server.epoch(&format!("photos/epochs/0/batches?split={split}&schedule=cifar10-pba"));
        assert!(shape(&epoch).contains("[224,224,3]"), "{}", shape(&epoch));
        assert_eq!(epoch.indices().len(), rows);
        let base = about[if split == "train" { "base" } else { "eval_base" }].as_str().unwrap();
        let said =
            server.epoch(&format!("photos/epochs/0/batches?split={split}&schedule=cifar10-pba&base={base}"));
        assert!(said.bytes == epoch.bytes, "the default of {split} is not {base}");
        let preview = server.get(&format!("/v1/datasets/photos/epochs/0/preview.png?split={split}&n=5"));
        assert_eq!((preview.status, &preview.body[1..4]), (200, &b"PNG"[..]));
    }
    let list = server.pba(&["dataset", "list"]);
    assert!(
        list.stdout.contains("10, 12 of different sizes")
            || list.stdout.contains("12, 10 of different sizes"),
        "{}",
        list.stdout
    );
    let too_many =
        server.get("/v1/datasets/photos/epochs/0/preview.png?n=1024&base=random_resized_crop:1024");
    assert_eq!((too_many.status, too_many.problem().parameter.as_deref()), (400, Some("n")));
    server.assert_healthy();
}

#[test]
fn a_base_that_makes_no_batches_is_told_at_the_import_and_one_that_is_not_known_is_not_shown() {
    let (folder, data) = (photos(), pba_tests::server::data_folder());
    let broken = data.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    let config = data.path().join("photos.toml");
    let (photos, broken) = (folder.path().display(), broken.display());
    let text = format!(
        "[datasets]\nphotos = {{ path = \"{photos}\", base = \"flip\" }}\nbroken = {{ path = \"{broken}\" }}\n"
    );
    std::fs::write(&config, text).unwrap();
    let server = Server::start_on(std::sync::Arc::clone(&data), &["--config", config.to_str().unwrap()]);
    let is_told = || server.process.stderr().contains("its images differ in size").then_some(());
    pba_tests::wait_for("the log to tell of the base", is_told);
    assert_eq!(server.get("/v1/datasets/photos").json()["base"], "flip");
    let failed = server.get("/v1/datasets/broken").json();
    assert_eq!((&failed["state"], &failed["base"]), (&"failed".into(), &serde_json::Value::Null));
}

#[test]
fn the_same_bytes_however_they_are_made() {
    let folder = photos();
    let server = serve(&folder, &[]);
    let expected = server.epoch(REQUEST);
    // Again, from the cache now; and with other threads and caches: none, of a few images, of all.
    assert!(server.epoch(REQUEST).bytes == expected.bytes, "other bytes from the cache");
    for threads in ["1", "8"] {
        for cache in ["0", "3000", "100000000"] {
            let server = serve(&folder, &["--threads", threads, "--decoded-cache-bytes", cache]);
            for round in 0..3 {
                assert!(
                    server.epoch(REQUEST).bytes == expected.bytes,
                    "other bytes with {threads} threads and a cache of {cache} bytes in round {round}"
                );
            }
        }
    }
    for size in [1, 3, 10, 4096] {
        assert_eq!(server.epoch(&format!("{REQUEST}&batch_size={size}")).digest(), expected.digest());
    }
    let mut shards: Vec<Epoch> =
        (0..3).map(|shard| server.epoch(&format!("{REQUEST}&shard={shard}/3"))).collect();
    for (position, sample) in expected.samples().enumerate() {
        let shard = &mut shards[position % 3];
        assert!(shard.samples().nth(position / 3) == Some(sample), "position {position} of 3 shards");
    }
    let slice = server.epoch(&format!("{REQUEST}&batch_size=2&start=1&step=2"));
    let whole = server.epoch(&format!("{REQUEST}&batch_size=2"));
    assert_eq!(slice.digest(), epoch::digest(&[whole.batches[1].clone(), whole.batches[3].clone()]));
    let (data, dataset) = (server.data(), format!("photos={}", folder.path().display()));
    drop(server);
    let restarted = Server::start_on(data, &["--dataset", &dataset]);
    assert!(restarted.epoch(REQUEST).bytes == expected.bytes, "other bytes after a restart");
}

#[test]
fn a_parquet_file_of_the_same_images_is_the_same_dataset() {
    let folder = photos();
    let tables = tempfile::tempdir().unwrap();
    let images: Vec<Vec<u8>> = IMAGES.iter().map(|(_, name)| image(name)).collect();
    let words: ArrayRef = Arc::new(StringArray::from_iter_values(IMAGES.iter().map(|(class, _)| class)));
    parquet_files::write_columns(
        &tables.path().join("train.parquet"),
        [("image", parquet_files::image_column(&images)), ("label", words)],
    );
    let server = serve(&folder, &["--dataset", &format!("tables={}", tables.path().display())]);
    let digest =
        |name: &str| server.get(&format!("/v1/datasets/{name}")).json()["splits"]["train"]["digest"].clone();
    assert_eq!(digest("photos"), digest("tables"));
    let from_tables = server.epoch(&REQUEST.replace("photos", "tables"));
    assert!(server.epoch(REQUEST).bytes == from_tables.bytes);
}

#[test]
fn pixels_are_what_they_always_were() {
    let folder = photos();
    let server = serve(&folder, &[]);
    for (request, expected) in GOLDEN {
        let digest = server.epoch(request).digest();
        if std::env::var("PBA_GOLDEN").is_ok_and(|value| value == "print") {
            println!("    (\"{request}\", \"{digest}\"),");
        } else {
            assert_eq!(digest, expected, "{request}: see tests/golden.rs for what that means");
        }
    }
}

const GOLDEN: [(&str, &str); 3] = [
    (REQUEST, "cf46094ecebeaeac0494dedad9d49ea6ddf5f508960dfb79bb31f10b72f7ad31"),
    (
        "photos/epochs/3/batches?schedule=none",
        "159d49714e289f5b28bbad135614dcec290fc58b32f396660d42d0f2f94a4117",
    ),
    (
        "photos/epochs/0/batches?split=test",
        "dfde40acf82d3940604d4dc7f3bb38a2b6a40337993229fc7cd5e3156e9027ab",
    ),
];

#[test]
fn bases_that_leave_sizes_as_they_are_are_refused() {
    let folder = photos();
    let server = serve(&folder, &[]);
    for (query, value) in [
        ("base=identity", "identity"),
        ("schedule=identity", "identity"),
        ("split=test&base=identity", "identity"),
        ("base=pad_crop:4,flip", "pad_crop:4,flip"),
    ] {
        for page in ["batches", "preview.png"] {
            let answer = server.get(&format!("/v1/datasets/photos/epochs/0/{page}?{query}"));
            assert_eq!(answer.status, 400, "{}", answer.text());
            let problem = answer.problem();
            assert_eq!(problem.parameter.as_deref(), Some("base"), "{problem:?}");
            assert_eq!(problem.value.as_deref(), Some(value), "{problem:?}");
            assert!(problem.detail.contains("differ in size ("), "{problem:?}");
            assert!(problem.allowed.unwrap().contains("as r"), "an example is given");
        }
    }
    server.assert_healthy();
}

#[test]
fn images_of_one_size_may_be_framed_too() {
    let server = Server::start(&[]);
    let framed = |parameters: &str| {
        server.epoch(&format!("shapes/epochs/0/batches?split=test&shard=0/50&{parameters}"))
    };
    let epoch = framed("base=random_resized_crop:64,flip&schedule=cifar10-pba");
    assert!(shape(&epoch).contains("[64,64,3]"), "{}", shape(&epoch));
    assert_eq!(epoch.indices().len(), 40);
    // A crop of all, at the same size, is the image itself.
    let whole = framed("base=resize:32,center_crop:32");
    assert_eq!(whole.digest(), framed("base=identity").digest());
    assert_ne!(framed("base=resize:40,center_crop:32").digest(), whole.digest());
    let bound =
        server.get("/v1/datasets/shapes/epochs/0/batches?base=random_resized_crop:1024&batch_size=128");
    assert_eq!((bound.status, bound.problem().parameter.as_deref()), (400, Some("batch_size")));
}

#[test]
fn the_decoded_cache_is_bounded_and_counts() {
    let folder = photos();
    let metrics = |server: &Server| {
        ["bytes", "hits_total", "misses_total"]
            .map(|name| server.metric(&format!("pba_decoded_cache_{name}")) as u64)
    };
    let eval = "photos/epochs/0/batches?split=test";
    let server = serve(&folder, &[]);
    server.epoch(eval);
    let [bytes, hits, misses] = metrics(&server);
    assert_eq!((hits, misses), (0, 12));
    server.epoch(eval);
    assert_eq!(metrics(&server), [bytes, 12, 12], "all are there, and nothing is added");
    assert!(bytes > 10_000 && server.metric("pba_stage_duration_seconds_count{stage=\"decode\"}") == 2.0);

    let server = serve(&folder, &["--decoded-cache-bytes", "8000"]);
    for _ in 0..3 {
        server.epoch(eval);
    }
    let [bytes, hits, misses] = metrics(&server);
    assert!((1..=8000).contains(&bytes), "{bytes} bytes of 8000");
    assert_eq!(hits + misses, 36);
    assert!(hits > 0 && hits.is_multiple_of(2), "what is there stays there: {hits} hits in two epochs");

    let server = serve(&folder, &["--decoded-cache-bytes", "0"]);
    server.epoch(eval);
    server.epoch(eval);
    assert_eq!(metrics(&server), [0, 0, 24]);
    server.assert_healthy();
}

/// The packed file of a split.
fn packed(server: &Server, split: &str) -> PathBuf {
    let entries = |folder: &Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let folders = entries(&server.data().path().join("datasets")).filter(|folder| folder.is_dir());
    let file = format!("{split}.arrow");
    let mut files = folders.map(|folder| folder.join(&file)).filter(|file| {
        std::fs::read(file).is_ok_and(|bytes| {
            let jpeg = image("cmyk.jpg");
            bytes.windows(jpeg.len()).any(|window| window == jpeg)
        })
    });
    files.next().expect("the split is packed")
}

#[test]
fn an_image_damaged_after_packing_breaks_its_stream_visibly() {
    let folder = photos();
    let server = serve(&folder, &["--threads", "1"]);
    let file = packed(&server, "train");
    // Without it, the server cannot pack it again.
    drop(folder);
    let (mut bytes, jpeg) = (std::fs::read(&file).unwrap(), image("cmyk.jpg"));
    let place = bytes.windows(jpeg.len()).position(|window| window == jpeg).unwrap();
    bytes[place + 300..place + 600].fill(0xff);
    // In place: what is mapped is what is damaged. The sample is the ninth, by class and name.
    std::fs::write(&file, &bytes).unwrap();
    let target = "/v1/datasets/photos/epochs/0/batches?shuffle=false&batch_size=1";
    let answer = server.get(target);
    assert_eq!((answer.status, answer.complete), (200, false), "it must not look complete");
    pba_tests::wait_for("the log", || server.process.stderr().contains("stream aborted").then_some(()));
    for says in ["photos", "split train", "sample 8", "damaged", "train.arrow"] {
        assert!(server.process.stderr().contains(says), "{} does not say {says:?}", server.process.stderr());
    }
    assert_eq!(server.metric("pba_request_errors_total{kind=\"broken-stream\"}"), 1.0);
    let end = pba_tests::wait_for("how it ended", || {
        server.process.stderr().lines().find(|line| line.contains("stream ended")).map(str::to_owned)
    });
    assert!(end.contains("outcome=\"cut\"") && end.contains("reason=\"batch 8: "), "{end}");
    assert_eq!(server.metric("pba_stream_outcomes_total{dataset=\"photos\",outcome=\"cut\"}"), 1.0);
    let preview = server.get("/v1/datasets/photos/epochs/0/preview.png");
    assert_eq!(preview.status, 422);
    assert!(preview.problem().detail.contains("sample 8"), "{}", preview.text());
    // What does not need it is served: the batches around it, the other split.
    assert_eq!(
        server.epoch(&format!("{}&start=9", target.trim_start_matches("/v1/datasets/"))).indices(),
        [9]
    );
    assert_eq!(server.epoch("photos/epochs/0/batches?split=test").indices().len(), 12);
    server.assert_healthy();
}

#[test]
fn a_bad_image_is_named_by_its_file() {
    let folder = photos();
    std::fs::write(folder.path().join("test/grey/broken.jpg"), &image("gray.jpg")[..200]).unwrap();
    let server = serve(&folder, &[]);
    let answer = server.get("/v1/datasets/photos/epochs/0/batches?split=test");
    assert_eq!(answer.status, 422);
    assert!(
        answer.problem().detail.contains("test/grey/broken.jpg: image does not decode"),
        "{}",
        answer.text()
    );
    assert_eq!(server.epoch(REQUEST).indices().len(), 10);
    server.assert_healthy();
}

#[test]
fn a_search_is_refused_by_name() {
    let folder = photos();
    let server = serve(&folder, &[]);
    let answer = server.send("POST", "/v1/searches", br#"{"dataset": "photos", "model": "tiny"}"#);
    assert_eq!(answer.status, 400, "{}", answer.text());
    let problem = answer.problem();
    assert_eq!((problem.parameter.as_deref(), problem.value.as_deref()), (Some("dataset"), Some("photos")));
    assert!(problem.detail.contains("differ in size"), "{problem:?}");
}
