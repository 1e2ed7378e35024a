//! Imports beside other servers, and of sources that change.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pba_tests::{Server, parquet_files, wait_for};

#[test]
fn only_the_writer_removes_what_killed_servers_left() {
    let writer = Server::start(&[]);
    let folder = writer.data().path().join("datasets/key");
    std::fs::create_dir(&folder).unwrap();
    let left = folder.join(".packing-left");
    let file = File::create(&left).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(24 * 3600)).unwrap();
    let replica = Server::start_on(writer.data(), &[]);
    assert!(replica.process.stderr().contains("another server"), "{}", replica.process.stderr());
    assert!(left.exists(), "the replica removed what may be the writer's");
    let data = writer.data();
    drop((replica, writer));
    let writer = Server::start_on(data, &[]);
    wait_for("the file to be removed", || (!left.exists()).then_some(()));
    writer.assert_healthy();
}

#[test]
fn a_source_that_is_edited_without_a_trace_is_imported_again() {
    let source = tempfile::tempdir().unwrap();
    let path = source.path().join("train.parquet");
    let dataset = format!("mine={}", source.path().display());
    // Pictures of one length, so that the files have one, too.
    let images = |seed: u32| {
        let mut images = parquet_files::images(20);
        images[7] = parquet_files::png(32, 32, 1000 + seed);
        images
    };
    parquet_files::write(&path, &images(0));
    let (length, modified) = {
        let found = path.metadata().unwrap();
        (found.len(), found.modified().unwrap())
    };
    let server = Server::start(&["--dataset", &dataset]);
    let data = server.data();
    let before = server.epoch("mine/epochs/0/batches?schedule=identity").by_index()[&7].1.to_vec();
    drop(server);
    let other = tempfile::tempdir().unwrap();
    let edited = (1..200).find_map(|seed| {
        let file = other.path().join("train.parquet");
        parquet_files::write(&file, &images(seed));
        Some(std::fs::read(file).unwrap()).filter(|bytes| bytes.len() as u64 == length)
    });
    // In place, with the time put back.
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(&edited.expect("a file of the same length")).unwrap();
    file.set_modified(modified).unwrap();
    drop(file);
    let found = path.metadata().unwrap();
    assert_eq!((found.len(), found.modified().unwrap()), (length, modified));
    let server = Server::start_on(Arc::clone(&data), &["--dataset", &dataset]);
    let after = server.epoch("mine/epochs/0/batches?schedule=identity").by_index()[&7].1.to_vec();
    assert_ne!(after, before, "the edit was not noticed");
    server.assert_healthy();
}
