//! The unit of systemd: that it is right and tight, and that the server lives within it.
//!
//! No systemd runs where tests do. So the unit is checked by `systemd-analyze`, and the server runs under what of it can be
//! had without: no new privileges, no memory that is written and run, and no system call beyond those that are allowed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pba_tests::search::{spec, trainer};
use pba_tests::server::data_folder;
use pba_tests::skipped::skip;
use pba_tests::{Server, binary, repository, wait_for};
use serde_json::json;
use tempfile::TempDir;

/// Most exposure that `systemd-analyze security` may find, in tenths; a service without any of it has 96.
const EXPOSURE_MAX: &str = "20";

fn unit(name: &str) -> PathBuf {
    repository("deploy/systemd").join(name)
}

/// Whether a tool is there; if not, the test is skipped.
#[track_caller]
fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        skip(&format!("there is no {tool} on this machine"));
    }
    found
}

/// The unit with drop-ins, as it would be installed, but for the program, which lies elsewhere here.
fn installed(drop_ins: &[&str]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let service = folder.path().join("pba.service");
    let text = fs::read_to_string(unit("pba.service")).unwrap();
    let program = binary::path();
    fs::write(&service, text.replace("/usr/local/bin/pba", program.to_str().unwrap())).unwrap();
    let drop_in_folder = folder.path().join("pba.service.d");
    fs::create_dir(&drop_in_folder).unwrap();
    for name in drop_ins {
        fs::copy(unit(name), drop_in_folder.join(name)).unwrap();
    }
    (folder, service)
}

#[track_caller]
fn analyze(arguments: &[&str], service: &Path) -> String {
    let output = Command::new("systemd-analyze").args(arguments).arg(service).output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

#[test]
fn the_unit_is_right_and_tight() {
    if !has("systemd-analyze") {
        return;
    }
    for drop_ins in [&[][..], &["trainer.conf"], &["trainer.conf", "gpu.conf"]] {
        let (_folder, service) = installed(drop_ins);
        let said = analyze(&["verify", "--man=no"], &service);
        assert!(!said.contains("pba.service"), "{drop_ins:?}: {said}");
    }
    let (_folder, service) = installed(&[]);
    analyze(&["security", "--offline=true", "--no-pager", &format!("--threshold={EXPOSURE_MAX}")], &service);
}

/// The values of a setting in the unit and its drop-ins, in order.
fn settings(files: &[&str], key: &str) -> Vec<String> {
    let texts = files.iter().map(|name| fs::read_to_string(unit(name)).unwrap());
    let lines: Vec<String> =
        texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    lines.iter().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned).collect()
}

/// The system calls of a group, and of those in it.
fn calls_of(name: &str) -> BTreeSet<String> {
    if !name.starts_with('@') {
        return [name.to_owned()].into();
    }
    let output = Command::new("systemd-analyze").args(["syscall-filter", name]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let members =
        text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    members.flat_map(calls_of).collect()
}

/// The system calls that units allow.
fn allowed(files: &[&str]) -> BTreeSet<String> {
    let mut allowed = calls_of("@default");
    for value in settings(files, "SystemCallFilter") {
        let (denies, names) = match value.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, &*value),
        };
        for call in names.split_whitespace().flat_map(calls_of) {
            if denies {
                allowed.remove(&call)
            } else {
                allowed.insert(call)
            };
        }
    }
    allowed
}

/// Starts a server under a tracer that counts its system calls and those of its trainers, has it do `work`, and returns
/// which they were.
fn calls_made(flags: &[&str], work: impl FnOnce(&Server)) -> BTreeSet<String> {
    let data = data_folder();
    let log = tempfile::NamedTempFile::new().unwrap();
    let server = Server::command(data.path(), flags);
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-c", "-U", "name", "-o"])
        .arg(log.path())
        .arg(server.get_program())
        .args(server.get_args());
    command.current_dir(data.path()).env("PBA_DRAIN_DELAY_SECONDS", "0").env("PBA_SAVE_SECONDS", "0");
    let mut server = Server::run(command, data);
    work(&server);
    // The tracer passes nothing on; the server is its child.
    let children = format!("/proc/{0}/task/{0}/children", server.process.id());
    let child = fs::read_to_string(children).unwrap();
    pba_tests::search::signal(child.split_whitespace().next().unwrap().parse().unwrap(), "TERM");
    assert_eq!(server.process.wait().code(), Some(0), "{}", server.process.stderr());
    let text = fs::read_to_string(log.path()).unwrap();
    let names = text
        .lines()
        .map(str::trim)
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    names.filter(|name| !["", "syscall", "total"].contains(name)).map(str::to_owned).collect()
}

#[test]
fn the_server_makes_no_system_call_that_the_unit_denies() {
    if !has("systemd-analyze") || !has("strace") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("pba.sock");
    let made = calls_made(&["--socket", socket.to_str().unwrap()], |server| {
        server.epoch("shapes/epochs/0/batches?split=test&schedule=cifar10-pba");
        // Through shared memory.
        let url = format!("unix:{}", socket.display());
        pba_tests::pba(&["stream", "--split", "test", "--json", &url]).json();
        let document = server.get("/v1/schedules/svhn-pba").text().replace("svhn-pba", "mine");
        assert_eq!(server.send("PUT", "/v1/schedules/mine", document.as_bytes()).status, 201);
        assert_eq!(server.send("DELETE", "/v1/schedules/mine", b"").status, 204);
        assert_eq!(server.get("/metrics").status, 200);
        wait_for("the first look", || (server.metric("pba_data_directory_free_bytes") > 0.0).then_some(()));
    });
    assert!(made.len() > 30, "the tracer saw {made:?}");
    let denied: Vec<String> = made.difference(&allowed(&["pba.service"])).cloned().collect();
    assert!(denied.is_empty(), "the unit denies {denied:?}");
}

#[test]
fn a_trainer_makes_no_system_call_that_its_drop_in_denies() {
    let Some(trainer) = trainer() else { return };
    if !has("systemd-analyze") || !has("strace") {
        return;
    }
    let made = calls_made(&["--trainer", &trainer], |server| {
        let id = server.start_search(&spec(json!({ "epochs": 2, "population": 2 })));
        server.wait_for_state(&id, "done");
    });
    let denied: Vec<String> = made.difference(&allowed(&["pba.service", "trainer.conf"])).cloned().collect();
    assert!(denied.is_empty(), "the unit denies {denied:?}");
}

/// As `NoNewPrivileges` and `MemoryDenyWriteExecute` have it; where the kernel knows the second.
#[test]
fn the_server_runs_without_new_privileges_and_without_memory_that_is_written_and_run() {
    const RUN: &str = "import ctypes, os, sys\n\
        prctl = ctypes.CDLL(None, use_errno=True).prctl\n\
        assert prctl(38, 1, 0, 0, 0) == 0\n\
        print('denied' if prctl(65, 1, 0, 0, 0) == 0 else 'unknown', file=sys.stderr, flush=True)\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    let data = data_folder();
    let server = Server::command(data.path(), &[]);
    let mut command = Command::new("python3");
    command.args(["-c", RUN]).arg(server.get_program()).args(server.get_args()).current_dir(data.path());
    let server = Server::run(command, data);
    if server.process.stderr().contains("unknown") {
        skip("in part: this kernel cannot deny memory that is written and run");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    server.epoch("shapes/epochs/0/batches?split=test&schedule=cifar10-pba");
    server.assert_healthy();
}

/// systemd kills what has not ended by then.
#[test]
fn the_unit_waits_longer_than_a_drain_takes() {
    let seconds = settings(&["pba.service"], "TimeoutStopSec").pop().unwrap().parse::<u64>().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut check = binary::command(folder.path(), &["serve", "--check"]);
    // The tests' own.
    check.env_remove("PBA_DRAIN_DELAY_SECONDS");
    let config = pba_tests::Pba::from(check.output().unwrap()).json();
    let of = |key: &str| config[key].as_u64().unwrap();
    // What else there is, by the module of the server that ends it.
    assert!(seconds > of("drain_delay_seconds") + of("drain_seconds") + 5);
}
