//! What may ask a server: programs and its own pages, and no other page.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use pba_tests::server::{Process, data_folder};
use pba_tests::{Answer, Download, PATIENCE, Server, wait_for};

/// A spec that is refused for what it says: by a server that reads it.
const SPEC: &[u8] = b"{\"dataset\": \"nothing\"}";

#[track_caller]
fn ask(server: &Server, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let answer = Download::open(server.address(), method, target, headers, body);
    answer.expect("the server answers").finish()
}

#[track_caller]
fn forbidden(answer: &Answer, parameter: &str, value: &str) {
    assert_eq!(answer.status, 403, "{}", answer.text());
    let problem = answer.problem();
    assert_eq!(problem.parameter.as_deref(), Some(parameter), "{problem:?}");
    assert_eq!(problem.value.as_deref(), Some(value), "{problem:?}");
    assert!(problem.detail.contains(value) && problem.detail.contains("--hosts"), "{problem:?}");
}

#[test]
fn a_page_of_another_site_starts_nothing_and_reads_nothing() {
    let server = Server::start(&[]);
    let own = format!("http://{}", server.address());
    let host = server.address().to_string();
    let foreign = "https://evil.example";
    for (method, target) in [
        ("POST", "/v1/searches"),
        ("POST", "/v1/evaluations"),
        ("POST", "/v1/comparisons"),
        ("POST", "/v1/searches/x/resume"),
        ("POST", "/v1/searches/x/finish"),
        ("DELETE", "/v1/searches/x"),
        ("PUT", "/v1/schedules/x"),
        ("DELETE", "/v1/schedules/x"),
        ("POST", "/v1/apply"),
        ("GET", "/v1/datasets"),
        ("GET", "/v1/datasets/shapes/epochs/0/batches"),
        ("GET", "/metrics"),
        ("GET", "/nowhere"),
    ] {
        let ask = |headers: &[(&str, &str)]| ask(&server, method, target, headers, SPEC);
        forbidden(&ask(&[("host", &host), ("origin", foreign)]), "Origin", foreign);
        forbidden(&ask(&[("host", &host), ("origin", "null")]), "Origin", "null");
        // DNS rebinding: the page is of the same origin, as far as the browser knows.
        let rebound = [("host", "evil.example:8080"), ("origin", "http://evil.example:8080")];
        forbidden(&ask(&rebound), "Host", "evil.example");
        // A picture, a script, a frame.
        let site = [("host", host.as_str()), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")];
        forbidden(&ask(&site), "Sec-Fetch-Site", "cross-site");
    }
    assert_eq!(server.metric("pba_images_augmented_total{dataset=\"shapes\"}"), 0.0);
    assert!(server.metric("pba_request_errors_total{kind=\"forbidden\"}") >= 52.0);

    // The dashboard, which is opened by a link, and programs.
    let link =
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    assert_eq!(ask(&server, "GET", "/", &[&[("host", host.as_str())], &link[..]].concat(), b"").status, 200);
    let page = [("host", host.as_str()), ("origin", own.as_str()), ("sec-fetch-site", "same-origin")];
    assert_eq!(ask(&server, "GET", "/v1/datasets", &page, b"").status, 200);
    let refused = ask(&server, "POST", "/v1/searches", &page, SPEC);
    assert_eq!((refused.status, refused.problem().parameter.as_deref()), (404, Some("dataset")));
    assert_eq!(server.get("/v1/datasets").status, 200);
    server.assert_healthy();
}

#[test]
fn one_host_is_named() {
    let server = Server::start(&[]);
    let raw = |head: &str| String::from_utf8_lossy(&server.raw_open(&[head.as_bytes()])).into_owned();
    for (head, status) in [
        ("GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n", 400),
        ("GET /livez HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n", 400),
        ("GET /livez HTTP/1.1\r\nhost: localhost:x\r\nconnection: close\r\n\r\n", 400),
        ("GET http://evil.example/livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 403),
        ("GET http://localhost/livez HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n", 403),
        ("GET http://localhost/livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 200),
        ("GET /livez HTTP/1.0\r\n\r\n", 200),
    ] {
        let answer = raw(head);
        assert!(answer.split(' ').nth(1) == Some(&status.to_string()), "{head:?}: {answer}");
    }
}

#[test]
fn further_names_are_configured() {
    let server = Server::start(&["--hosts", "pba.example.org,.svc.cluster.local"]);
    for (host, status) in
        [("pba.example.org", 200), ("pba.team.svc.cluster.local:80", 200), ("example.org", 403), ("pba", 403)]
    {
        assert_eq!(ask(&server, "GET", "/livez", &[("host", host)], b"").status, status, "{host}");
    }
    // Behind a proxy that names itself, or not.
    for host in ["pba.example.org", "127.0.0.1"] {
        let headers = [("host", host), ("origin", "https://pba.example.org")];
        assert_eq!(ask(&server, "POST", "/v1/searches", &headers, SPEC).status, 404);
    }
}

#[test]
fn json_says_that_it_is() {
    let server = Server::start(&[]);
    for target in ["/v1/searches", "/v1/evaluations", "/v1/comparisons"] {
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
        {
            let answer = ask(&server, "POST", target, &[("content-type", kind)], SPEC);
            assert_eq!(answer.status, 415, "{kind}: {}", answer.text());
            let problem = answer.problem();
            assert_eq!(problem.allowed.as_deref(), Some("application/json"), "{problem:?}");
        }
        for kind in ["application/json", "Application/JSON; charset=utf-8"] {
            assert_eq!(ask(&server, "POST", target, &[("content-type", kind)], SPEC).status, 404, "{kind}");
        }
    }
}

#[test]
fn few_specs_are_checked_at_a_time() {
    let data = data_folder();
    let (trainer, log, go) = (data.path().join("trainer"), data.path().join("log"), data.path().join("go"));
    // Says when it begins and ends, and takes as long as the test wants.
    let script = format!(
        "#!/bin/sh\necho + >> {log}\nwhile [ ! -e {go} ]; do sleep 0.05; done\necho - >> {log}\nexit 1\n",
        log = log.display(),
        go = go.display()
    );
    std::fs::write(&trainer, script).unwrap();
    std::fs::set_permissions(&trainer, PermissionsExt::from_mode(0o755)).unwrap();
    let server = Server::start_on(Arc::clone(&data), &["--trainer", trainer.to_str().unwrap()]);
    let (send, answers) = std::sync::mpsc::channel();
    let address = server.address();
    for number in 0..60 {
        let send = send.clone();
        std::thread::spawn(move || {
            let spec = format!("{{\"name\": \"search-{number}\"}}");
            let answer = Download::open(address, "POST", "/v1/searches", &[], spec.as_bytes());
            // The test may have failed already.
            let _ = send.send(answer.expect("the server answers").finish());
        });
    }
    // All but a few are refused at once.
    for _ in 0..52 {
        let answer = answers.recv_timeout(PATIENCE).unwrap();
        assert_eq!(answer.status, 429, "{}", answer.text());
        assert!(answer.header("retry-after").is_some());
    }
    // Streams and pages do not mind.
    server.epoch("shapes/epochs/0/batches?split=test&shard=0/50");
    std::fs::write(&go, "").unwrap();
    for _ in 0..8 {
        // The trainer does not say why it ends, or the server did not wait so long.
        let status = answers.recv_timeout(PATIENCE).unwrap().status;
        assert!([429, 503].contains(&status), "{status}");
    }
    let (mut running, mut most) = (0, 0);
    for line in std::fs::read_to_string(&log).unwrap().lines() {
        running += if line == "+" { 1 } else { -1 };
        most = most.max(running);
    }
    assert!((1..=2).contains(&most), "{most} trainers ran at a time");
    server.assert_healthy();
}

/// The answer to a request through a Unix socket.
fn ask_local(socket: &Path, head: &str) -> String {
    let mut stream = wait_for("the socket", || UnixStream::connect(socket).ok());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_socket_is_its_owners_whatever_the_umask() {
    for (flags, mode) in [(&[][..], 0o600), (&["--socket-mode", "660"][..], 0o660)] {
        for umask in ["000", "077"] {
            let data = data_folder();
            let socket = data.path().join("pba.sock");
            let with_socket = [flags, &["--socket", socket.to_str().unwrap()]].concat();
            let served = Server::command(data.path(), &with_socket);
            let mut command = Command::new("sh");
            command.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]);
            command.arg(served.get_program()).args(served.get_args()).current_dir(data.path());
            let server = Server::of(Process::run(command), data);
            let found = socket.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "umask {umask}");
            // A path is no host: a program that may open it is on this machine.
            for (headers, status) in [
                ("", "200"),
                ("host: anything.example\r\n", "200"),
                ("host: localhost\r\norigin: http://evil.example\r\n", "403"),
            ] {
                let head = format!("GET /livez HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
                let answer = ask_local(&socket, &head);
                assert_eq!(answer.split(' ').nth(1), Some(status), "{headers:?}: {answer}");
            }
            server.assert_healthy();
        }
    }
}

/// What is compressed would be read as if it were not.
#[test]
fn bodies_come_as_they_are() {
    let server = Server::start(&[]);
    let json = ("content-type", "application/json");
    for coding in ["gzip", "br, gzip"] {
        let answer = ask(&server, "POST", "/v1/searches", &[json, ("content-encoding", coding)], SPEC);
        assert_eq!(answer.status, 415, "{coding}: {}", answer.text());
        let problem = answer.problem();
        assert_eq!(problem.parameter.as_deref(), Some("content-encoding"), "{problem:?}");
    }
    let plain = [json, ("content-encoding", "identity")];
    assert_eq!(ask(&server, "POST", "/v1/searches", &plain, SPEC).status, 404);
}
