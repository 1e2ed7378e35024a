//! Servers beside the one that writes: what they show, what they leave alone, and how one of them takes over.

use std::path::Path;

use pba_tests::http::Download;
use pba_tests::search::{Script, spec};
use pba_tests::server::{Process, data_folder};
use pba_tests::slow_file::SlowFile;
use pba_tests::{Server, parquet_files, wait_for};
use serde_json::json;
use tempfile::TempDir;

const WRITER: &str = "pba_writer";

/// Bytes that a server has read from files and sockets.
fn bytes_read(server: &Server) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", server.process.id())).unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

fn folders(data: &Path) -> usize {
    std::fs::read_dir(data.join("datasets")).unwrap().count()
}

/// A dataset with images to train on, and how a server is told of it.
fn source() -> (TempDir, String) {
    let source = tempfile::tempdir().unwrap();
    parquet_files::write(&source.path().join("train.parquet"), &parquet_files::images(20));
    let dataset = format!("mine={}", source.path().display());
    (source, dataset)
}

/// Copies what a server has packed into the cache of another that has it not, as its writer would pack it.
fn pass_on(from: &Server, to: &Server) {
    let known = to.data().path().join("datasets");
    let packed = std::fs::read_dir(from.data().path().join("datasets")).unwrap().map(|entry| entry.unwrap());
    for new in packed.filter(|folder| !known.join(folder.file_name()).exists()) {
        let partly = known.join("partly");
        std::fs::create_dir(&partly).unwrap();
        for file in std::fs::read_dir(new.path()).unwrap().map(|file| file.unwrap()) {
            std::fs::copy(file.path(), partly.join(file.file_name())).unwrap();
        }
        std::fs::rename(&partly, known.join(new.file_name())).unwrap();
    }
}

#[test]
fn a_replica_becomes_the_writer_when_that_has_ended() {
    let script = Script::idles();
    let flags = ["--trainer", script.path()];
    let writer = Server::start(&flags);
    let id = writer.start_search(&spec(json!({})));
    writer.wait_for_state(&id, "running");
    let replica = Server::start_on(writer.data(), &flags);
    assert_eq!([&writer, &replica].map(|server| server.metric(WRITER)), [1.0, 0.0]);
    let document = replica.get("/v1/schedules/svhn-pba").text().replace("svhn-pba", "mine");
    let put = |server: &Server| server.send("PUT", "/v1/schedules/mine", document.as_bytes());
    let refused = put(&replica);
    assert_eq!((refused.status, refused.problem().detail.contains("another server uses")), (409, true));
    let events = replica.get(&format!("/v1/searches/{id}/events"));
    let detail = events.problem().detail;
    assert!(events.status == 409 && detail.contains("does not host the jobs"), "{detail}");
    drop(writer);
    wait_for("the replica to take over", || (replica.metric(WRITER) == 1.0).then_some(()));
    assert!(replica.process.stderr().contains("this one is the writer now"), "{}", replica.process.stderr());
    assert_eq!(put(&replica).status, 201);
    replica.wait_for_state(&id, "running");
    assert_eq!(replica.metric("pba_jobs{kind=\"search\",state=\"running\"}"), 1.0, "it hosts the search");
    let cancelled = replica.send("DELETE", &format!("/v1/searches/{id}"), b"");
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    // The next one is a replica again.
    let next = Server::start_on(replica.data(), &flags);
    assert_eq!((next.metric(WRITER), put(&next).status), (0.0, 409));
    replica.assert_healthy();
}

#[test]
fn a_replica_packs_nothing_until_it_is_the_writer() {
    let (_source, dataset) = source();
    let writer = Server::start(&[]);
    let before = folders(writer.data().path());
    let replica = Server::start_on(writer.data(), &["--dataset", &dataset]);
    let shown = || replica.get("/v1/datasets/mine").json();
    let (split, error) =
        (shown()["splits"]["train"].clone(), "the writer of the data directory has to pack it");
    assert!(split["error"].as_str().unwrap().contains(error), "{}", shown());
    assert_eq!(shown()["state"], "not-packed");
    let listed = replica.pba(&["dataset", "list"]);
    assert!(listed.stdout.contains("mine\tnot-packed\t"), "{}", listed.stdout);
    let target = "/v1/datasets/mine/epochs/0/batches?schedule=none";
    let refused = replica.get(target);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{}", refused.text());
    assert_eq!(folders(writer.data().path()), before, "a replica packs");
    drop(writer);
    wait_for("the dataset to be packed", || (shown()["state"] == "ready").then_some(()));
    assert_eq!(replica.get(target).status, 200);
    assert_eq!(folders(replica.data().path()), before + 1);
    replica.assert_healthy();
}

/// A replica that is importing when it becomes the writer does not keep what it has found as a replica.
#[test]
fn a_take_over_in_an_import_packs_what_is_missing() {
    let slow = SlowFile::create();
    parquet_files::write(&slow.path(), &parquet_files::images(20));
    let writer = Server::start(&[]);
    let dataset = format!("mine={}", slow.path().display());
    let mut command = Server::command(writer.data().path(), &["--dataset", &dataset]);
    slow.slow_down(&mut command);
    let (data, replica) = (writer.data(), Process::run(command));
    let line = replica.line().expect("the replica starts");
    let address = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
    let get = |target: &str| Download::open(address, "GET", target, &[], b"").unwrap().finish();
    let kind = || {
        let answer = get("/v1/datasets/mine/epochs/0/batches?schedule=none");
        (answer.status != 200).then(|| answer.problem().kind)
    };
    // It looks at the file while it is a replica.
    slow.wait();
    drop(writer);
    wait_for("the replica to take over", || {
        get("/metrics").text().lines().any(|line| line == "pba_writer 1").then_some(())
    });
    // It finds, as a replica, that nothing is packed. Then it looks at the file again, and packs it.
    slow.end();
    slow.wait();
    assert_eq!(kind().as_deref(), Some("urn:pba:problem:importing"));
    slow.end_all();
    wait_for("the dataset to be served", || kind().is_none().then_some(()));
    drop((replica, data));
}

#[test]
fn a_replica_serves_what_the_writer_has_packed_meanwhile() {
    let (_source, dataset) = source();
    let replica_of = Server::start(&[]);
    let replica = Server::start_on(replica_of.data(), &["--dataset", &dataset]);
    // Another server packs it, as the writer would, in a directory of its own.
    let other = Server::start(&["--dataset", &dataset]);
    pass_on(&other, &replica_of);
    let state = || replica.get("/v1/datasets/mine").json()["state"].clone();
    wait_for("the dataset to be served", || (state() == "ready").then_some(()));
    let target = "mine/epochs/0/batches?schedule=none";
    assert_eq!(replica.epoch(target).bytes, other.epoch(target).bytes);
    assert_eq!(replica.metric(WRITER), 0.0);
}

/// A split that the writer cannot read is none that clients should wait for, and one that comes later is served.
#[test]
fn a_split_that_is_not_packed_is_told_of_and_one_that_comes_later_is_served() {
    let (source, dataset) = source();
    std::fs::write(source.path().join("validation.parquet"), "no images").unwrap();
    let writer = Server::start(&["--dataset", &dataset]);
    let replica = Server::start_on(writer.data(), &["--dataset", &dataset]);
    let target = |split: &str| format!("/v1/datasets/mine/epochs/0/batches?schedule=none&split={split}");
    let answers = || [&writer, &replica].map(|server| server.get(&target("val")).problem().kind);
    assert_eq!(answers(), ["urn:pba:problem:broken-dataset", "urn:pba:problem:not-packed"]);
    parquet_files::write(&source.path().join("test.parquet"), &parquet_files::images(10));
    pass_on(&Server::start(&["--dataset", &dataset]), &writer);
    wait_for("the new split to be served", || (replica.get(&target("test")).status == 200).then_some(()));
    assert_eq!(replica.get(&target("train")).status, 200);
    replica.assert_healthy();
}

#[test]
fn a_replica_reads_again_what_has_changed() {
    let data = data_folder();
    for number in 0..100 {
        let name = format!("s{number}");
        let folder = data.path().join("searches").join(&name);
        std::fs::create_dir_all(&folder).unwrap();
        // What follows the object counts as white space.
        let entry = json!({
            "spec": spec(json!({ "name": name })), "source": "shapes", "created": 1, "state": "cancelled",
            "seconds": 0.0,
        });
        let text = format!("{entry}{}", " ".repeat(100_000));
        std::fs::write(folder.join("search.json"), text).unwrap();
    }
    let schedules = data.path().join("schedules");
    std::fs::create_dir_all(&schedules).unwrap();
    std::fs::write(schedules.join("large.json"), "x".repeat(10_000_000)).unwrap();
    let writer = Server::start_on(data, &[]);
    let replica = Server::start_on(writer.data(), &[]);
    let ask = || {
        assert_eq!(replica.get("/v1/searches/s7").status, 200);
        assert_eq!(replica.get("/v1/schedules/svhn-pba").status, 200);
    };
    ask();
    let before = bytes_read(&replica);
    (0..10).for_each(|_| ask());
    let read = bytes_read(&replica) - before;
    assert!(read < 5_000_000, "{read} bytes were read again of what has not changed");
    // What changes is seen.
    let removed = writer.send("POST", "/v1/searches/s7/remove", b"");
    assert_eq!((removed.status, replica.get("/v1/searches/s7").status), (200, 404), "{}", removed.text());
    let resumed = writer.send("POST", "/v1/searches/s8/resume", b"");
    let state = replica.search("s8")["state"].clone();
    assert!(resumed.status == 202 && state != "cancelled", "{}, {state}", resumed.text());
    let document = writer.get("/v1/schedules/svhn-pba").text().replace("svhn-pba", "large");
    std::fs::write(schedules.join("large.json"), document).unwrap();
    assert_eq!(replica.get("/v1/schedules/large").status, 200);
    replica.assert_healthy();
}
