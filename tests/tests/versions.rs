//! Data directories of other versions: older ones are opened, and what a newer version wrote is refused, named and left
//! alone.
//!
//! `tests/fixtures/data-0` was written by a server before a directory said its format, `data-1` by one of format 1. Neither
//! is ever written again: a version that does not open them any more breaks somebody's server.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pba_search::journal;
use pba_tests::binary::pba_in;
use pba_tests::search::{Script, evaluation, spec, trainer};
use pba_tests::server::data_folder;
use pba_tests::{Server, repository, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Digests of the schedules in the fixtures: the one that was added, and the one that was learned.
const MINE: &str = "f85dc0140238fa9596f2b3b53ec6a0c3296a134483da5677ad967c380986b939";
const LEARNED: &str = "92648b54f944ce156f0de4df1ff6397d58519664143262a01548508699a593bf";

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => assert!(fs::copy(entry.path(), to).is_ok()),
        }
    }
}

/// A data directory as an earlier version left it.
fn left_by(fixture: &str) -> Arc<TempDir> {
    let data = data_folder();
    copy(&repository("tests/fixtures").join(fixture), data.path());
    data
}

/// Every file below a folder, with its content.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match path.is_dir() {
            true => all.extend(contents(&path)),
            false => drop(all.insert(path.clone(), fs::read(path).unwrap())),
        }
    }
    all
}

fn format_of(data: &Path) -> Value {
    serde_json::from_slice(&fs::read(data.join("format.json")).unwrap()).unwrap()
}

/// Replaces a part of a file that is there once.
#[track_caller]
fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from:?} in {text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

/// Raises the version of an entry of a job, whose checksum stays right.
fn raise_entry(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    let (fields, _) = text.rsplit_once(",\n  \"xxh3\": \"").unwrap();
    let fields = match fields.contains("\"pba-job/1\"") {
        true => fields.replace("\"pba-job/1\"", "\"pba-job/2\""),
        false => fields.replacen('{', "{\n  \"format\": \"pba-job/2\",", 1),
    };
    let checksum = journal::checksum(fields.as_bytes());
    fs::write(path, format!("{fields},\n  \"xxh3\": \"{checksum}\"\n}}")).unwrap();
}

/// Details of `/readyz` that name a file.
fn naming(server: &Server, name: &str) -> Vec<String> {
    let text = server.get("/readyz").text();
    text.lines().filter(|line| line.contains(name)).map(str::to_owned).collect()
}

#[test]
fn what_earlier_versions_left_is_opened() {
    for fixture in ["data-0", "data-1"] {
        let (data, script) = (left_by(fixture), Script::idles());
        let before = contents(&data.path().join("schedules"));
        let server = Server::start_on(Arc::clone(&data), &["--trainer", script.path()]);
        for (name, digest) in [("mine", MINE), ("learned", LEARNED)] {
            let etag = server.get(&format!("/v1/schedules/{name}")).header("etag").map(str::to_owned);
            assert!(etag.is_some_and(|etag| etag.contains(digest)), "{fixture}: {name}");
        }
        let search = server.search("learned");
        assert_eq!([&search["state"], &search["schedule_digest"]], ["done", LEARNED], "{fixture}");
        assert_eq!(search["best_accuracy"], 0.125, "{fixture}");
        let tested = server.job("evaluations", "tested");
        assert_eq!([&tested["state"], &tested["schedule"]], ["done", "mine"], "{fixture}");
        assert_eq!(
            server.epoch("shapes/epochs/0/batches?schedule=mine&split=test&shard=0/50").indices().len(),
            40
        );
        wait_for("nothing to be wrong", || (server.get("/readyz").text() == "ok\n").then_some(()));
        assert_eq!(format_of(data.path())["format"], "pba-data/1", "{fixture}");
        assert_eq!(contents(&data.path().join("schedules")), before);
    }
}

#[test]
fn a_new_directory_says_its_format_and_so_do_its_jobs() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let format = format_of(server.data().path());
    let version = pba_in(server.data().path(), &["--version"]).ok();
    assert_eq!(
        format,
        json!({ "format": "pba-data/1", "version": version.trim_start_matches("pba ").trim() })
    );
    let id = server.start_search(&spec(json!({})));
    for name in ["search.json", "request.json"] {
        let text = fs::read_to_string(server.search_folder(&id).join(name)).unwrap();
        let entry: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(entry["format"], "pba-job/1", "{name}: {text}");
    }
}

#[test]
fn the_directory_of_a_newer_version_is_refused_and_left_as_it_is() {
    let data = left_by("data-1");
    fs::write(
        data.path().join("format.json"),
        r#"{"format": "pba-data/2", "version": "9.1.0", "more": true}"#,
    )
    .unwrap();
    let before = contents(data.path());
    let says = ["pba-data/2", "pba 9.1.0 wrote it: use that version", "--data-dir", "pba-data/1"];
    let data_dir = data.path().to_str().unwrap();
    for flags in [&["--listen", "127.0.0.1:0"][..], &["--check"]] {
        let serve = [&["serve", "--data-dir", data_dir], flags].concat();
        pba_in(data.path().parent().unwrap(), &serve).refused(1, &says);
    }
    assert!(contents(data.path()) == before, "something was changed");
    // One that cannot be told is not guessed.
    fs::write(data.path().join("format.json"), "").unwrap();
    let serve = ["serve", "--data-dir", data_dir, "--listen", "127.0.0.1:0"];
    pba_in(data.path().parent().unwrap(), &serve)
        .refused(1, &["format.json does not say the format", "remove it if"]);
}

/// A replica of an older version does not become the writer where a newer one has written.
#[test]
fn a_replica_takes_over_no_directory_of_a_newer_version() {
    let writer = Server::start(&[]);
    let mut command = Server::command(writer.data().path(), &[]);
    command.env("RUST_LOG", "pba_server=info");
    let replica = Server::run(command, writer.data());
    let newer = r#"{"format": "pba-data/2", "version": "9.1.0"}"#;
    fs::write(writer.data().path().join("format.json"), newer).unwrap();
    drop(writer);
    wait_for("the replica to try", || {
        replica.process.stderr().contains("cannot be taken over").then_some(())
    });
    assert!(replica.process.stderr().contains("pba-data/2"), "{}", replica.process.stderr());
    assert_eq!(replica.metric("pba_writer"), 0.0);
    let put = replica.get("/v1/schedules/svhn-pba").text().replace("svhn-pba", "mine");
    assert_eq!(replica.send("PUT", "/v1/schedules/mine", put.as_bytes()).status, 409);
    assert_eq!(fs::read_to_string(replica.data().path().join("format.json")).unwrap(), newer);
    replica.assert_healthy();
}

#[test]
fn a_schedule_of_a_newer_version_is_left_alone_and_the_others_serve() {
    let (data, script) = (left_by("data-1"), Script::idles());
    let path = data.path().join("schedules/mine.json");
    edit(&path, "\"pba-schedule/1\"", "\"pba-schedule/3\"");
    let before = fs::read(&path).unwrap();
    let server = Server::start_on(Arc::clone(&data), &["--trainer", script.path()]);
    let named = naming(&server, "mine.json");
    assert_eq!(named.len(), 1, "{}", server.get("/readyz").text());
    for says in ["is ignored", "pba-schedule/3", "if a newer version of pba wrote it, use that version"] {
        assert!(named[0].contains(says), "{named:?} does not say {says:?}");
    }
    assert_eq!(server.get("/v1/schedules/mine").status, 404);
    let document = server.get("/v1/schedules/svhn-pba").text().replace("svhn-pba", "mine");
    assert_eq!(server.send("PUT", "/v1/schedules/mine", document.as_bytes()).status, 409);
    assert_eq!(server.send("DELETE", "/v1/schedules/mine", b"").status, 404);
    assert_eq!(server.get("/v1/schedules/learned").status, 200);
    server.assert_healthy();
    drop(server);
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// Whichever of the two entries of a job says so; the folder stays as it is, checkpoints and all.
#[test]
fn a_job_of_a_newer_version_is_left_alone_and_the_others_serve() {
    for (entries, fixture) in [
        (&["search.json", "request.json"][..], "data-1"),
        (&["search.json"], "data-1"),
        (&["search.json", "request.json"], "data-0"),
    ] {
        let (data, script) = (left_by(fixture), Script::idles());
        let folder = data.path().join("searches/learned");
        entries.iter().for_each(|name| raise_entry(&folder.join(name)));
        let before = contents(&folder);
        let server = Server::start_on(Arc::clone(&data), &["--trainer", script.path()]);
        let named = naming(&server, "searches/learned");
        assert_eq!(named.len(), 1, "{}", server.get("/readyz").text());
        for says in ["is ignored", "pba-job/2", "a newer version of pba wrote it: use that version"] {
            assert!(named[0].contains(says), "{named:?} does not say {says:?}");
        }
        assert_eq!(server.get("/v1/searches/learned").status, 404);
        for what in ["resume", "finish"] {
            assert_eq!(server.send("POST", &format!("/v1/searches/learned/{what}"), b"").status, 404);
        }
        // Its name stays taken, and what it learned is there.
        let again =
            server.send("POST", "/v1/searches", spec(json!({ "name": "learned" })).to_string().as_bytes());
        assert_eq!(again.status, 409, "{}", again.text());
        assert_eq!(server.get("/v1/schedules/learned").status, 200);
        assert_eq!(server.job("evaluations", "tested")["state"], "done");
        server.start_job("evaluations", &evaluation(json!({ "name": "another", "schedule": "mine" })));
        server.assert_healthy();
        drop(server);
        assert!(contents(&folder) == before, "something was changed in {entries:?}");
    }
}

/// Damage is no other version: the job is there, as it was asked.
#[test]
fn a_damaged_entry_is_no_newer_one() {
    let (data, script) = (left_by("data-1"), Script::idles());
    edit(&data.path().join("searches/learned/search.json"), "\"pba-job/1\"", "\"pba-job/3\"");
    let server = Server::start_on(data, &["--trainer", script.path()]);
    let search = server.search("learned");
    assert_eq!(search["state"], "failed");
    assert!(search["error"].as_str().unwrap().contains("checksum"), "{search}");
}

/// A packed file of another version lies in another folder, whose name is made of its format.
#[test]
fn what_a_newer_version_packed_is_left_alone() {
    let data = data_folder();
    let newer = data.path().join("datasets").join("ab".repeat(32));
    fs::create_dir_all(&newer).unwrap();
    let packed = fs::read_dir(data.path().join("datasets")).unwrap().map(|entry| entry.unwrap().path());
    let ours = { packed }.find(|folder| *folder != newer).unwrap();
    // As long as it was: nothing else of the file moves.
    let mut bytes = fs::read(ours.join("test.arrow")).unwrap();
    let places: Vec<usize> = bytes
        .windows(12)
        .enumerate()
        .filter(|(_, bytes)| bytes == b"pba-packed/2")
        .map(|(place, _)| place)
        .collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|place| bytes[place + 11] = b'3');
    fs::write(newer.join("test.arrow"), &bytes).unwrap();
    let server = Server::start_on(Arc::clone(&data), &[]);
    server.assert_healthy();
    drop(server);
    assert!(fs::read(newer.join("test.arrow")).unwrap() == bytes);
}

/// Raises the version of a checkpoint, whose checksum stays right.
fn raise_checkpoint(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let place =
        |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).position(|window| window == text).unwrap();
    let format = b"pba-checkpoint/2";
    let at = place(&bytes, format) + format.len() - 1;
    bytes[at] = b'3';
    let key = b"\"xxh3\":\"";
    let digits = place(&bytes, key) + key.len();
    bytes[digits..digits + 16].fill(b'0');
    let checksum = journal::checksum(&bytes);
    bytes[digits..digits + 16].copy_from_slice(checksum.as_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn checkpoints_of_a_newer_version_are_refused_and_stay() {
    let Some(trainer) = trainer() else { return };
    let mut server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({ "epochs": 4000 })));
    server.wait_for_lines(&id, 12);
    server.process.signal("TERM");
    assert_eq!(server.process.wait().code(), Some(0));
    let (data, folder) = (server.data(), server.search_folder(&id));
    drop(server);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let checkpoints: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|is| is == "safetensors")).collect();
    assert!(!checkpoints.is_empty());
    checkpoints.iter().for_each(|path| raise_checkpoint(path));
    let before: Vec<Vec<u8>> = checkpoints.iter().map(|path| fs::read(path).unwrap()).collect();
    let server = Server::start_on(data, &["--trainer", &trainer]);
    let failed = server.wait_for_state(&id, "failed");
    let error = failed["error"].as_str().unwrap();
    for says in ["cannot load the checkpoint", "\"pba-checkpoint/3\"", "not \"pba-checkpoint/2\""] {
        assert!(error.contains(says), "{error}");
    }
    server.assert_healthy();
    assert!(checkpoints.iter().map(|path| fs::read(path).unwrap()).eq(before), "something was changed");
}
