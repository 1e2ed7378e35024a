//! How servers begin: who is told what before they are ready.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pba_tests::proxy::Cut;
use pba_tests::search::{Script, spec};
use pba_tests::server::{Process, data_folder, empty_data_folder};
use pba_tests::slow_file::SlowFile;
use pba_tests::{CuttingProxy, PATIENCE, Pba, Server, binary, parquet_files, pba, wait_for};
use pba_wire::Problem;
use serde_json::{Value, json};

/// A server that imports a slow dataset, and its Unix socket.
fn importing(data: &Path, slow: &SlowFile, flags: &[&str]) -> (Process, PathBuf) {
    let socket = data.join("pba.sock");
    let dataset = format!("slow={}", slow.path().display());
    let own = ["--socket", socket.to_str().unwrap(), "--dataset", &dataset];
    let mut command = Server::command(data, &[&own[..], flags].concat());
    slow.slow_down(&mut command);
    let process = Process::run(binary::interruptible(&command));
    let line = process.line().expect("the server starts");
    assert!(line.starts_with("listening on http://127.0.0.1:"), "{line}");
    wait_for("the built-in dataset to be imported", || {
        let (head, body) = ask(&socket, "GET", "/readyz").expect("it listens at once");
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        body.contains("slow").then_some(())
    });
    (process, socket)
}

/// Head and body of the answer to a request on a connection of its own; none when no server listens.
fn ask(socket: &Path, method: &str, target: &str) -> Option<(String, String)> {
    let mut connection = UnixStream::connect(socket).ok()?;
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    Some((head.to_lowercase().replacen("http", "HTTP", 1), body.to_owned()))
}

#[test]
fn a_job_waits_for_its_own_dataset_only() {
    let (data, slow, script) = (data_folder(), SlowFile::create(), Script::idles());
    let folder = tempfile::tempdir().unwrap();
    parquet_files::write(&folder.path().join("train.parquet"), &parquet_files::images(2000));
    let flag = format!("slow={}", folder.path().display());
    let server = Server::start_on(data.clone(), &["--trainer", script.path(), "--dataset", &flag]);
    server.start_search(&spec(json!({ "name": "first", "dataset": "slow" })));
    server.start_search(&spec(json!({ "name": "second" })));
    server.wait_for_state("first", "running");
    drop(server);
    let (_process, socket) = importing(data.path(), &slow, &["--trainer", script.path()]);
    let state = |id: &str| {
        let (_, body) = ask(&socket, "GET", &format!("/v1/searches/{id}")).unwrap();
        serde_json::from_str::<Value>(&body).unwrap()["state"].as_str().unwrap().to_owned()
    };
    wait_for("the other search to run", || (state("second") == "running").then_some(()));
    assert_eq!(state("first"), "queued");
    slow.end();
}

#[test]
fn while_a_dataset_is_imported_the_others_are_served() {
    let (data, slow) = (data_folder(), SlowFile::create());
    let (_process, socket) = importing(data.path(), &slow, &[]);
    let server = format!("unix:{}", socket.display());
    for target in ["/livez", "/", "/metrics", "/openapi.json", "/v1/schedules/svhn-pba"] {
        let (head, _) = ask(&socket, "GET", target).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{target}: {head}");
    }
    let read = pba(&["stream", "--split", "test", "--json", "--server", &server]).json();
    assert_eq!(read["images"], 2000, "shapes is there");

    for target in ["/readyz", "/v1/datasets/slow/epochs/0/batches", "/v1/datasets/slow/epochs/0/preview.png"]
    {
        let (head, body) = ask(&socket, "GET", target).unwrap();
        assert!(head.starts_with("HTTP/1.1 503 "), "{target}: {head}");
        for header in ["content-type: application/problem+json", "retry-after: 1"] {
            assert!(head.contains(header), "{target}: {head} lacks {header}");
        }
        let problem: Problem = serde_json::from_str(&body).unwrap();
        assert_eq!((problem.status, problem.kind.as_str()), (503, "urn:pba:problem:importing"));
        assert!(problem.detail.contains("\"slow\" is still being imported"), "{problem:?}");
    }
    let state = || pba(&["dataset", "show", "slow", "--server", &server]).json()["state"].clone();
    assert_eq!(state(), "importing");
    let listed = pba(&["dataset", "list", "--server", &server]).ok();
    assert!(listed.contains("slow\timporting\t"), "{listed}");

    slow.end();
    wait_for("the import to end", || (state() != "importing").then_some(()));
    let shown = pba(&["dataset", "show", "slow", "--server", &server]).json();
    assert_eq!(shown["state"], "failed", "a file without a byte is no dataset");
    assert!(shown["error"].is_string(), "{shown}");
    let (head, _) = ask(&socket, "GET", "/readyz").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[test]
fn signals_end_a_server_that_imports() {
    let data = data_folder();
    for name in ["INT", "TERM"] {
        let slow = SlowFile::create();
        let (mut process, _) = importing(data.path(), &slow, &[]);
        process.signal(name);
        assert_eq!(process.wait().code(), Some(0), "{name}");
    }
}

#[test]
fn whoever_wants_images_waits_for_the_dataset() {
    let (data, slow) = (data_folder(), SlowFile::create());
    let (_process, socket) = importing(data.path(), &slow, &[]);
    let server = format!("unix:{}", socket.display());
    let run = |arguments: &[&str]| {
        let arguments = [arguments, &["--server", &server]].concat();
        Process::run(binary::interruptible(&binary::command(data.path(), &arguments)))
    };
    let stream = ["stream", "--dataset", "slow", "--split", "test"];
    let mut waiting = [run(&stream), run(&stream), run(&["dataset", "preview", "slow"])];
    // Longer than a server is retried that is full.
    std::thread::sleep(Duration::from_secs(8));
    for process in &mut waiting {
        assert!(process.is_running(), "{}", process.stderr());
        let told = process.stderr().matches("dataset \"slow\" is still being imported").count();
        assert!((1..=2).contains(&told), "{}", process.stderr());
    }
    let [mut interrupted, others @ ..] = waiting;
    interrupted.signal("INT");
    assert_eq!(interrupted.wait().code(), Some(130));
    slow.end();
    for mut process in others {
        assert_eq!(process.wait().code(), Some(1));
        let says = "dataset \"slow\" could not be read";
        assert!(process.stderr().contains(says), "{}", process.stderr());
    }
}

#[test]
fn a_replica_that_is_ready_is_not_waited_for() {
    let (data, slow) = (data_folder(), SlowFile::create());
    let (_process, socket) = importing(data.path(), &slow, &[]);
    let folder = tempfile::tempdir().unwrap();
    parquet_files::write(&folder.path().join("test.parquet"), &parquet_files::images(2000));
    let ready = Server::start(&["--dataset", &format!("slow={}", folder.path().display())]);
    let proxy = CuttingProxy::start(ready.address());
    // From its beginning, and after a cut.
    proxy.plan([Cut { after: 2_000_000, reset: false }]);
    let importing = format!("unix:{}", socket.display());
    for (urls, resumes) in [([&proxy.url(), &importing], 1), ([&importing, &proxy.url()], 0)] {
        let read = pba(&["stream", urls[0], urls[1], "--dataset", "slow", "--split", "test", "--json"]);
        assert!(!read.stderr.contains("waiting"), "{read:?}");
        let read = read.json();
        assert_eq!((&read["images"], &read["resumes"]), (&2000.into(), &resumes.into()), "{read}");
    }
}

/// Runs a server that must refuse to start, on a data directory in which nothing is packed yet.
#[track_caller]
fn packs_nothing(listen: &str, flags: &[&str], says: &[&str]) {
    let data = empty_data_folder();
    let fixed = ["serve", "--listen", listen, "--data-dir", data.path().to_str().unwrap()];
    pba(&[&fixed, flags].concat()).refused(1, says);
    let packed = data.path().join("datasets");
    assert!(!packed.exists(), "{:?}", std::fs::read_dir(packed).unwrap().collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_is_told_before_anything_is_packed() {
    let data = data_folder();
    let socket = data.path().join("pba.sock").into_os_string().into_string().unwrap();
    let server = Server::start_on(data, &["--socket", &socket]);
    let address = server.address().to_string();
    let says =
        ["cannot listen on", &address, "ddress already in use", "--listen 127.0.0.1:0 to pick a free port"];
    packs_nothing(&address, &[], &says);
    let says = ["cannot listen on unix:", &socket, "choose another --socket PATH"];
    packs_nothing("127.0.0.1:0", &["--socket", &socket], &says);
    packs_nothing("127.0.0.1:0", &["--dataset", "shapes=/nowhere"], &["shapes", "built-in"]);
    server.assert_healthy();
}

#[test]
fn the_demo_takes_a_free_port_when_the_usual_one_is_taken() {
    // By this test, or by a user of this machine.
    let _held = std::net::TcpListener::bind("127.0.0.1:8080");
    let data = data_folder();
    let demo = ["demo", "--once", "--data-dir", data.path().to_str().unwrap()];
    let text = pba(&demo).ok();
    let address = text.lines().next().unwrap().strip_prefix("listening on http://127.0.0.1:").unwrap();
    assert_ne!(address, "8080");
    assert!(text.contains("10000 images"), "{text}");
}

/// Runs a command whose standard output is a pipe that is not read.
fn unread(directory: &Path, arguments: &[&str]) -> Command {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = binary::command(directory, arguments);
    command.stdout(writer);
    command
}

#[test]
fn a_server_whose_output_nobody_reads_serves() {
    let data = data_folder();
    let socket = data.path().join("pba.sock");
    let data_dir = data.path().to_str().unwrap();
    let arguments =
        ["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir, "--socket", socket.to_str().unwrap()];
    let log = data.path().join("log");
    let mut child = unread(data.path(), &arguments).stderr(File::create(&log).unwrap()).spawn().unwrap();
    wait_for("a server that is ready", || {
        assert_eq!(child.try_wait().unwrap(), None, "it ended");
        ask_ready(&socket)
    });
    pba_tests::search::signal(child.id(), "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("standard output has no reader: listening on http://127.0.0.1:"), "{log}");
}

/// Something, when the server behind a Unix socket is ready.
fn ask_ready(socket: &Path) -> Option<()> {
    let server = format!("unix:{}", socket.display());
    (pba(&["dataset", "list", "--server", &server]).code == Some(0)).then_some(())
}

#[test]
fn commands_whose_output_nobody_reads_end_quietly() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    for command in [&["schedule", "list"][..], &["schedule", "export", "cifar10-pba"], &["--help"]] {
        let output = unread(folder.path(), command).env("PBA_SERVER", server.url()).output().unwrap();
        let output = Pba::from(output);
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{command:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let server = Server::start(&[]);
    let url = server.url();
    let folder = tempfile::tempdir().unwrap();
    for command in [
        &["schedule", "export", "cifar10-pba"][..],
        &["schedule", "plot", "cifar10-pba"],
        &["schedule", "list"],
        &["schedule", "list", "--json"],
        &["schedule", "show", "svhn-pba"],
        &["dataset", "list"],
        &["dataset", "show", "shapes"],
        &["dataset", "preview", "shapes"],
        &["search", "list", "--json"],
        &["stream", &url, "--split", "test"],
        &["stream", &url, "--split", "test", "--json"],
        &["serve", "--check"],
        &["serve", "--listen", "127.0.0.1:0", "--data-dir", server.data().path().to_str().unwrap()],
        &["--help"],
        &["search", "start", "--help"],
        &["--version"],
    ] {
        let mut command = binary::command(folder.path(), command);
        // A device that is as full as a disk can be.
        command.env("PBA_SERVER", &url).stdout(File::options().write(true).open("/dev/full").unwrap());
        let says = ["cannot write to standard output: No space left on device"];
        Pba::from(command.output().unwrap()).refused(1, &says);
    }
    server.assert_healthy();
}

#[test]
fn an_epoch_is_written_through_what_is_no_file() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("epoch.arrows"), folder.path().join("link"));
    std::fs::write(&file, "before").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let stream =
        |out: &Path| pba(&["stream", &server.url(), "--split", "test", "--out", out.to_str().unwrap()]);
    stream(&link).ok();
    assert!(link.is_symlink() && std::fs::metadata(&file).unwrap().len() > 1 << 20);

    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read(pipe).unwrap()
    });
    stream(&pipe).ok();
    assert!(!pipe.is_file(), "the pipe was replaced");
    assert_eq!(reader.join().unwrap(), std::fs::read(&file).unwrap());
    // A link of its own, so that nothing of the system's is at risk.
    let full = folder.path().join("full");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    stream(&full).refused(1, &["No space left"]);
}
