//! No client takes a wrong sample for a right one: whatever the wire does to a stream or a request, and however
//! two replicas differ.

use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use pba_client::{Client, ClientError, ClientOptions, EpochRequest, Query};
use pba_tests::{Server, epoch::digest, proxy};

const REQUEST: &str = "split=test&batch_size=50&schedule=cifar10-pba&seed=7&base=pad_crop:4,flip";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn request() -> EpochRequest {
    EpochRequest::from_query(REQUEST).unwrap()
}

/// All batches of an epoch from some replicas.
fn read(urls: &[String], options: &ClientOptions) -> Result<Vec<RecordBatch>, ClientError> {
    runtime().block_on(async {
        let client = Client::with_options(urls, options)?;
        let mut stream = client.epoch("shapes", 150, request()).await?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await? {
            batches.push(batch);
        }
        Ok(batches)
    })
}

#[test]
fn a_flipped_bit_anywhere_changes_no_sample() {
    let server = Server::start(&[]);
    let expected = server.epoch(&format!("shapes/epochs/150/batches?{REQUEST}")).digest();
    let bytes = server.epoch(&format!("shapes/epochs/150/batches?{REQUEST}")).bytes.len() as u64;
    // Close together in the heads, far apart in the bodies.
    let bits = (0..400).map(|n| n * 37).chain((1..60).map(|n| n * bytes * 8 / 60 + n));
    let (mut noticed, mut survived) = (0, 0);
    for bit in bits {
        let url = proxy::flipping(server.address(), [bit]);
        let options = ClientOptions { stall: std::time::Duration::from_secs(2), ..ClientOptions::default() };
        match read(&[url], &options) {
            Ok(batches) => {
                assert_eq!(digest(&batches), expected, "bit {bit}");
                survived += 1;
            }
            Err(error) => {
                assert!(!matches!(error, ClientError::Refused(_)), "bit {bit}: {error}");
                noticed += 1;
            }
        }
    }
    assert!(survived > 50, "a damaged batch is fetched again: {survived}, and {noticed} errors");
}

#[test]
fn unchecked_bytes_are_believed() {
    // That the checksum is what notices: the same damage passes without.
    let server = Server::start(&[]);
    let expected = server.epoch(&format!("shapes/epochs/150/batches?{REQUEST}")).digest();
    let url = || proxy::flipping(server.address(), [8 * 80_000]);
    let unchecked = ClientOptions { checksums: Some(false), ..ClientOptions::default() };
    assert_ne!(digest(&read(&[url()], &unchecked).unwrap()), expected);
    assert_eq!(digest(&read(&[url()], &ClientOptions::default()).unwrap()), expected);
}

#[test]
fn a_request_that_was_changed_on_its_way_is_noticed() {
    let server = Server::start(&[]);
    for (part, other) in [
        ("batch_size=50", "batch_size=58"),
        ("schedule=cifar10-pba", "schedule=svhn-pba"),
        ("pad_crop%3A4", "pad_crop%3A5"),
        ("split=test", "split=train"),
        ("seed=7", "seed=6"),
        ("epochs/150", "epochs/151"),
    ] {
        let url = proxy::rewriting(server.address(), part, other);
        let error = read(&[url], &ClientOptions::default()).unwrap_err();
        let is_noticed = matches!(error, ClientError::Changed { .. })
            || error.to_string().contains("answers another request than was sent");
        assert!(is_noticed, "{other}: {error}");
    }
}

/// A server of a packed dataset, with a configuration file of its own.
fn replica(packed: &Path, base: &str) -> Server {
    let data = pba_tests::server::data_folder();
    let config = data.path().join("replica.toml");
    let text = format!("[datasets.mine]\npath = {packed:?}\nbase = \"{base}\"\n");
    std::fs::write(&config, text).unwrap();
    Server::start_on(Arc::clone(&data), &["--config", config.to_str().unwrap()])
}

#[test]
fn replicas_with_other_configurations_are_not_mixed() {
    let first = Server::start(&[]);
    let packed = first.data().path().join("datasets");
    let packed =
        std::fs::read_dir(packed).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    let packed = packed.expect("the built-in dataset is packed");
    let replicas = ["pad_crop:4,flip", "pad_crop:2,flip"].map(|base| replica(&packed, base));
    let fields = |server: &Server| {
        let metadata = server.epoch("mine/epochs/3/batches?schedule=none").metadata;
        ["pba.dataset", "pba.schedule", "pba.recipe"].map(|key| metadata[key].clone())
    };
    let [one, other] = [fields(&replicas[0]), fields(&replicas[1])];
    assert_eq!(one[..2], other[..2]);
    assert_ne!(one[2], other[2], "the recipe covers the base");

    let cutting = proxy::CuttingProxy::start(replicas[0].address());
    cutting.plan([proxy::Cut { after: 2_000_000, reset: false }]);
    let urls = [cutting.url(), replicas[1].url()];
    let error = runtime().block_on(async {
        let client = Client::new(&urls).unwrap();
        let mut stream = client.epoch("mine", 3, EpochRequest::default()).await.unwrap();
        loop {
            match stream.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("two replicas were mixed"),
                Err(error) => break error,
            }
        }
    });
    assert!(matches!(&error, ClientError::Changed { key, .. } if key == "pba.recipe"), "{error}");
}

/// Golden digests and the version that streams tell of their pixels change together.
#[test]
fn other_pixels_have_another_version() {
    let is_golden =
        |line: &&str| line.contains("/epochs/") || line.trim().len() > 64 && line.ends_with("\",");
    let golden: String = include_str!("golden.rs").lines().filter(is_golden).collect();
    let digest = pba_schedules::Digest::of(golden).to_string();
    let known = [(1, "97b1914ab7c389e10ee1e1d2c2737284e3069f347bf023e74730d32a2ab8a8cf")];
    assert!(
        known.contains(&(pba_augment::PIXELS_VERSION, digest.as_str())),
        "golden digests have changed ({digest}): raise PIXELS_VERSION, and add a line here"
    );
}
