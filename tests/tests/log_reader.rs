//! The reader of the log may leave, stop reading, or have no room: no client notices.

use std::fs::File;
use std::io::{Read, Write, pipe};
use std::process::Stdio;
use std::sync::mpsc::channel;

use pba_tests::server::{Process, data_folder};
use pba_tests::{PATIENCE, Server, wait_for};

/// A server that logs much, to a standard error of the test's.
#[track_caller]
fn logging_to(stderr: impl Into<Stdio>) -> Server {
    let data = data_folder();
    let mut command = Server::command(data.path(), &[]);
    command.stderr(stderr).env("RUST_LOG", "warn,pba_server=debug");
    Server::of(Process::run_logging(command), data)
}

/// Streams, wrong requests and clients that leave, each of which is logged.
#[track_caller]
fn assert_serves(server: &mut Server) {
    for _ in 0..3 {
        assert_eq!(server.epoch("shapes/epochs/0/batches?split=test&shard=0/50").indices().len(), 40);
        assert_eq!(server.get("/v1/schedules/nothing").status, 404);
        drop(server.download("/v1/datasets/shapes/epochs/0/batches"));
    }
    server.assert_healthy();
    assert_eq!(server.metric("pba_panics_total"), 0.0);
    assert!(server.process.is_running());
}

#[track_caller]
fn assert_ends(mut server: Server) {
    server.process.signal("TERM");
    assert_eq!(server.process.wait().code(), Some(0));
}

const LOST: &str = "pba_log_lines_lost_total";

#[test]
fn a_reader_that_has_gone() {
    // As `pba serve 2>&1 | head` leaves it.
    let (reader, writer) = pipe().unwrap();
    let mut server = logging_to(writer);
    drop(reader);
    assert_serves(&mut server);
    wait_for("lost lines", || (server.metric(LOST) > 0.0).then_some(()));
    assert_ends(server);
}

#[test]
fn a_full_disk() {
    let mut server = logging_to(File::options().write(true).open("/dev/full").unwrap());
    assert_serves(&mut server);
    wait_for("lost lines", || (server.metric(LOST) > 0.0).then_some(()));
    assert_ends(server);
}

#[test]
fn a_reader_that_does_not_read() {
    let (mut reader, writer) = pipe().unwrap();
    let mut full = writer.try_clone().unwrap();
    // Blocks once the pipe is full, until the reader reads after all.
    let filling = std::thread::spawn(move || full.write_all(&[b'.'; 1 << 20]).unwrap());
    let mut server = logging_to(writer);
    assert_serves(&mut server);
    // More lines than wait for the reader.
    let lost = wait_for("lost lines", || {
        for _ in 0..100 {
            server.get("/v1/datasets/shapes/epochs/0/batches?split=test&shard=0/2000");
        }
        Some(server.metric(LOST)).filter(|lost| *lost > 0.0)
    });
    assert_serves(&mut server);
    assert!(server.metric(LOST) > lost);

    // Once it reads, it is told what it has missed, and gets what comes.
    let (tell, told) = channel();
    let reading = std::thread::spawn(move || {
        let (mut text, mut bytes) = (Vec::new(), [0; 1 << 16]);
        while let Ok(count @ 1..) = reader.read(&mut bytes) {
            text.extend(bytes[..count].iter().filter(|byte| **byte != b'.'));
            if String::from_utf8_lossy(&text).contains("lines of the log were lost") {
                // The second time is not waited for.
                let _ = tell.send(());
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    told.recv_timeout(PATIENCE).expect("the log says that it lacks lines");
    assert_serves(&mut server);
    assert_ends(server);
    filling.join().unwrap();
    let log = reading.join().unwrap();
    assert!(log.contains("draining"), "the last lines are written: {log}");
}
