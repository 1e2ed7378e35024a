//! Packed files that are damaged on the disk, under a running server: what is sent is what was packed, or nothing.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pba_tests::mounts::may_mount;
use pba_tests::search::{spec, trainer};
use pba_tests::server::Process;
use pba_tests::{Answer, Download, Server, repository, wait_for};
use tempfile::TempDir;

/// Images of the dataset: 37 MB, three record batches of 5461 but for the last.
const IMAGES: usize = 12_000;
const UNTOUCHED: &str = "schedule=identity&shuffle=false&batch_size=100";

/// A folder with CIFAR-10's binary files, of made-up pictures.
fn cifar(images: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in 0..5 {
        let mut bytes = Vec::new();
        for image in (0..images).skip(file).step_by(5) {
            bytes.push((image % 10) as u8);
            let mut state = image as u32 + 1;
            bytes.extend((0..3072).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            }));
        }
        std::fs::write(folder.path().join(format!("data_batch_{}.bin", file + 1)), bytes).unwrap();
    }
    folder
}

/// The packed training split in a data directory that has no test split, as the built-in dataset has.
fn packed(data: &Path) -> PathBuf {
    let folders = std::fs::read_dir(data.join("datasets")).unwrap().map(|folder| folder.unwrap().path());
    let mut found = folders.filter(|folder| !folder.join("test.arrow").exists());
    found.next().expect("a dataset was imported").join("train.arrow")
}

/// Writes over a part of a file, in place. Returns what was there.
fn overwrite(file: &Path, place: u64, bytes: &[u8]) -> Vec<u8> {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut before = vec![0; bytes.len()];
    file.read_exact_at(&mut before, place).unwrap();
    file.write_all_at(bytes, place).unwrap();
    before
}

fn stream(server: &Server, parameters: &str) -> Answer {
    server.get(&format!("/v1/datasets/mine/epochs/0/batches?{UNTOUCHED}&{parameters}"))
}

/// Checks that a request is refused before its first byte, with words that say where the damage is.
#[track_caller]
fn refused(answer: &Answer, says: &[&str]) {
    assert_eq!(answer.status, 422, "{}", answer.text());
    let problem = answer.problem();
    for says in ["\"mine\"", "train", "train.arrow", "damaged"].iter().chain(says) {
        assert!(problem.detail.contains(says), "{:?} does not say {says:?}", problem.detail);
    }
}

/// A server of the dataset `mine`, whose source is gone, so that its packed file cannot be made again; the file;
/// and what an epoch is.
fn alone(flags: &[&str]) -> (Server, PathBuf, Vec<u8>) {
    let source = cifar(IMAGES);
    let dataset = format!("mine={}", source.path().display());
    let server = Server::start(&[&["--dataset", &dataset], flags].concat());
    drop(source);
    let file = packed(server.data().path());
    let epoch = server.epoch(&format!("mine/epochs/0/batches?{UNTOUCHED}"));
    (server, file, epoch.bytes)
}

/// In the second record batch.
const PLACE: u64 = 20_000_000;

#[test]
fn zeros_in_the_file_are_never_sent() {
    let (server, file, epoch) = alone(&["--scrub-bytes-per-second", "0"]);
    let before = overwrite(&file, PLACE, &[0; 100_000]);
    // It is not known yet, but found when it is met.
    let answer = stream(&server, "");
    assert!(answer.status == 422 || !answer.complete, "a damaged epoch is whole");
    if answer.status == 200 {
        assert!(epoch.starts_with(&answer.body), "other bytes were sent");
    }
    // From now on it is known.
    let batch = ["record batch 1, samples 64"];
    refused(&stream(&server, ""), &batch);
    refused(&stream(&server, "start=60"), &batch);
    refused(&server.get("/v1/datasets/mine/epochs/0/preview.png?schedule=identity&n=9"), &batch);
    wait_for("the metric", || {
        (server.metric("pba_damaged_record_batches{dataset=\"mine\"}") == 1.0).then_some(())
    });
    // What does not need it is served.
    let whole = stream(&server, "start=110");
    assert!(whole.status == 200 && whole.complete);
    assert_eq!(server.epoch("shapes/epochs/0/batches?split=test&shard=0/50").indices().len(), 40);
    // Mended in place.
    overwrite(&file, PLACE, &before);
    let mended = stream(&server, "");
    assert!(mended.complete && mended.body == epoch, "the mended file is not served");
    wait_for("the metric", || {
        (server.metric("pba_damaged_record_batches{dataset=\"mine\"}") == 0.0).then_some(())
    });
    server.assert_healthy();
}

/// Nothing has been sent when the first batch meets it, over TCP and through shared memory.
#[test]
fn damage_in_the_first_batch_is_refused_and_not_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("pba.sock");
    let (server, file, epoch) =
        alone(&["--scrub-bytes-per-second", "0", "--socket", socket.to_str().unwrap()]);
    let damaged = "pba_request_errors_total{kind=\"damaged\"}";
    for shares_memory in [false, true] {
        let before = overwrite(&file, 100_000, &[0; 5000]);
        let refusals = server.metric(damaged);
        if shares_memory {
            let client = pba_client::Client::new([format!("unix:{}", socket.display())]).unwrap();
            let request = <pba_client::EpochRequest as pba_client::Query>::from_query(UNTOUCHED).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let error = runtime.block_on(client.epoch("mine", 0, request)).map(|_| ()).unwrap_err();
            let pba_client::ClientError::Refused(problem) = &error else { panic!("{error}") };
            assert!(problem.detail.contains("record batch 0"), "{error}");
        } else {
            refused(&stream(&server, ""), &["record batch 0, samples"]);
        }
        assert!(server.metric(damaged) > refusals);
        overwrite(&file, 100_000, &before);
        assert!(stream(&server, "").body == epoch);
    }
    assert_eq!(server.metric("pba_request_errors_total{kind=\"broken-stream\"}"), 0.0);
    assert_eq!(server.metric("pba_streams_active"), 0.0);
    server.assert_healthy();
}

#[test]
fn what_cannot_be_mended_is_shown_and_a_replica_leaves_mending_to_the_writer() {
    // A source that is there for the replica only, which only reads what was packed of it.
    let source = cifar(IMAGES);
    let dataset = format!("mine={}", source.path().display());
    let earlier = Server::start(&["--dataset", &dataset]);
    let (data, file_of_replica) = (earlier.data(), packed(earlier.data().path()));
    drop(earlier);
    let gone = cifar(IMAGES);
    let flags = ["--dataset", &format!("mine={}", gone.path().display()), "--scrub-bytes-per-second", "0"];
    let writer = Server::start_on(data, &flags);
    drop(gone);
    let file = packed_beside(writer.data().path(), &file_of_replica);
    let epoch = writer.epoch(&format!("mine/epochs/0/batches?{UNTOUCHED}")).bytes;
    let state =
        |server: &Server| server.get("/v1/datasets/mine").json()["state"].as_str().unwrap().to_owned();
    let replica = Server::start_on(writer.data(), &["--dataset", &dataset, "--scrub-bytes-per-second", "0"]);
    assert_eq!([&writer, &replica].map(state), ["ready", "ready"]);
    for (server, file) in [(&writer, &file), (&replica, &file_of_replica)] {
        assert!(stream(server, "").body == epoch);
        let before = overwrite(file, PLACE, &[0; 1000]);
        let cut = stream(server, "");
        assert!(cut.status == 422 || !cut.complete, "a damaged epoch is whole");
        let shown = server.get("/v1/datasets/mine").json();
        assert_eq!(shown["state"], "damaged");
        assert!(shown["error"].as_str().unwrap().contains("record batch 1, samples 64"), "{shown}");
        assert_eq!(server.metric("pba_damaged_record_batches{dataset=\"mine\"}"), 1.0, "at once");
        let logged = wait_for("a look at it", || {
            let logged = server.process.stderr();
            (logged.contains("cannot be mended") || logged.contains("the writer has to mend it"))
                .then_some(logged)
        });
        assert_eq!(logged.contains("cannot be mended"), std::ptr::eq(server, &writer), "{logged}");
        refused(
            &stream(server, ""),
            if std::ptr::eq(server, &replica) { &["its writer has to mend it"] } else { &[] },
        );
        overwrite(file, PLACE, &before);
        assert!(stream(server, "").body == epoch);
        assert_eq!(state(server), "ready");
    }
}

/// The packed training split of another dataset without a test split, of the same images.
fn packed_beside(data: &Path, other: &Path) -> PathBuf {
    let folders = std::fs::read_dir(data.join("datasets")).unwrap().map(|folder| folder.unwrap().path());
    let files =
        folders.filter(|folder| !folder.join("test.arrow").exists()).map(|folder| folder.join("train.arrow"));
    files.filter(|file| file != other).last().expect("two datasets were imported")
}

#[test]
fn files_that_were_exchanged_are_packed_again() {
    let (source, other) = (cifar(IMAGES), cifar(IMAGES / 2));
    let flags = [&source, &other].map(|folder| format!("{}", folder.path().display()));
    let flags = [format!("--dataset=mine={}", flags[0]), format!("--dataset=other={}", flags[1])];
    let flags = flags.each_ref().map(String::as_str);
    let server = Server::start(&flags);
    let epochs = |server: &Server| {
        ["mine", "other"].map(|name| server.epoch(&format!("{name}/epochs/0/batches?{UNTOUCHED}")).bytes)
    };
    let (expected, data) = (epochs(&server), server.data());
    drop(server);
    let file = packed(data.path());
    let (another, aside) = (packed_beside(data.path(), &file), data.path().join("aside"));
    for (from, to) in [(&file, &aside), (&another, &file), (&aside, &another)] {
        std::fs::rename(from, to).unwrap();
    }
    let server = Server::start_on(data, &flags);
    assert!(epochs(&server) == expected, "another dataset is served");
    let logged = server.process.stderr();
    assert_eq!(
        logged.matches("it was packed to be another split, or of another dataset").count(),
        2,
        "{logged}"
    );
    server.assert_healthy();
}

#[test]
fn a_running_stream_ends_where_the_damage_is() {
    let (server, file, epoch) = alone(&["--scrub-bytes-per-second", "0"]);
    let target = format!("/v1/datasets/mine/epochs/0/batches?{UNTOUCHED}");
    let mut download = Download::open_narrow(server.address(), &target).unwrap();
    let mut got = download.sip(1_000_000);
    let before = overwrite(&file, PLACE, &[0; 100_000]);
    let rest = download.finish();
    assert!(!rest.complete, "the stream is whole");
    got.extend(rest.body);
    assert!(epoch.starts_with(&got), "other bytes were sent");
    // Up to the damage nothing is lost, but for a batch that is told apart by its place.
    assert!(got.len() as u64 > PLACE - 3_000_000, "{} bytes came", got.len());
    overwrite(&file, PLACE, &before);
    assert!(stream(&server, "").body == epoch);
    server.assert_healthy();
}

#[test]
fn a_damaged_file_is_packed_again_from_its_source() {
    let source = cifar(IMAGES);
    let dataset = format!("mine={}", source.path().display());
    let server = Server::start(&["--dataset", &dataset, "--scrub-bytes-per-second", "100000000"]);
    let epoch = stream(&server, "");
    let file = packed(server.data().path());
    let damages: [&dyn Fn(); 3] = [
        &|| drop(overwrite(&file, PLACE, &[0; 100_000])),
        &|| drop(overwrite(&file, 1_000_000, &[overwrite(&file, 1_000_000, &[0])[0] ^ 0x10])),
        &|| OpenOptions::new().write(true).open(&file).unwrap().set_len(PLACE).unwrap(),
    ];
    for (number, damage) in damages.iter().enumerate() {
        damage();
        // It is not asked for: the scrub finds it.
        wait_for("the repair", || {
            (server.metric("pba_repairs_total{dataset=\"mine\"}") > number as f64).then_some(())
        });
        let again = stream(&server, "");
        assert!(again.complete && again.body == epoch.body, "damage {number}");
    }
    server.assert_healthy();
}

#[test]
fn the_scrub_finds_damage_that_nobody_has_met() {
    let (server, file, epoch) = alone(&["--scrub-bytes-per-second", "100000000"]);
    let before = overwrite(&file, PLACE, &[0xa5]);
    wait_for("the scrub", || {
        (server.metric("pba_damaged_record_batches{dataset=\"mine\"}") == 1.0).then_some(())
    });
    refused(&stream(&server, ""), &["record batch 1"]);
    assert!(server.metric("pba_scrub_bytes_total") > 0.0);
    wait_for("the log", || server.process.stderr().contains("found by the scrub").then_some(()));
    overwrite(&file, PLACE, &before);
    assert!(stream(&server, "").body == epoch);
    server.assert_healthy();
}

#[test]
fn a_file_that_is_cut_under_a_stream_ends_the_stream_and_not_the_server() {
    let (server, file, epoch) = alone(&["--scrub-bytes-per-second", "0"]);
    let whole = std::fs::read(&file).unwrap();
    let target = format!("/v1/datasets/mine/epochs/0/batches?{UNTOUCHED}");
    let mut downloads: Vec<Download> =
        (0..4).map(|_| Download::open_narrow(server.address(), &target).unwrap()).collect();
    let beginnings: Vec<Vec<u8>> = downloads.iter_mut().map(|download| download.sip(500_000)).collect();
    OpenOptions::new().write(true).open(&file).unwrap().set_len(4096).unwrap();
    for (download, mut got) in downloads.into_iter().zip(beginnings) {
        let rest = download.finish();
        assert!(!rest.complete, "the stream is whole");
        got.extend(rest.body);
        assert!(epoch.starts_with(&got), "other bytes were sent");
    }
    refused(&stream(&server, ""), &["it has 4096 bytes"]);
    refused(&stream(&server, "start=110"), &["it has 4096 bytes"]);
    server.assert_healthy();
    // Restored from a backup, which is another file.
    let backup = file.with_extension("backup");
    std::fs::write(&backup, &whole).unwrap();
    std::fs::rename(&backup, &file).unwrap();
    let again = wait_for("the restored file to be served", || {
        Some(stream(&server, "")).filter(|answer| answer.status == 200)
    });
    assert!(again.complete && again.body == epoch);
    server.assert_healthy();
}

#[test]
fn a_packed_file_that_somebody_names_stays_theirs() {
    let (server, file, epoch) = alone(&[]);
    let theirs = tempfile::tempdir().unwrap();
    let copy = theirs.path().join("train.arrow");
    std::fs::copy(&file, &copy).unwrap();
    drop(server);
    let dataset = format!("mine={}", theirs.path().display());
    let server = Server::start(&["--dataset", &dataset, "--scrub-bytes-per-second", "0"]);
    let target = format!("/v1/datasets/mine/epochs/0/batches?{UNTOUCHED}");
    let mut download = Download::open_narrow(server.address(), &target).unwrap();
    let mut got = download.sip(500_000);
    std::fs::write(&copy, "something else").unwrap();
    let rest = download.finish();
    got.extend(rest.body);
    assert!(rest.complete && got == epoch, "the server depends on a file of others");
    server.assert_healthy();
}

#[test]
fn a_damaged_photograph_is_neither_sent_nor_kept() {
    let source = tempfile::tempdir().unwrap();
    for (class, name) in [("a", "rgb_420.jpg"), ("a", "rgb_444.jpg"), ("b", "gray.jpg"), ("b", "tall.jpg")] {
        let folder = source.path().join(class);
        std::fs::create_dir_all(&folder).unwrap();
        let image = repository("server/datasets/tests/all/images").join(name);
        std::fs::copy(image, folder.join(name)).unwrap();
    }
    let photo = std::fs::read(source.path().join("a/rgb_444.jpg")).unwrap();
    let dataset = format!("mine={}", source.path().display());
    let request = "/v1/datasets/mine/epochs/0/batches?base=resize:16,center_crop:16&shuffle=false";
    let expected = Server::start(&["--dataset", &dataset]).epoch(&request["/v1/datasets/".len()..]).bytes;
    // Not a pixel is decoded before the file is damaged.
    let server = Server::start(&["--dataset", &dataset, "--scrub-bytes-per-second", "0"]);
    drop(source);
    let file = packed(server.data().path());
    let whole = std::fs::read(&file).unwrap();
    let place = whole.windows(photo.len()).position(|window| window == photo).unwrap();
    // In the middle of the picture, where most bits make another picture and no error.
    let before = overwrite(&file, (place + photo.len() / 2) as u64, &[0x5a]);
    assert_ne!(before, [0x5a]);
    let answer = server.get(request);
    assert!(answer.status == 422 || !answer.complete, "a damaged epoch is whole");
    refused(&server.get(request), &["record batch 0, sample 1:"]);
    assert_eq!(server.metric("pba_decoded_cache_bytes"), 0.0, "pixels of a damaged batch were kept");
    overwrite(&file, (place + photo.len() / 2) as u64, &before);
    for _ in 0..2 {
        assert!(server.get(request).body == expected, "damaged pixels were kept");
    }
    assert!(server.metric("pba_decoded_cache_bytes") > 0.0);
    server.assert_healthy();
}

#[test]
fn a_job_whose_file_is_cut_fails_and_says_why() {
    let Some(trainer) = trainer() else { return };
    let source = cifar(IMAGES);
    let dataset = format!("mine={}", source.path().display());
    let server =
        Server::start(&["--trainer", &trainer, "--dataset", &dataset, "--scrub-bytes-per-second", "0"]);
    let file = packed(server.data().path());
    // As many epochs as it may take until the file is cut.
    let spec = spec(serde_json::json!({ "dataset": "mine", "epochs": 10_000, "train_size": 2000 }));
    let id = server.start_job("searches", &spec);
    server.wait_for_lines_of("searches", &id, 3);
    OpenOptions::new().write(true).open(&file).unwrap().set_len(4096).unwrap();
    let failed = server.wait_for_job("searches", &id, "failed");
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("train.arrow: damaged: it has 4096 bytes"), "{error}");
    server.assert_healthy();
}

/// A disk of its own for a server's data directory, full but for a megabyte, as only the server sees it.
#[test]
fn a_full_disk_is_reported_as_that_and_the_import_goes_on_when_there_is_room() {
    if !may_mount() {
        return;
    }
    let source = cifar(IMAGES);
    let data = Arc::new(tempfile::tempdir().unwrap());
    let command = Server::command(data.path(), &["--dataset", &format!("mine={}", source.path().display())]);
    let mut mounted = Command::new("unshare");
    let script = "mount -t tmpfs -o size=160m none \"$0\" && \
                  dd if=/dev/zero of=\"$0/fill\" bs=1M count=159 2>/dev/null && exec \"$@\"";
    mounted.args(["-rm", "sh", "-c", script]).arg(data.path()).arg(command.get_program());
    mounted.args(command.get_args()).current_dir(data.path());
    let process = Process::run(mounted);
    let line = process.line().expect("it listens");
    let address = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
    let get = |target: &str| Download::open(address, "GET", target, &[], b"").unwrap().finish();
    for name in ["mine", "shapes"] {
        let split = "train";
        let target = format!("/v1/datasets/{name}/epochs/0/batches?split={split}");
        let answer =
            wait_for("the import to fail", || Some(get(&target)).filter(|answer| answer.status != 503));
        assert_eq!(answer.status, 507, "{}", answer.text());
        let problem = answer.problem();
        assert_eq!(problem.kind, "urn:pba:problem:disk-full");
        assert!(problem.detail.contains(name) && problem.detail.contains("No space left"), "{problem:?}");
    }
    assert_eq!(get("/livez").status, 200);
    let seen = PathBuf::from(format!("/proc/{}/root{}", process.id(), data.path().display()));
    let left: Vec<PathBuf> = std::fs::read_dir(seen.join("datasets"))
        .unwrap()
        .flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|file| file.metadata().is_ok_and(|found| found.len() > 0))
        .collect();
    assert!(left.len() < 2, "unfinished files are left: {left:?}");
    std::fs::remove_file(seen.join("fill")).unwrap();
    for (name, rows) in [("mine", IMAGES), ("shapes", 2000)] {
        let split = if name == "mine" { "train" } else { "test" };
        let answer = wait_for("the import to succeed", || {
            let target = format!("/v1/datasets/{name}/epochs/0/batches?split={split}");
            Some(get(&target)).filter(|answer| answer.status == 200)
        });
        assert_eq!(pba_tests::Epoch::decode(answer.body).indices().len(), rows);
    }
}

#[test]
fn a_client_goes_on_where_the_file_is_whole() {
    let [(damaged, file, epoch), (whole, ..)] = [alone(&[]), alone(&[])];
    let length = file.metadata().unwrap().len();
    // In the middle of the epoch, and at its very beginning.
    for place in [length / 2, 100_000] {
        overwrite(&file, place, &[0; 5000]);
        let read = async {
            let client = pba_client::Client::new([damaged.url(), whole.url()]).unwrap();
            let request = <pba_client::EpochRequest as pba_client::Query>::from_query(UNTOUCHED).unwrap();
            let mut stream = client.epoch("mine", 0, request).await.unwrap();
            let mut batches = Vec::new();
            while let Some(batch) = stream.next().await.unwrap() {
                batches.push(batch);
            }
            batches
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let batches = runtime.block_on(read);
        assert_eq!(pba_tests::epoch::digest(&batches), pba_tests::Epoch::decode(epoch.clone()).digest());
    }
    assert_eq!(stream(&damaged, "").status, 422);
}
