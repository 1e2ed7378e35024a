//! A disk that takes its time, or never answers, stops no request that needs nothing of it.

use std::process::Command;
use std::sync::Arc;

use pba_tests::power_loss::is_possible;
use pba_tests::server::{Process, data_folder};
use pba_tests::{Answer, Download, Server, wait_for};
use tempfile::TempDir;

/// A schedule of one policy that changes nothing.
fn document(name: &str, epochs: u32) -> String {
    let pairs = ["[0,0]"; 30].join(",");
    format!(
        "{{\"format\":\"pba-schedule/1\",\"name\":{name:?},\"epochs\":{epochs},\"ops\":[{}],\
         \"segments\":[{{\"epochs\":{epochs},\"policy\":[{pairs}]}}],\"provenance\":{{}}}}",
        pba_schedules::Op::PAPER.map(|op| format!("{:?}", op.name())).join(",")
    )
}

/// A server whose `fsync` and `fdatasync` are tampered with, as `strace -e inject` does. The tracer is a
/// grandchild, so that the process is the server.
#[track_caller]
fn tampered(tampering: &str, data: Arc<TempDir>, flags: &[&str]) -> Server {
    // Its folders are there, which it would sync.
    drop(Server::start_on(Arc::clone(&data), &[]));
    let served = Server::command(data.path(), flags);
    let mut command = Command::new("strace");
    let inject = format!("inject=fsync,fdatasync:{tampering}");
    command.args(["-D", "-f", "-q", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", &inject]);
    command.arg(served.get_program()).args(served.get_args()).current_dir(data.path());
    for (name, value) in served.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Server::of(Process::run(command), data)
}

/// Begins to add a schedule, and returns when its file waits for the disk.
fn begin_to_add(server: &Server, name: &'static str) -> std::thread::JoinHandle<Answer> {
    let address = server.address();
    let adding = std::thread::spawn(move || {
        let target = format!("/v1/schedules/{name}");
        let body = document(name, 3);
        Download::open(address, "PUT", &target, &[], body.as_bytes()).expect("the server answers").finish()
    });
    let partial = server.data().path().join(format!("schedules/{name}.json.partial"));
    wait_for("the file", || partial.exists().then_some(()));
    adding
}

#[track_caller]
fn assert_serves(server: &Server) {
    assert_eq!(server.get("/livez").status, 200);
    assert_eq!(server.get("/readyz").status, 200);
    assert_eq!(server.get("/v1/schedules").status, 200);
    assert_eq!(server.get("/v1/schedules/svhn-pba").status, 200);
    assert_eq!(server.get("/v1/schedules/svhn-pba/plot.svg").status, 200);
    assert_eq!(server.get("/v1/searches").status, 200);
    assert_eq!(server.get("/v1/datasets").status, 200);
    let epoch = server.epoch("shapes/epochs/9/batches?split=test&shard=0/50&schedule=cifar10-pba");
    assert_eq!(epoch.indices().len(), 40);
}

#[test]
fn a_slow_disk_stops_nobody() {
    if !is_possible() {
        return;
    }
    // The file, then its folder and the folder's own name: at least 45 s until the first schedule is there.
    let server = tampered("delay_enter=15000000", data_folder(), &["--threads", "1"]);
    let adding = [begin_to_add(&server, "one"), begin_to_add_behind(&server, "two")];
    for _ in 0..3 {
        assert_serves(&server);
        // It is not there before it is there for good.
        assert_eq!(server.get("/v1/schedules/one").status, 404);
    }
    assert!(adding.iter().all(|adding| !adding.is_finished()), "a request waited for the disk");
    for (adding, name) in adding.into_iter().zip(["one", "two"]) {
        assert_eq!(adding.join().unwrap().status, 201);
        assert_eq!(server.get(&format!("/v1/schedules/{name}")).status, 200);
    }
}

/// Begins to add a schedule while another is being added.
fn begin_to_add_behind(server: &Server, name: &'static str) -> std::thread::JoinHandle<Answer> {
    let address = server.address();
    std::thread::spawn(move || {
        let target = format!("/v1/schedules/{name}");
        let body = document(name, 4);
        Download::open(address, "PUT", &target, &[], body.as_bytes()).expect("the server answers").finish()
    })
}

#[test]
fn a_disk_that_never_answers_does_not_keep_the_server_from_ending() {
    if !is_possible() {
        return;
    }
    let data = data_folder();
    // Not never, because the tracer keeps the thread for so long.
    let flags = ["--drain-seconds", "1"];
    let server = tampered("delay_enter=40000000", Arc::clone(&data), &flags);
    let adding = begin_to_add(&server, "one");
    assert_serves(&server);
    server.process.signal("TERM");
    server.process.wait_for_exit();
    // It did not wait for the file to be synced, and has acknowledged nothing.
    assert!(!data.path().join("schedules/one.json").exists());
    assert!(adding.join().is_err(), "the schedule was acknowledged");
}

#[test]
fn what_the_disk_refuses_has_not_happened() {
    if !is_possible() {
        return;
    }
    for (error, status) in [("ENOSPC", 507), ("EIO", 500)] {
        // The first sync is that of the file, the second that of its folder, the third that of the folder's name,
        // once in a process.
        for when in ["1", "2", "3"] {
            let data = data_folder();
            let server = tampered(&format!("error={error}:when={when}"), Arc::clone(&data), &[]);
            let put = || server.send("PUT", "/v1/schedules/mine", document("mine", 3).as_bytes());
            let answer = put();
            assert_eq!(answer.status, status, "{error} {when}: {}", answer.text());
            assert!(answer.problem().detail.contains("mine.json"), "{}", answer.text());
            assert_eq!(server.get("/v1/schedules/mine").status, 404);
            let left: Vec<_> = data.path().join("schedules").read_dir().unwrap().collect();
            assert!(left.is_empty(), "{left:?}");
            // The disk has room again.
            assert_eq!(put().status, 201);
            assert_eq!(server.get("/v1/schedules/mine").status, 200);
            assert_serves(&server);
        }
    }
    // A removal that may be undone by a power failure has not happened either.
    let data = data_folder();
    let adds = Server::start_on(Arc::clone(&data), &[]);
    assert_eq!(adds.send("PUT", "/v1/schedules/mine", document("mine", 3).as_bytes()).status, 201);
    drop(adds);
    let server = tampered("error=EIO:when=1", data, &[]);
    assert_eq!(server.send("DELETE", "/v1/schedules/mine", b"").status, 500);
    assert_eq!(server.get("/v1/schedules/mine").status, 200);
    assert!(server.data().path().join("schedules/mine.json").exists());
    assert_eq!(server.send("DELETE", "/v1/schedules/mine", b"").status, 204);
    assert_eq!(server.get("/v1/schedules/mine").status, 404);
    server.assert_healthy();
}
