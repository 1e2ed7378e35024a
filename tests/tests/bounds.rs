//! What one client may take from the others: connections, time, and room.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use pba_tests::search::{Script, comparison, spec};
use pba_tests::{Answer, Download, Server, http, wait_for};
use serde_json::json;

/// What a client of this machine gets, by its address 127.0.0.N.
fn get(server: &Server, number: u8, target: &str) -> Answer {
    let from = Ipv4Addr::new(127, 0, 0, number).into();
    Download::open_narrow_from(from, server.address(), target).unwrap().finish()
}

#[test]
fn connections_are_bounded_and_who_is_refused_is_told() {
    let server = Server::start(&["--connections-max", "4"]);
    // None may be held for long without a request. One client may have three.
    let idle: Vec<_> = wait_for("three connections", || {
        let idle: Vec<_> = (0..5).map(|_| http::connect(server.address()).unwrap()).collect();
        let answer = get(&server, 1, "/v1/schedules");
        (answer.status == 503).then(|| {
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert!(answer.problem().detail.contains("this client has 3 connections"), "{}", answer.text());
            idle
        })
    });
    assert_eq!(get(&server, 2, "/v1/schedules").status, 200, "others have what is left");
    // Who watches the server is answered in any case.
    for probe in ["/livez", "/metrics"] {
        assert_eq!(get(&server, 1, probe).status, 200, "{probe}");
    }
    drop(idle);
    wait_for("a place", || (get(&server, 1, "/v1/schedules").status == 200).then_some(()));
    // Two clients have all.
    let taken: Vec<_> = wait_for("four connections", || {
        let from = |number| Ipv4Addr::new(127, 0, 0, number).into();
        let taken = [2, 2, 2, 3].map(|number| http::connect_from(from(number), server.address()).unwrap());
        let answer = get(&server, 4, "/v1/schedules");
        let is_full = answer.status == 503 && answer.problem().detail.contains("all 4 connections");
        is_full.then_some(taken.into())
    });
    for probe in ["/livez", "/metrics"] {
        assert_eq!(get(&server, 4, probe).status, 200, "{probe}");
    }
    assert_eq!(get(&server, 4, "/livez/more").status, 503);
    drop(taken);
    wait_for("a place", || (get(&server, 4, "/v1/schedules").status == 200).then_some(()));
    assert!(server.metric("pba_connections_refused_total") >= 2.0);
    server.assert_healthy();
}

/// A client that takes bytes all the time, and never a batch in time.
#[test]
fn who_takes_a_batch_byte_by_byte_is_cut_off() {
    let server = Server::start(&["--stall-seconds", "3"]);
    let mut sipping =
        Download::open_narrow(server.address(), "/v1/datasets/shapes/epochs/0/batches?batch_size=4096")
            .unwrap();
    assert_eq!(server.metric("pba_streams_active"), 1.0);
    wait_for("the end of the stream", || {
        sipping.sip(4096);
        std::thread::sleep(Duration::from_millis(200));
        (server.metric("pba_streams_active") == 0.0).then_some(())
    });
    // What the system has buffered still comes.
    assert!(!sipping.finish().complete);
    server.assert_healthy();
}

/// A trainer that saves its model, or evaluates it, between two batches.
#[test]
fn who_pauses_between_batches_is_not_cut_off() {
    let server = Server::start(&["--stall-seconds", "20"]);
    let target = "/v1/datasets/shapes/epochs/0/batches?batch_size=1000";
    let mut download = Download::open_narrow(server.address(), target).unwrap();
    let mut body = Vec::new();
    for _ in 0..3 {
        body.extend(download.sip(3_200_000));
        std::thread::sleep(Duration::from_secs(4));
    }
    let answer = download.finish();
    assert!(answer.complete);
    body.extend(answer.body);
    assert_eq!(pba_tests::Epoch::decode(body).indices().len(), 10_000);
    server.assert_healthy();
}

#[test]
fn a_body_comes_at_a_rate() {
    let server = Server::start(&[]);
    let mut slow = http::connect(server.address()).unwrap();
    let head = "PUT /v1/schedules/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n";
    slow.write_all(head.as_bytes()).unwrap();
    let mut reading = slow.try_clone().unwrap();
    let dripping = std::thread::spawn(move || {
        // Until the server has closed.
        while slow.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let mut answer = Vec::new();
    let _ = reading.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("1024 a second"), "{answer}");
    dripping.join().unwrap();
    // One that is too large is not even read.
    let head = b"PUT /v1/schedules/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000000\r\n\r\n";
    assert!(server.raw_open(&[head]).starts_with(b"HTTP/1.1 413 "));
    server.assert_healthy();
}

fn document(name: &str, provenance: &str) -> String {
    let pairs = ["[0,0]"; 30].join(",");
    format!(
        "{{\"format\":\"pba-schedule/1\",\"name\":{name:?},\"epochs\":3,\"ops\":[{}],\
         \"segments\":[{{\"epochs\":3,\"policy\":[{pairs}]}}],\"provenance\":{{\"notes\":{provenance:?}}}}}",
        pba_schedules::Op::PAPER.map(|op| format!("{:?}", op.name())).join(",")
    )
}

#[test]
fn schedules_are_bounded() {
    let server = Server::start(&["--schedules-max", "5", "--schedules-bytes-max", "2500000"]);
    let put = |name: &str, bytes: usize| {
        let document = document(name, &"x".repeat(bytes));
        server.send("PUT", &format!("/v1/schedules/{name}"), document.as_bytes())
    };
    let large = put("large", 15 << 20);
    assert_eq!(large.status, 413, "{}", large.text());
    assert!(large.problem().detail.contains("schedule_bytes_max"));
    assert_eq!(put("a", 1_000_000).status, 201);
    assert_eq!(put("b", 1_000_000).status, 201);
    let full = put("c", 1_000_000);
    assert_eq!((full.status, full.header("retry-after").is_some()), (429, true), "{}", full.text());
    assert!(full.problem().detail.contains("schedules_bytes_max"));
    for name in ["c", "d", "e"] {
        assert_eq!(put(name, 10).status, 201);
    }
    let full = put("f", 10);
    assert!(full.status == 429 && full.problem().detail.contains("schedules_max"), "{}", full.text());
    // A list says of each where it comes from, but not all of it.
    let list = server.get("/v1/schedules");
    assert!(list.body.len() < 20_000, "{} bytes", list.body.len());
    let kept = server.get("/v1/schedules/a");
    assert!(kept.body.len() > 1_000_000);
    assert_eq!(server.send("DELETE", "/v1/schedules/a", b"").status, 204);
    assert_eq!(put("f", 1_000_000).status, 201);
    server.assert_healthy();
}

#[test]
fn long_names_are_not_compared_and_not_repeated() {
    let server = Server::start(&[]);
    for number in 0..200 {
        let name = format!("{}-{number}", "x".repeat(60));
        let answer = server.send("PUT", &format!("/v1/schedules/{name}"), document(&name, "").as_bytes());
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let long = "x".repeat(60_000);
    for spec in [
        format!("{{\"dataset\": {long:?}}}"),
        format!("{{\"dataset\": \"shapes\", \"schedule\": {long:?}}}"),
        format!("{{{long:?}: 1}}"),
        format!("{{\"name\": {long:?}}}"),
        format!("{{\"base\": {long:?}}}"),
    ] {
        let answer = server.send("POST", "/v1/evaluations", spec.as_bytes());
        assert!([400, 404].contains(&answer.status), "{}", answer.text());
        assert!(answer.body.len() < 8000, "{} bytes are repeated: {}", answer.body.len(), answer.text());
        let value = answer.problem().value.unwrap_or_default();
        assert!(value.chars().count() < 300, "{value}");
    }
    let long = server.get(&format!("/v1/schedules/{}", "x".repeat(60_000)));
    assert_eq!((long.status, long.body.len() < 8000), (414, true), "{}", long.text());
    let headers = [("x-long", "x".repeat(40_000))];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = Download::open(server.address(), "GET", "/livez", &headers, b"").unwrap().finish();
    assert_eq!((answer.status, answer.problem().status), (431, 431));
    server.assert_healthy();
}

/// A comparison that was promised to a search has its place.
#[test]
fn promised_comparisons_are_counted() {
    let script = Script::idles();
    let server = Server::start(&["--trainer", script.path(), "--jobs-max", "2"]);
    let compare = |name: &str| {
        let spec = comparison(json!({ "name": name, "score": "val", "val_size": 64 })).to_string();
        server.send("POST", "/v1/comparisons", spec.as_bytes())
    };
    let search = |name: &str| {
        let spec = spec(json!({ "name": name, "then_compare": { "again": true } })).to_string();
        server.send("POST", "/v1/searches", spec.as_bytes())
    };
    let resume = || server.send("POST", "/v1/searches/first/resume", b"");
    let full = |answer: Answer| {
        assert_eq!(answer.status, 429, "{}", answer.text());
        let detail = answer.problem().detail;
        assert!(detail.contains("jobs_max") && detail.contains("to follow searches"), "{detail}");
    };
    assert_eq!([compare("one").status, search("first").status], [202; 2]);
    full(compare("two"));
    full(search("second"));
    assert_eq!(server.send("DELETE", "/v1/searches/first", b"").status, 200);
    assert_eq!(compare("two").status, 202);
    full(resume());
    for path in ["comparisons/two", "comparisons/two/remove"] {
        let method = if path.ends_with("remove") { "POST" } else { "DELETE" };
        assert_eq!(server.send(method, &format!("/v1/{path}"), b"").status, 200);
    }
    assert_eq!(resume().status, 202);
}

#[test]
fn jobs_are_bounded_and_who_removes_one_makes_room() {
    let script = Script::idles();
    let server = Server::start(&["--trainer", script.path(), "--jobs-max", "3"]);
    let start = |name: &str| {
        let spec = spec(json!({ "name": name })).to_string();
        server.send("POST", "/v1/searches", spec.as_bytes())
    };
    let post = |what: &str| server.send("POST", &format!("/v1/searches/{what}"), b"");
    for name in ["a", "b", "c"] {
        let started = start(name);
        assert_eq!(started.status, 202, "{}", started.text());
    }
    let full = || {
        let full = start("d");
        assert_eq!((full.status, full.header("retry-after").is_some()), (429, true), "{}", full.text());
        assert!(full.problem().detail.contains("jobs_max"), "{}", full.text());
    };
    full();
    // What waits or runs is not removed; what has ended is kept until it is.
    server.wait_for_state("a", "running");
    for name in ["a", "b"] {
        let refused = post(&format!("{name}/remove"));
        assert_eq!(refused.status, 409, "{}", refused.text());
        assert_eq!(server.send("DELETE", &format!("/v1/searches/{name}"), b"").status, 200);
    }
    full();
    let removed = post("a/remove");
    assert_eq!((removed.status, &removed.json()["state"]), (200, &json!("cancelled")), "{}", removed.text());
    assert_eq!(
        [server.get("/v1/searches/a").status, post("a/resume").status, post("a/remove").status],
        [404; 3]
    );
    let folders = || {
        let folders = std::fs::read_dir(server.data().path().join("searches")).unwrap();
        let mut names: Vec<_> = folders.map(|folder| folder.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(folders(), ["b", "c"]);
    // Its name is free.
    assert_eq!(start("a").status, 202);
    full();
    server.pba(&["search", "delete", "b"]).ok();
    assert_eq!(folders(), ["a", "c"]);
    assert_eq!(server.metric("pba_jobs{kind=\"search\",state=\"cancelled\"}"), 0.0);
    server.assert_healthy();
    // A server that was killed while it removed one, and a folder that is no job.
    let data = server.data();
    let searches = data.path().join("searches");
    std::fs::create_dir_all(searches.join(".removed-b/checkpoints")).unwrap();
    std::fs::create_dir(searches.join("e")).unwrap();
    let server = server.killed_and_restarted(script.path());
    assert!(!searches.join(".removed-b").exists() && searches.join("e").exists());
    let taken = server.send("POST", "/v1/searches", spec(json!({ "name": "e" })).to_string().as_bytes());
    assert_eq!(taken.status, 409, "{}", taken.text());
    assert_eq!(server.start_search(&spec(json!({ "name": "b" }))), "b");
}
