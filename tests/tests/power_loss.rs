//! A power failure at any moment loses nothing that was acknowledged, and changes no result.
//!
//! A server is used, and everything that it and its trainer do to files is traced. Servers are then started on what
//! some of the power failures on the way would have left.

use std::sync::Arc;

use pba_tests::Server;
use pba_tests::power_loss::{Crash, Loss, Trace, is_possible};
use pba_tests::search::{Script, spec, trainer};
use pba_tests::server::data_folder;
use serde_json::json;
use tempfile::TempDir;

/// Names in a data directory that are the same throughout.
const DATASETS: &str = "datasets";

/// A server on what a power failure left, with the datasets of any other.
fn server_after(crash: &Crash<'_>, loss: Loss, trainer: &str) -> Server {
    let data = data_folder();
    crash.write(data.path(), loss);
    Server::start_on(data, &["--trainer", trainer])
}

/// Uses a server while it is traced; gives the trace.
fn traced(trainer: &str, flags: &[&str], work: impl FnOnce(&Server)) -> (Trace, Arc<TempDir>) {
    let data = data_folder();
    let file = TempDir::new().unwrap();
    let trace = file.path().join("trace");
    let before = Trace::begin(data.path(), &[DATASETS, "lock"]);
    let command = Server::command(data.path(), &[&["--trainer", trainer], flags].concat());
    let mut server = Server::run(Trace::command(&command, &trace), Arc::clone(&data));
    work(&server);
    server.process.signal("TERM");
    server.process.wait();
    let trace = before.read(&trace);
    trace.check(data.path());
    (trace, data)
}

/// Some of many, evenly.
fn some<T>(all: Vec<T>, count: usize) -> Vec<T> {
    let step = all.len().div_ceil(count).max(1);
    all.into_iter().rev().step_by(step).collect()
}

/// The policy of a schedule, and what it is called in the answers.
fn schedule() -> Vec<u8> {
    let server = Server::start(&[]);
    let mut document = server.get("/v1/schedules/cifar10-pba").json();
    document["name"] = "mine".into();
    document.to_string().into_bytes()
}

#[test]
fn what_was_acknowledged_is_there() {
    if !is_possible() {
        return;
    }
    let script = Script::idles();
    let body = schedule();
    let (trace, _data) = traced(script.path(), &[], |server| {
        let send = |method: &str, target: &str, body: &[u8], status: u16| {
            let answer = server.send(method, target, body);
            assert_eq!(answer.status, status, "{}", answer.text());
        };
        for name in ["first", "second", "third"] {
            server.start_search(&spec(json!({ "name": name })));
        }
        send("PUT", "/v1/schedules/mine", &body, 201);
        send("PUT", "/v1/schedules/yours", &body, 201);
        server.wait_for_state("first", "running");
        send("DELETE", "/v1/searches/second", b"", 200);
        send("POST", "/v1/searches/third/finish", b"", 202);
        send("DELETE", "/v1/searches/first", b"", 200);
        send("DELETE", "/v1/schedules/mine", b"", 204);
        send("POST", "/v1/searches/second/resume", b"", 202);
    });
    let crashes: Vec<_> = trace.crashes().collect();
    assert!(crashes.len() > 60, "{}", crashes.len());
    assert!(crashes.last().unwrap().sent("HTTP/1.1 204"), "answers are in the trace");
    let mut acknowledged = [0; 4];
    for crash in some(crashes, 24) {
        for loss in [Loss::Everything, Loss::Contents] {
            let server = server_after(&crash, loss, "/nowhere");
            let what = format!("step {}, after {}, {loss:?} lost", crash.step, crash.after);
            let is_there = |target: &str| server.get(target).status == 200;
            for name in ["first", "second", "third"] {
                if crash.sent(&format!("location: /v1/searches/{name}\r\n")) {
                    assert!(is_there(&format!("/v1/searches/{name}")), "{name} is lost: {what}");
                    acknowledged[0] += 1;
                }
            }
            let state = |name: &str| server.search(name)["state"].as_str().unwrap().to_owned();
            // The answers to a cancellation are the first that say so.
            if crash.sent("\"id\":\"first\",\"state\":\"cancelled\"") {
                assert_eq!(state("first"), "cancelled", "{what}");
                acknowledged[1] += 1;
            }
            let is_resumed = crash.sent("HTTP/1.1 204");
            if crash.sent("\"id\":\"second\",\"state\":\"cancelled\"") && !is_resumed {
                assert_eq!(state("second"), "cancelled", "{what}");
                acknowledged[2] += 1;
            }
            if crash.sent("\"finishing\":true") {
                assert_eq!(server.search("third")["finishing"], true, "{what}");
            }
            if crash.sent("\"name\":\"yours\"") {
                assert!(is_there("/v1/schedules/yours"), "{what}");
                acknowledged[3] += 1;
            }
            if is_resumed {
                assert!(!is_there("/v1/schedules/mine"), "{what}");
            }
        }
    }
    assert!(acknowledged.iter().all(|&count| count > 0), "{acknowledged:?}");
}

/// The server that created the folders was killed before they were on disk; a server that finds them there adds to them.
#[test]
fn folders_that_a_killed_process_left_are_there_with_what_is_in_them() {
    if !is_possible() {
        return;
    }
    let (data, script, body) = (data_folder(), Script::idles(), schedule());
    let file = TempDir::new().unwrap();
    let [created, used] = ["created", "used"].map(|name| file.path().join(name));
    let before = Trace::begin(data.path(), &[DATASETS, "lock"]);
    let mut create = std::process::Command::new("mkdir");
    create.args(["schedules", "searches", "evaluations", "comparisons"].map(|name| data.path().join(name)));
    assert!(Trace::command(&create, &created).status().unwrap().success());
    let before = before.read(&created);
    let command = Server::command(data.path(), &["--trainer", script.path()]);
    let mut server = Server::run(Trace::command(&command, &used), Arc::clone(&data));
    server.start_search(&spec(json!({ "name": "first" })));
    assert_eq!(server.send("PUT", "/v1/schedules/mine", &body).status, 201);
    server.process.signal("TERM");
    server.process.wait();
    let trace = before.read(&used);
    trace.check(data.path());
    let mut acknowledged = 0;
    for crash in trace.crashes() {
        let left = crash.left(Loss::Everything);
        let sent = ["location: /v1/searches/first\r\n", "\"name\":\"mine\""].map(|text| crash.sent(text));
        for (sent, path) in sent.into_iter().zip(["searches/first/search.json", "schedules/mine.json"]) {
            assert!(!sent || left.contains_key(std::path::Path::new(path)), "{path}, after {}", crash.after);
            acknowledged += usize::from(sent);
        }
    }
    assert!(acknowledged > 2, "{acknowledged}");
}

#[test]
fn a_search_ends_as_if_nothing_had_happened() {
    let Some(trainer) = trainer() else { return };
    if !is_possible() {
        return;
    }
    let spec = spec(json!({ "epochs": 6 }));
    let (trace, data) = traced(&trainer, &["--save-seconds", "0"], |server| {
        let id = server.start_search(&spec);
        server.wait_for_state(&id, "done");
    });
    let undisturbed = Server::start_on(data, &["--trainer", &trainer]);
    let (journal, done) = (undisturbed.journal("small"), undisturbed.search("small"));
    let learned = undisturbed.get("/v1/schedules/small").text();
    let crashes: Vec<_> =
        trace.crashes().filter(|crash| crash.sent("location: /v1/searches/small\r\n")).collect();
    assert!(crashes.len() > 50, "{}", crashes.len());
    for (at, crash) in some(crashes, 8).into_iter().enumerate() {
        let loss = if at % 2 == 0 { Loss::Everything } else { Loss::Contents };
        let server = server_after(&crash, loss, &trainer);
        let what = format!("step {}, after {}, {loss:?} lost", crash.step, crash.after);
        let mut again = server.wait_for_state("small", "done");
        for field in ["seconds", "place"] {
            again[field] = done[field].clone();
        }
        assert_eq!(again, done, "{what}");
        assert_eq!(server.journal("small"), journal, "{what}");
        assert_eq!(server.get("/v1/schedules/small").text(), learned, "{what}");
    }
}
