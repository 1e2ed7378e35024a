//! What the log says: one line for each stream, ids by which requests are found, and JSON if JSON is asked for.

use std::process::Command;
use std::sync::Arc;

use pba_client::{Client, EpochRequest, Query as _};
use pba_tests::log::{lines, with_message};
use pba_tests::search::{Script, spec};
use pba_tests::server::{Process, data_folder};
use pba_tests::{Download, Server, binary, pba, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

const STREAM: &str = "/v1/datasets/shapes/epochs/3/batches?schedule=cifar10-pba";
const ENDED: &str = "stream ended";
const ID: &str = "x-request-id";

fn command(data: &TempDir, flags: &[&str]) -> Command {
    let mut command = Server::command(data.path(), flags);
    command.env("PBA_LOG_FORMAT", "json");
    command
}

/// A server whose log is JSON.
#[track_caller]
fn server(flags: &[&str]) -> Server {
    let data = data_folder();
    Server::run(command(&data, flags), data)
}

/// The one line of the one stream that a server had.
#[track_caller]
fn end(server: &Server) -> Value {
    with_message(&server.process, ENDED, 1).remove(0)["fields"].take()
}

#[test]
fn a_stream_that_is_completed() {
    let server = server(&[]);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers = [(ID, "run-7"), ("traceparent", &*parent)];
    let epoch = server.epoch_with(STREAM.trim_start_matches("/v1/datasets/"), &headers);
    let end = end(&server);
    let expected = json!({
        "outcome": "completed", "request": "run-7", "trace": trace, "dataset": "shapes", "split": "train",
        "schedule": "cifar10-pba", "epoch": 3, "shard": "0/1", "batches_sent": 79, "batches": 79, "rows": 10_000,
        "bytes": epoch.bytes.len(),
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&end[key], value, "{key}");
    }
    assert!(end["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{end}");
    for time in ["seconds", "client_wait_seconds", "backpressure_seconds"] {
        assert!(end[time].is_f64(), "{end} has no {time}");
    }
    assert!(end.get("reason").is_none() && end.get("token").is_none(), "{end}");
    assert_eq!(server.metric("pba_stream_outcomes_total{dataset=\"shapes\",outcome=\"completed\"}"), 1.0);
}

#[test]
fn a_stream_whose_client_leaves() {
    let server = server(&[]);
    drop(Download::open_narrow(server.address(), STREAM).unwrap());
    let end = end(&server);
    assert_eq!((&end["outcome"], &end["reason"]), (&json!("left"), &Value::Null));
    assert!(end["batches_sent"].as_u64() < end["batches"].as_u64(), "{end}");
    assert_eq!(server.metric("pba_stream_outcomes_total{dataset=\"shapes\",outcome=\"left\"}"), 1.0);
}

#[test]
fn a_stream_whose_client_stalls() {
    let server = server(&["--stall-seconds", "1"]);
    let stalled = Download::open_narrow(server.address(), &format!("{STREAM}&batch_size=2000")).unwrap();
    let end = end(&server);
    assert_eq!(end["outcome"], "cut");
    assert!(end["reason"].as_str().unwrap().contains("stall_seconds"), "{end}");
    assert_eq!(server.metric("pba_stream_outcomes_total{dataset=\"shapes\",outcome=\"cut\"}"), 1.0);
    drop(stalled);
}

#[test]
fn a_stream_that_is_cut_by_the_end_of_the_server() {
    let mut server = server(&["--drain-seconds", "0"]);
    let streams = [(); 2].map(|()| Download::open_narrow(server.address(), STREAM).unwrap());
    server.process.signal("TERM");
    assert_eq!(server.process.wait().code(), Some(0));
    drop(streams);
    for end in with_message(&server.process, ENDED, 2) {
        let end = &end["fields"];
        assert_eq!((&end["outcome"], &end["reason"]), (&json!("cut"), &json!("the server stopped")));
    }
}

#[test]
fn a_stream_that_is_refused() {
    let server = server(&[]);
    let outcome = |dataset: &str| {
        let series = format!("pba_stream_outcomes_total{{dataset=\"{dataset}\",outcome=\"refused\"}}");
        server.metric(&series)
    };
    assert_eq!(server.get(&format!("{STREAM}&batch_size=0")).status, 400);
    let end = end(&server);
    let expected =
        json!({"outcome": "refused", "reason": "wrong-parameter", "status": 400, "dataset": "shapes"});
    assert!(end["client"].is_string() && end["request"].is_string(), "{end}");
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&end[key], value, "{key}");
    }
    assert_eq!((outcome("shapes"), outcome("none")), (1.0, 0.0));
    assert_eq!(server.get("/v1/datasets/nothing/epochs/0/batches").status, 404);
    assert_eq!((outcome("shapes"), outcome("none")), (1.0, 1.0));
    // No other route has streams.
    server.get("/v1/datasets/nothing");
    server.send("DELETE", STREAM, b"");
    assert_eq!((outcome("shapes"), outcome("none")), (1.0, 1.0));
}

/// Whose it was, though it never began.
#[test]
fn a_stream_that_is_refused_names_its_token() {
    let made = pba(&["token", "new", "--role", "reader", "--name", "alice"]).ok();
    let (secret, table) = made.split_once('\n').unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    std::fs::write(&file, table).unwrap();
    let server = server(&["--tokens-file", file.to_str().unwrap()]);
    let bearer = format!("Bearer {secret}");
    for (target, status) in [("/v1/datasets/nothing/epochs/0/batches", 404), (STREAM, 401)] {
        let headers = [("authorization", bearer.as_str())];
        let headers = if status == 404 { &headers[..] } else { &[] };
        let refused = Download::open(server.address(), "GET", target, headers, b"").unwrap().finish();
        assert_eq!(refused.status, status, "{}", refused.text());
    }
    let tokens: Vec<Value> =
        with_message(&server.process, ENDED, 2).iter().map(|end| end["fields"]["token"].clone()).collect();
    assert_eq!(tokens, [json!("alice"), Value::Null]);
}

#[test]
#[cfg(target_os = "linux")]
fn streams_through_shared_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s").display().to_string();
    let server = server(&["--socket", &path]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Client::new([format!("unix:{path}")]).unwrap();
    let request = || EpochRequest::from_query("split=test&batch_size=100").unwrap();
    runtime.block_on(async {
        let mut stream = client.epoch("shapes", 0, request()).await.unwrap();
        assert!(stream.stats().shares_memory);
        while stream.next().await.unwrap().is_some() {}
        assert_eq!(with_message(&server.process, ENDED, 1)[0]["fields"]["outcome"], "completed");
        let mut stream = client.epoch("shapes", 1, request()).await.unwrap();
        assert!(stream.next().await.unwrap().is_some());
    });
    drop(runtime);
    let ends = with_message(&server.process, ENDED, 2);
    assert_eq!((&ends[0]["fields"]["batches_sent"], &ends[0]["fields"]["rows"]), (&json!(20), &json!(2000)));
    assert_eq!(ends[1]["fields"]["outcome"], "left");
    let client = ends[0]["fields"]["client"].as_str().unwrap();
    assert_eq!(
        client,
        format!("user {}, process {}", rustix::process::getuid().as_raw(), std::process::id())
    );
}

#[test]
fn a_start_says_what_runs() {
    let mut server = server(&["--threads", "2", "--streams-max", "9"]);
    let start = with_message(&server.process, "serving", 1).remove(0)["fields"].take();
    assert_eq!((&start["version"], &start["threads"]), (&json!(env!("CARGO_PKG_VERSION")), &json!(2)));
    assert_eq!((&start["role"], &start["listen"]), (&json!("writer"), &json!(server.url())));
    assert_eq!(start["data_dir"], json!(server.data().path()));
    let settings = start["settings"].as_str().unwrap();
    assert!(settings.contains("streams_max=9") && !settings.contains("stall_seconds"), "{settings}");
    server.process.signal("TERM");
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn every_answer_has_the_id_of_its_request() {
    let server = server(&[]);
    let ask = |method: &str, target: &str, headers: &[(&str, &str)]| {
        Download::open(server.address(), method, target, headers, b"").unwrap()
    };
    let answers = [
        ("GET", "/livez", 200),
        ("GET", "/", 200),
        ("HEAD", "/metrics", 200),
        ("GET", STREAM, 200),
        ("GET", "/nowhere", 404),
        ("DELETE", "/livez", 405),
        ("GET", "/v1/datasets/shapes/epochs/x/batches", 400),
        ("POST", "/v1/searches", 400),
        ("GET", "/v1/schedules?x=1", 400),
    ];
    let mut made = std::collections::BTreeSet::new();
    for (method, target, status) in answers {
        let given = ask(method, target, &[(ID, "abc/1")]);
        let id = |download: &Download| {
            let ids = download.headers.iter().filter(|(name, _)| name == ID);
            let ids: Vec<String> = ids.map(|(_, id)| id.clone()).collect();
            assert_eq!(ids.len(), 1, "{method} {target}: {ids:?}");
            ids[0].clone()
        };
        assert_eq!((given.status, id(&given).as_str()), (status, "abc/1"), "{method} {target}");
        let long = "x".repeat(129);
        for wrong in [&[][..], &[(ID, "two words")], &[(ID, &long)], &[(ID, "")]] {
            let id = id(&ask(method, target, wrong));
            assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
            assert!(made.insert(id), "the same id twice");
        }
    }
    // For another host.
    assert_eq!(ask("GET", "/livez", &[("host", "evil.example"), (ID, "h")]).status, 403);
    let refused = ask("GET", "/livez", &[("host", "evil.example"), (ID, "h")]);
    assert_eq!(refused.headers.iter().find(|(name, _)| name == ID).unwrap().1, "h");
}

/// Who started a job and who cancelled it.
#[test]
fn what_is_done_for_a_request_is_logged_with_its_id() {
    let script = Script::idles();
    let server = server(&["--trainer", script.path()]);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let ask = |method: &str, target: &str, id: &str, body: &[u8], status| {
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        let headers = [(ID, id), ("traceparent", &*parent)];
        let answer = Download::open(server.address(), method, target, &headers, body).unwrap().finish();
        assert_eq!(answer.status, status, "{}", answer.text());
    };
    ask("POST", "/v1/searches", "start-1", spec(json!({})).to_string().as_bytes(), 202);
    server.wait_for_state("small", "running");
    ask("DELETE", "/v1/searches/small", "cancel-1", b"", 200);
    ask("POST", "/v1/searches/small/resume", "resume-1", b"", 202);
    server.wait_for_state("small", "running");
    ask("DELETE", "/v1/searches/small", "cancel-2", b"", 200);
    ask("POST", "/v1/searches/small/remove", "remove-1", b"", 200);
    for (message, ids) in [
        ("search queued", &["start-1"][..]),
        ("search is cancelled by request", &["cancel-1", "cancel-2"]),
        ("search queued again, to be resumed", &["resume-1"]),
        ("search removed", &["remove-1"]),
    ] {
        let lines = with_message(&server.process, message, ids.len());
        for (line, id) in lines.iter().zip(ids) {
            let span = &line["span"];
            assert_eq!((&span["id"], &span["trace"]), (&json!(id), &json!(trace)), "{line}");
            assert!(span["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{line}");
            assert_eq!(line["fields"]["id"], "small");
        }
    }
    assert_eq!(with_message(&server.process, "search cancelled", 2).len(), 2);
}

/// Whatever happens, each line on standard error is one JSON object.
#[test]
fn json_means_json_on_every_line() {
    let data = data_folder();
    let mut command = command(&data, &["--drain-seconds", "0"]);
    command.env("RUST_LOG", "debug");
    let mut server = Server::run(command, Arc::clone(&data));
    server.epoch("shapes/epochs/0/batches?split=test");
    drop(server.download("/v1/datasets/shapes/epochs/0/batches"));
    server.get("/v1/datasets/%0aforged%1b[2J/epochs/0/batches");
    server.raw(b"nonsense\r\n\r\n");
    // On the same directory: a replica, which says so.
    let replica = Server::run(self::command(&data, &[]), Arc::clone(&data));
    let held = Download::open_narrow(server.address(), STREAM).unwrap();
    server.process.signal("TERM");
    server.process.wait();
    drop(held);
    wait_for("the replica to take over", || (replica.metric("pba_writer") == 1.0).then_some(()));
    assert!(lines(&server.process.stderr()).len() > 5);
    assert!(lines(&replica.process.stderr()).len() > 2);
}

/// A command that does not even start says so in JSON.
#[test]
fn json_means_json_for_what_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let refused = |arguments: &[&str], variables: &[(&str, &str)], code, says: &str| {
        let mut command = binary::command(folder.path(), arguments);
        command.env("PBA_LOG_FORMAT", "json").envs(variables.iter().copied());
        let mut process = Process::run(command);
        assert_eq!(process.wait().code(), Some(code), "{}", process.stderr());
        let lines = lines(&process.stderr());
        let last = lines.last().unwrap_or_else(|| panic!("{arguments:?} {variables:?} says nothing"));
        assert_eq!(last["level"], "ERROR");
        let message = last["fields"]["message"].as_str().unwrap();
        assert!(message.contains(says) && !message.starts_with("error:"), "{message}");
        assert!(!message.contains("Usage") && (code == 1 || !message.contains('\n')), "{message}");
    };
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &data];
    refused(&["serve", "--threads", "0"], &[], 1, "threads: 0 is out of range");
    refused(&["serve", "--nonsense"], &[], 2, "--nonsense");
    refused(&["serve", "--threads", "many"], &[], 2, "invalid value");
    refused(&serve, &[("PBA_THREAD", "2")], 1, "PBA_THREAD");
    refused(&serve, &[("RUST_LOG", "no=such=filter")], 1, "RUST_LOG");
    refused(&serve, &[("RUST_LOG", "off"), ("PBA_THREADS", "0")], 1, "threads");
    refused(&["serve", "--listen", "0.0.0.0:0"], &[], 1, "0.0.0.0");
    std::fs::write(folder.path().join("pba.toml"), "two\nlines").unwrap();
    refused(&serve, &[], 1, "pba.toml");
    refused(&["streams", "--server", "http://127.0.0.1:1"], &[], 1, "cannot reach");
}

/// In text as well, what clients send cannot make a line of its own.
#[test]
fn no_client_breaks_a_line() {
    let data = data_folder();
    let server = Server::run(Server::command(data.path(), &[]), data);
    for forged in ["%0aforged", "%0d%0aforged", "%c2%85forged", "%e2%80%a8forged", "%1b[31mforged%00"] {
        server.get(&format!("/v1/datasets/x{forged}/epochs/0/batches"));
    }
    let headers = [(ID, "\"}forged{"), ("user-agent", "a\tforged")];
    server.epoch_with("shapes/epochs/0/batches?split=test", &headers);
    wait_for("the lines", || (server.process.stderr().matches("stream ended").count() == 6).then_some(()));
    let log = server.process.stderr();
    for line in log.lines() {
        assert!(line.starts_with("20"), "not a line of the server's own: {line:?}");
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{2028}'), "{line:?}");
    }
}

#[test]
fn whatever_a_client_sends_a_line_is_json() {
    let server = server(&[]);
    for odd in ["a%7Fb", "%C2%85", "%E2%80%A8", "%22%5C%0A%00%1B", "%F0%9F%90%88", "%FF"] {
        let refused = server.get(&format!("/v1/datasets/{odd}/epochs/0/batches"));
        assert!([400, 404].contains(&refused.status), "{odd}: {}", refused.text());
    }
    let ends = with_message(&server.process, ENDED, 6);
    let names: Vec<_> = ends.iter().map(|end| end["fields"]["dataset"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["a\u{7f}b", "\u{85}", "\u{2028}"]);
}
