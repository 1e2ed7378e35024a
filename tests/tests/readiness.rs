//! What `/readyz` says of servers that serve streams all the same, and what `pba health` makes of it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use pba_tests::guarded::{Guarded, bearer};
use pba_tests::mounts::{READ_ONLY, SMALL, fill, mounted, seen};
use pba_tests::search::{Script, spec};
use pba_tests::server::{Process, data_folder, empty_data_folder};
use pba_tests::slow_file::SlowFile;
use pba_tests::tls::TlsProxy;
use pba_tests::{Download, Pba, Server, binary, parquet_files, pba, wait_for};
use pba_wire::Role;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use tempfile::TempDir;

const WRITABLE: &str = "pba_data_directory_writable";
const TRAINER: &str = "pba_trainer_ready";

/// What a ready server says after its `ok`.
#[track_caller]
fn details(server: &Server) -> Vec<String> {
    let answer = server.get("/readyz");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
    let text = answer.text();
    let mut lines = text.lines().map(str::to_owned);
    assert_eq!(lines.next().as_deref(), Some("ok"), "{text}");
    lines.collect()
}

/// Waits for a detail that says all of this.
#[track_caller]
fn wait_for_detail(server: &Server, says: &[&str]) -> String {
    let says_all = |detail: &String| says.iter().all(|words| detail.contains(words));
    wait_for(&format!("a detail that says {says:?}"), || details(server).into_iter().find(says_all))
}

/// A server with a trainer, so that nothing is wrong with it.
fn sound(flags: &[&str]) -> (Server, Script) {
    let script = Script::idles();
    let server = Server::start(&[&["--trainer", script.path()], flags].concat());
    (server, script)
}

#[test]
fn a_server_with_which_nothing_is_wrong_says_ok() {
    let (server, _script) = sound(&[]);
    wait_for("the first look", || (server.metric("pba_data_directory_free_bytes") > 0.0).then_some(()));
    assert_eq!(server.get("/readyz").text(), "ok\n");
    let metrics =
        [WRITABLE, TRAINER, "pba_ready", "pba_datasets{state=\"ready\"}", "pba_datasets{state=\"failed\"}"];
    assert_eq!(metrics.map(|series| server.metric(series)), [1.0, 1.0, 1.0, 1.0, 0.0]);
}

#[test]
fn a_dataset_that_failed_is_named_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("train.parquet"), "PAR1 and no more").unwrap();
    let (server, _script) = sound(&["--dataset", &format!("mine={}", folder.path().display())]);
    wait_for_detail(&server, &["dataset \"mine\": failed: ", "train.parquet"]);
    let states = ["ready", "failed", "damaged", "importing", "not-packed"];
    let count = |state| server.metric(&format!("pba_datasets{{state=\"{state}\"}}"));
    assert_eq!(states.map(count), [1.0, 1.0, 0.0, 0.0, 0.0]);
    server.assert_healthy();
}

#[test]
fn a_disk_that_is_full_is_noticed_and_one_that_has_room_again() {
    let script = Script::idles();
    let Some(server) = mounted(SMALL, &empty_data_folder(), &["--trainer", script.path()]) else { return };
    let file = seen(&server, "fill");
    fill(&file);
    wait_for_detail(&server, &["the data directory", "cannot be written to: its disk is full"]);
    let metrics = [WRITABLE, "pba_ready"].map(|series| server.metric(series));
    assert_eq!(metrics, [0.0, 1.0]);
    assert!(server.metric("pba_data_directory_free_bytes") < f64::from(1 << 20));
    fs::remove_file(file).unwrap();
    wait_for("the disk to have room", || details(&server).is_empty().then_some(()));
    assert_eq!(server.metric(WRITABLE), 1.0);
}

#[test]
fn a_server_on_a_read_only_disk_is_a_replica() {
    let script = Script::idles();
    let Some(server) = mounted(READ_ONLY, &data_folder(), &["--trainer", script.path()]) else { return };
    wait_for("the first look", || (server.metric(WRITABLE) == 0.0).then_some(()));
    // It cannot be the writer, nor a fault of a replica that its volume is read-only.
    assert_eq!(details(&server), ["replica: its data directory is read-only"]);
}

/// A quota that is used up shows at the next change only.
#[test]
fn a_change_that_the_disk_did_not_take_is_told_of_until_it_takes_one() {
    let (server, _script) = sound(&[]);
    let process = Pid::from_raw(server.process.id() as i32);
    let limit = Rlimit { current: Some(20_480), maximum: None };
    prlimit(process, Resource::Fsize, limit).unwrap();
    let mut document = server.get("/v1/schedules/svhn-pba").json();
    let put = |name: &str, document: &serde_json::Value| {
        server.send("PUT", &format!("/v1/schedules/{name}"), document.to_string().as_bytes()).status
    };
    document["name"] = "small".into();
    let small = document.clone();
    document["name"] = "large".into();
    document["provenance"] = json!({ "notes": "x".repeat(50_000) });
    assert_eq!(put("large", &document), 507);
    wait_for_detail(&server, &["cannot be written to", "large.json"]);
    assert_eq!(server.metric(WRITABLE), 0.0);
    assert_eq!(put("small", &small), 201);
    assert_eq!((details(&server), server.metric(WRITABLE)), (Vec::new(), 1.0));
}

#[test]
fn a_data_directory_that_is_gone_is_named() {
    let (server, _script) = sound(&[]);
    let elsewhere = tempfile::tempdir_in(server.data().path().parent().unwrap()).unwrap();
    fs::rename(server.data().path(), elsewhere.path()).unwrap();
    wait_for_detail(&server, &["cannot be written to", "moved away"]);
    fs::rename(elsewhere.path(), server.data().path()).unwrap();
    wait_for("the directory to be back", || details(&server).is_empty().then_some(()));
}

#[test]
fn a_trainer_that_is_no_program_is_named_until_it_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let trainer = folder.path().join("trainer");
    fs::write(&trainer, "#!/bin/sh\n").unwrap();
    let server = Server::start(&["--trainer", trainer.to_str().unwrap()]);
    wait_for_detail(&server, &["jobs wait or fail", "is not executable"]);
    assert_eq!(server.metric(TRAINER), 0.0);
    fs::set_permissions(&trainer, fs::Permissions::from_mode(0o755)).unwrap();
    wait_for("the trainer to be found", || details(&server).is_empty().then_some(()));
    assert_eq!(server.metric(TRAINER), 1.0);
    fs::remove_file(&trainer).unwrap();
    wait_for_detail(&server, &["jobs wait or fail", "cannot be run"]);
}

#[test]
fn a_trainer_that_dies_again_and_again_is_named() {
    let script = Script::trains("kill -9 $$");
    let server = Server::with_trainer(script.path());
    let id = server.start_search(&spec(json!({})));
    server.wait_for_state(&id, "failed");
    wait_for_detail(&server, &["jobs wait or fail", "ended 4 times without progress"]);
    assert_eq!(server.metric(TRAINER), 0.0);
    server.assert_healthy();
}

/// What shows that a trainer works is not the end of its job.
#[test]
fn a_trainer_that_starts_the_next_job_is_ready_at_once() {
    let script = Script::trains(
        r#"while [ $# -gt 0 ]; do [ "$1" = --spec ] && spec=$2; shift; done
        await() { while [ -e "$0" ] && [ ! -e "$here/$1" ]; do sleep 0.02; done; }
        [ -e "$here/died" ] || { await both; touch "$here/died"; echo 'libtorch is missing' >&2; exit 127; }
        await works
        printf '{"event":"started","spec":%s,"dataset_digest":"x"}\n' "$(tr -d '\n' <"$spec")"
        trap 'exit 3' TERM; idle"#,
    );
    let server = Server::with_trainer(script.path());
    let ids = ["first", "second"].map(|name| server.start_search(&spec(json!({ "name": name }))));
    fs::write(script.file("both"), "").unwrap();
    server.wait_for_state(&ids[0], "failed");
    server.wait_for_state(&ids[1], "running");
    wait_for_detail(&server, &["jobs wait or fail", "libtorch is missing"]);
    assert_eq!(server.metric(TRAINER), 0.0);
    fs::write(script.file("works"), "").unwrap();
    wait_for("the trainer to be ready", || (server.metric(TRAINER) == 1.0).then_some(()));
    assert_eq!((server.search(&ids[1])["state"].as_str(), details(&server)), (Some("running"), Vec::new()));
}

/// One that dies again and again still answers what it makes of a spec, and starts, which shows nothing.
#[test]
fn a_request_for_a_job_makes_no_trainer_ready() {
    let script = Script::trains(
        r#"[ -e "$here/idles" ] && { trap 'exit 3' TERM; touch "$here/started"; idle; }
        kill -9 $$"#,
    );
    let server = Server::with_trainer(script.path());
    let id = server.start_search(&spec(json!({ "name": "first" })));
    server.wait_for_state(&id, "failed");
    assert_eq!(server.metric(TRAINER), 0.0);
    fs::write(script.file("idles"), "").unwrap();
    let id = server.start_search(&spec(json!({ "name": "second" })));
    server.wait_for_state(&id, "running");
    wait_for("the trainer to start", || script.file("started").exists().then_some(()));
    assert_eq!(server.metric(TRAINER), 0.0);
    wait_for_detail(&server, &["jobs wait or fail", "ended 4 times without progress"]);
}

/// A disk that is mounted late takes down nothing.
#[test]
fn a_dataset_that_is_not_there_yet_is_served_as_soon_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["mounted", "late"] {
        // Where a disk is mounted there is a folder before it is, too.
        let path = folder.path().join(name);
        if name == "late" {
            fs::create_dir(&path).unwrap();
        }
        let flag = format!("mine={}", path.display());
        let refused = pba(&["serve", "--check", "--dataset", &flag]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let (server, _script) = sound(&["--dataset", &flag]);
        wait_for_detail(&server, &["dataset \"mine\": failed", path.to_str().unwrap()]);
        assert_eq!(server.process.stderr().contains("there is nothing at"), name == "mounted");
        server.assert_healthy();
        let refused = server.get("/v1/datasets/mine/epochs/0/batches");
        assert_eq!(refused.status, 422, "{}", refused.text());
        let listed = server.pba(&["dataset", "list"]).ok();
        let row: Vec<&str> = listed.lines().next().unwrap().split('\t').collect();
        assert_eq!((row[0], row[1], row[2], row.len()), ("mine", "failed", "-", 7), "{listed}");
        assert!(row[6].starts_with(path.to_str().unwrap()), "{listed}");
        // A name of its own until it is whole.
        let whole = folder.path().join("whole");
        fs::create_dir(&whole).unwrap();
        let images: Vec<Vec<u8>> = (0..8).map(|seed| parquet_files::png(32, 32, seed)).collect();
        parquet_files::write(&whole.join("train.parquet"), &images);
        fs::rename(&whole, &path).unwrap();
        let state = || server.get("/v1/datasets/mine").json()["state"].clone();
        wait_for("the dataset to be served", || (state() == "ready").then_some(()));
        assert_eq!(details(&server), Vec::<String>::new());
        assert_eq!(server.epoch("mine/epochs/0/batches").indices().len(), 8);
    }
}

#[test]
fn a_trainer_that_cannot_answer_is_named() {
    let script = Script::new("echo 'libtorch is missing' >&2; exit 127");
    let server = Server::with_trainer(script.path());
    let answer = server.send("POST", "/v1/searches", spec(json!({})).to_string().as_bytes());
    assert_eq!(answer.status, 503, "{}", answer.text());
    wait_for_detail(&server, &["jobs wait or fail", "libtorch is missing"]);
}

#[test]
fn a_replica_says_that_it_is_one_and_nothing_else() {
    let (writer, _script) = sound(&[]);
    // What it lacks, it does not need as long as it is one.
    let replica = Server::start_on(writer.data(), &["--trainer", "/no/such/trainer"]);
    wait_for("the first look", || (replica.metric("pba_data_directory_free_bytes") > 0.0).then_some(()));
    assert_eq!((replica.metric(WRITABLE), replica.metric(TRAINER)), (1.0, 0.0));
    assert_eq!(details(&replica), ["replica: another server is the writer"]);
    let told = health(&replica, &["--json"]).json();
    let expected = json!({
        "checked": "ready", "replica": "another server is the writer", "details": [], "withheld": null,
    });
    assert_eq!(told, expected);
    drop(writer);
    wait_for_detail(&replica, &["jobs wait or fail", "/no/such/trainer"]);
    assert_eq!(details(&replica).len(), 1, "it is the writer");
}

#[test]
fn a_server_that_could_be_the_writer_says_why_it_is_not() {
    let (data, script) = (empty_data_folder(), Script::idles());
    fs::create_dir(data.path().join("lock")).unwrap();
    let server = Server::start_on(data, &["--trainer", script.path()]);
    wait_for_detail(&server, &["this server is not the writer", "cannot be locked"]);
}

/// A dataset that cannot be imported, so that there is something to tell, and its flag's value.
fn broken() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("train.parquet"), "PAR1 and no more").unwrap();
    let value = format!("broken={}", folder.path().display());
    (folder, value)
}

#[test]
fn what_is_wrong_is_told_to_clients_with_a_token() {
    let (_folder, broken) = broken();
    let guarded = Guarded::start(&["--dataset", &broken]);
    let reader = guarded.tokens[&Role::Reader].as_str();
    let ready = |headers: &[(&str, &str)]| {
        let answer = guarded.ask("GET", "/readyz", headers, b"");
        assert_eq!(answer.status, 200, "a probe needs no token");
        answer.text()
    };
    wait_for("the dataset to fail", || {
        ready(&[("authorization", &bearer(reader))]).contains("dataset \"broken\": failed: ").then_some(())
    });
    let withheld = "ok\ndetails are withheld: they are for clients with a token\n";
    assert_eq!(ready(&[]), withheld);
    assert_eq!(ready(&[("authorization", "Bearer pba_wrong")]), withheld);

    let server = &guarded.server;
    assert!(health(server, &["--token", reader]).ok().contains("dataset \"broken\": failed: "));
    assert_eq!(health(server, &[]).ok(), withheld);
    let told = health(server, &["--json"]).json();
    let reason = "they are for clients with a token";
    assert_eq!(told, json!({ "checked": "ready", "replica": null, "details": null, "withheld": reason }));
    // One that is sent and refused would otherwise pass for one that is right.
    health(server, &["--token", "pba_wrong"]).refused(1, &["the token is none of this server's"]);
    let failure = health(server, &["--json", "--token", "pba_wrong"]);
    assert_eq!((failure.code, failure.stdout.as_str()), (Some(1), ""));
    let failure: serde_json::Value = serde_json::from_str(&failure.stderr).unwrap();
    assert_eq!(failure["error"]["kind"], "urn:pba:problem:unauthenticated");
    assert_eq!(health(server, &["--live", "--token", "pba_wrong"]).ok(), "ok\n", "it is alive");
}

#[test]
fn the_address_for_metrics_tells_no_client_what_is_wrong() {
    let expected = "ok\ndetails are withheld: they are shown at the server's own address (listen)\n";
    let (_folder, broken) = broken();
    let flags = ["--dataset", &broken, "--metrics-listen", "127.0.0.1:0"];
    let metrics_url = |server: &Server| {
        let line = server.process.line().expect("it says where its metrics are");
        line.strip_prefix("metrics on ").and_then(|url| url.strip_suffix("/metrics")).unwrap().to_owned()
    };
    let open = Server::start(&flags);
    let url = metrics_url(&open);
    assert_eq!(pba(&["health", &url]).ok(), expected, "without tokens, too");
    let guarded = Guarded::start(&flags);
    let url = metrics_url(&guarded.server);
    assert_eq!(pba(&["health", &url]).ok(), expected);
    assert_eq!(pba(&["health", &url, "--token", &guarded.tokens[&Role::Admin]]).ok(), expected);
}

fn health(server: &Server, flags: &[&str]) -> Pba {
    pba(&[&["health", &server.url()], flags].concat())
}

#[test]
fn health_of_a_server_that_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", folder.path().join("pba.sock").display());
    let (server, _script) = sound(&["--socket", &socket["unix:".len()..]]);
    assert_eq!(health(&server, &[]).ok(), "ok\n");
    assert_eq!(health(&server, &["--live"]).ok(), "ok\n");
    assert_eq!(
        health(&server, &["--json"]).json(),
        json!({ "checked": "ready", "replica": null, "details": [], "withheld": null })
    );
    assert_eq!(
        health(&server, &["--json", "--live"]).json(),
        json!({ "checked": "alive", "replica": null, "details": null, "withheld": null })
    );
    assert_eq!(pba(&["health", &socket]).ok(), "ok\n");
    assert_eq!(pba(&["health", "--server", &server.url()]).ok(), "ok\n");
    assert_eq!(server.pba(&["health"]).ok(), "ok\n");
    // The variable names another one than the argument.
    assert_eq!(server.pba(&["health", &socket]).ok(), "ok\n");
    pba(&["health", &socket, "--server", &socket]).refused(2, &["cannot be used with"]);
    // Behind TLS, and nobody asks who it is.
    let proxy = TlsProxy::start(server.address(), "t");
    let ca = proxy.authority();
    let secret = ["health", &proxy.url(), "--ca", ca.to_str().unwrap(), "--token", "t"];
    assert_eq!(pba(&secret).ok(), "ok\n");
    pba(&secret[..2]).refused(1, &["--ca"]);
}

#[test]
fn health_tells_what_is_wrong_with_a_server_that_is_ready() {
    let server = Server::start(&["--trainer", "/no/such/trainer"]);
    wait_for_detail(&server, &["/no/such/trainer"]);
    let told = health(&server, &[]).ok();
    assert!(told.starts_with("ok\njobs wait or fail: trainer: /no/such/trainer cannot be run"), "{told}");
    let told = health(&server, &["--json"]).json();
    assert!(told["details"][0].as_str().unwrap().contains("/no/such/trainer"), "{told}");
    assert_eq!(health(&server, &["--live"]).ok(), "ok\n");
}

/// A server that imports a slow dataset.
fn importing(data: &Path, slow: &SlowFile) -> (Process, String) {
    let dataset = format!("slow={}", slow.path().display());
    let mut command = Server::command(data, &["--dataset", &dataset]);
    slow.slow_down(&mut command);
    let process = Process::run(binary::interruptible(&command));
    let line = process.line().expect("the server starts");
    let url = line.strip_prefix("listening on ").unwrap().to_owned();
    (process, url)
}

#[test]
fn health_of_a_server_that_imports() {
    let (data, slow) = (data_folder(), SlowFile::create());
    let (_process, url) = importing(data.path(), &slow);
    let ask = |flags: &[&str]| pba(&[&["health", &url], flags].concat());
    wait_for("the built-in dataset to be imported", || ask(&[]).stderr.contains("\"slow\"").then_some(()));
    ask(&[]).refused(1, &["dataset \"slow\" is still being imported"]);
    assert_eq!(ask(&["--live"]).ok(), "ok\n");
    slow.end();
}

#[test]
fn health_of_a_server_that_drains() {
    let server = Server::start(&["--drain-seconds", "3600"]);
    let _stream =
        Download::open_narrow(server.address(), "/v1/datasets/shapes/epochs/0/batches?schedule=cifar10-pba")
            .unwrap();
    server.process.signal("TERM");
    wait_for("the server to drain", || (server.get("/readyz").status == 503).then_some(()));
    health(&server, &[]).refused(1, &["shutting down"]);
    assert_eq!(health(&server, &["--live"]).ok(), "ok\n");
}

#[test]
fn health_of_what_is_no_server() {
    // Nothing listens at the port of one that has just ended.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    pba(&["health", &address.to_string()]).refused(1, &["cannot reach"]);
    pba(&["health", "unix:/no/such.sock"]).refused(1, &["/no/such.sock"]);
    pba(&["health", "ftp://a"]).refused(1, &["is not a server's URL"]);
    // One that accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    pba(&["health", &url]).refused(1, &["does not answer within 5 s"]);
    // One that is another program.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", other.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut socket, _) = other.accept().unwrap();
        let _ = socket.read(&mut [0; 4096]).unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n").unwrap();
    });
    pba(&["health", &url]).refused(1, &[&url]);
    answering.join().unwrap();
}

#[test]
fn details_do_not_outgrow_a_probe() {
    let data = data_folder();
    fs::create_dir_all(data.path().join("schedules")).unwrap();
    for number in 0..100 {
        fs::write(data.path().join(format!("schedules/s{number:03}.json")), "{}").unwrap();
    }
    let script = Script::idles();
    let server = Server::start_on(Arc::clone(&data), &["--trainer", script.path()]);
    let details = details(&server);
    assert_eq!(details.len(), 32);
    assert_eq!(details[31], "and 69 more");
    assert!(details[0].contains("s000.json is ignored: "), "{}", details[0]);
}
