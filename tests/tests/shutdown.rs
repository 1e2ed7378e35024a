//! How servers end: in good order, or visibly.

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pba_tests::search::{Script, spec};
use pba_tests::server::{Process, data_folder, empty_data_folder};
use pba_tests::{Download, Epoch, Server, wait_for};

const EPOCH: &str = "/v1/datasets/shapes/epochs/0/batches?schedule=cifar10-pba";

/// The running stream comes whole, and nothing new begins.
#[track_caller]
fn drains(signal: &str) {
    let mut server = Server::start(&[]);
    let running = Download::open_narrow(server.address(), EPOCH).unwrap();
    server.process.signal(signal);
    wait_for("the server to drain", || (server.get("/readyz").status == 503).then_some(()));
    assert_eq!(server.get("/livez").status, 200);
    let refused = server.get(EPOCH);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.problem().detail.contains("shutting down"));
    assert_eq!(server.metric("pba_streams_active"), 1.0);
    assert!(server.process.is_running());
    let answer = running.finish();
    assert!(answer.complete, "a stream that ran when {signal} came was cut");
    assert_eq!(Epoch::decode(answer.body).indices().len(), 10_000);
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn sigterm_drains() {
    drains("TERM");
}

#[test]
fn ctrl_c_drains() {
    drains("INT");
}

#[test]
fn an_idle_server_ends_at_once() {
    let mut server = Server::start(&["--drain-seconds", "3600"]);
    let _idle = pba_tests::http::connect(server.address()).unwrap();
    server.process.signal("TERM");
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn after_the_drain_time_streams_are_cut_visibly() {
    for seconds in ["0", "1"] {
        let mut server = Server::start(&["--drain-seconds", seconds]);
        let streams: Vec<Download> =
            (0..3).map(|_| Download::open_narrow(server.address(), EPOCH).unwrap()).collect();
        server.process.signal("TERM");
        assert_eq!(server.process.wait().code(), Some(0), "{}", server.process.stderr());
        for stream in streams {
            let answer = stream.finish();
            assert!(!answer.complete, "a cut stream looks complete");
            assert!(!answer.body.ends_with(&pba_tests::epoch::END_OF_STREAM));
        }
        assert!(server.process.stderr().contains("streams cut"));
    }
}

/// With the exit code of the second signal, whichever came first.
#[test]
fn a_second_signal_ends_at_once() {
    for (first, second, code) in
        [("TERM", "TERM", 143), ("INT", "INT", 130), ("INT", "TERM", 143), ("TERM", "INT", 130)]
    {
        let mut server = Server::start(&["--drain-seconds", "3600"]);
        let _stream = Download::open_narrow(server.address(), EPOCH).unwrap();
        server.process.signal(first);
        wait_for("the server to drain", || (server.get("/readyz").status == 503).then_some(()));
        server.process.signal(second);
        assert_eq!(server.process.wait().code(), Some(code), "{first}, then {second}");
    }
}

/// Load balancers need time to notice that a server is not ready.
#[test]
fn until_load_balancers_have_noticed_streams_are_taken() {
    let script = Script::idles();
    let mut server = Server::start(&["--drain-delay-seconds", "3600", "--trainer", script.path()]);
    server.process.signal("TERM");
    let unready = || {
        let answer = server.get("/readyz");
        (answer.status == 503).then_some(answer)
    };
    let answer = wait_for("the server to be unready", unready);
    assert_eq!(answer.problem().kind, "urn:pba:problem:draining");
    assert_eq!((server.metric("pba_ready"), server.get("/livez").status), (0.0, 200));
    assert_eq!(server.epoch("shapes/epochs/0/batches?split=test&shard=0/50").indices().len(), 40);
    // What would take longer is not begun.
    let search = server.send("POST", "/v1/searches", spec(serde_json::json!({})).to_string().as_bytes());
    assert_eq!((search.status, search.problem().kind.as_str()), (503, "urn:pba:problem:draining"));
    server.process.signal("TERM");
    assert_eq!(server.process.wait().code(), Some(143));
}

#[test]
fn after_the_delay_streams_are_refused() {
    let mut server = Server::start(&["--drain-delay-seconds", "1", "--drain-seconds", "3600"]);
    let running = Download::open_narrow(server.address(), EPOCH).unwrap();
    server.process.signal("TERM");
    let target = "/v1/datasets/shapes/epochs/0/batches?split=test&shard=0/50";
    wait_for("new streams to be refused", || (server.get(target).status == 503).then_some(()));
    assert!(running.finish().complete);
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn ctrl_c_does_not_wait_for_load_balancers() {
    let mut server = Server::start(&["--drain-delay-seconds", "3600"]);
    server.process.signal("INT");
    assert_eq!(server.process.wait().code(), Some(0));
}

/// A trainer that does not end takes no longer than the rest may.
#[test]
fn a_trainer_is_told_at_once() {
    let script = Script::trains(r#"trap 'touch "$here/told"; exit 3' TERM; touch "$here/begun"; idle"#);
    let mut server = Server::start(&["--drain-delay-seconds", "3600", "--trainer", script.path()]);
    let id = server.start_search(&spec(serde_json::json!({})));
    wait_for("the trainer to begin", || script.file("begun").exists().then_some(()));
    server.process.signal("TERM");
    wait_for("the trainer to be told", || script.file("told").exists().then_some(()));
    server.wait_for_state(&id, "queued");
    server.process.signal("TERM");
    assert_eq!(server.process.wait().code(), Some(143));
}

#[test]
fn systemd_is_told_when_the_server_listens_and_when_it_ends() {
    let data = data_folder();
    let socket = data.path().join("notify");
    let notified = UnixDatagram::bind(&socket).unwrap();
    notified.set_read_timeout(Some(pba_tests::PATIENCE)).unwrap();
    let mut command = Server::command(data.path(), &[]);
    command.env("NOTIFY_SOCKET", &socket);
    let mut server = Server::run(command, data);
    let next = || {
        let mut bytes = [0; 256];
        let count = notified.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).trim_end().to_owned()
    };
    assert_eq!(next(), "READY=1");
    server.process.signal("TERM");
    assert_eq!(next(), "STOPPING=1");
    assert_eq!(server.process.wait().code(), Some(0));
}

fn demo(directory: &Path, flags: &[&str]) -> Process {
    let fixed = ["demo", "--data-dir", directory.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    Process::start(directory, &[&fixed, flags].concat())
}

#[test]
fn the_demo_once() {
    let data = data_folder();
    let mut demo = demo(data.path(), &["--once", "--sheet", "sheet.png"]);
    let lines: Vec<String> = std::iter::from_fn(|| demo.line()).collect();
    assert_eq!(demo.wait().code(), Some(0), "{}", demo.stderr());
    assert!(lines[0].starts_with("listening on http://127.0.0.1:"), "{lines:?}");
    let text = lines.join("\n");
    for says in ["10000 images in 79 batches", "images/s", "contact sheet: sheet.png"] {
        assert!(text.contains(says), "{text} does not say {says:?}");
    }
    let sheet = std::fs::read(data.path().join("sheet.png")).unwrap();
    assert!(sheet.starts_with(b"\x89PNG"));
}

#[test]
fn the_demo_until_ctrl_c() {
    let data = data_folder();
    let mut demo = demo(data.path(), &[]);
    let dashboard = loop {
        let line = demo.line().unwrap_or_else(|| panic!("the demo ended: {}", demo.stderr()));
        if let Some(url) = line.strip_prefix("dashboard: http://") {
            break url.trim_end_matches('/').parse().unwrap();
        }
    };
    let page = Download::open(dashboard, "GET", "/", &[], b"").unwrap().finish();
    assert!(page.text().contains("<html"), "{}", page.text());
    assert!(data.path().join("contact-sheet.png").exists());
    demo.signal("INT");
    assert_eq!(demo.wait().code(), Some(0), "{}", demo.stderr());
}

#[test]
fn ctrl_c_at_any_moment_of_the_demo() {
    let data = data_folder();
    // After the first line, after the second, ...
    for lines in 1..=4 {
        let mut demo = demo(data.path(), &[]);
        for _ in 0..lines {
            demo.line().unwrap();
        }
        demo.signal("INT");
        assert_eq!(demo.wait().code(), Some(0), "after {lines} lines: {}", demo.stderr());
    }
}

/// Files below a folder that are not empty.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn an_import_survives_being_killed() {
    let expected = Server::start(&[]).get("/v1/datasets/shapes").json();
    let data = empty_data_folder();
    let datasets = data.path().join("datasets");
    let is_done = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "arrow");
    // Killed when the first file has been begun, and again when it is done and the second is not.
    for (what, done) in [("the first file to be begun", 0), ("the first file to be done", 1)] {
        let mut process = Server::spawn(data.path(), &[]);
        wait_for(what, || {
            let files = files(&datasets);
            (!files.is_empty() && files.iter().filter(|path| is_done(path)).count() >= done).then_some(())
        });
        process.signal("KILL");
        assert_eq!(process.wait().signal(), Some(9));
    }
    let server = Server::start_on(Arc::clone(&data), &[]);
    assert_eq!(server.get("/v1/datasets/shapes").json(), expected);
    server.assert_healthy();
}

#[test]
fn schedules_survive_being_killed() {
    let server = Server::start(&[]);
    let body = server.get("/v1/schedules/svhn-pba").body;
    assert_eq!(server.send("PUT", "/v1/schedules/mine", &body).status, 201);
    let (mut server, data) = {
        let data = server.data();
        (server, data)
    };
    server.process.signal("KILL");
    server.process.wait();
    let server = Server::start_on(data, &[]);
    assert_eq!(
        server.get("/v1/schedules/mine").header("etag").map(str::to_owned),
        server.get("/v1/schedules/svhn-pba").header("etag").map(str::to_owned)
    );
    assert_eq!(server.send("DELETE", "/v1/schedules/mine", b"").status, 204);
}

/// As the first process of a container it would not hear a signal that it does not handle.
#[test]
fn a_signal_ends_a_server_that_is_still_starting() {
    let holder = Server::start(&[]);
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        // It waits a while for the one that writes there.
        let mut second = Server::spawn(holder.data().path(), &[]);
        let status = format!("/proc/{}/status", second.id());
        wait_for("it to handle signals", || {
            let status = std::fs::read_to_string(&status).ok()?;
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
            let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
            // SIGINT and SIGTERM.
            (caught >> 1 & 1 == 1 && caught >> 14 & 1 == 1).then_some(())
        });
        second.signal(signal);
        assert_eq!(second.wait().code(), Some(code), "{}", second.stderr());
        assert!(second.stderr().contains("before the server had started"), "{}", second.stderr());
    }
    holder.assert_healthy();
}
