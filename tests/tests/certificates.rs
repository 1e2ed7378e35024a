//! The server's certificate: which one is refused at the start, and how one is replaced while the server runs.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pba_tests::tls::{Authority, Pair, TlsServer};
use pba_tests::{Epoch, Pba, Server, binary, wait_for};

const HERE: [&str; 2] = ["localhost", "127.0.0.1"];

/// `pba serve` with certificate and key, which ends.
fn serve(folder: &Path, cert: &str, key: &str, check: bool) -> Pba {
    let flags = ["serve", "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key];
    let flags = [&flags[..], if check { &["--check"] } else { &[] }].concat();
    binary::command(folder, &flags).output().unwrap().into()
}

#[test]
fn wrong_ones_are_refused_at_the_start() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (one, other) = (authority.sign(&HERE), authority.sign(&HERE));
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("one.crt", &one.cert);
    write("one.key", &one.key);
    write("other.key", &other.key);
    write("text", "hello");
    write("cut.crt", &one.cert[..one.cert.len() / 2]);
    write("damaged.crt", &one.cert.replace("MII", "AAA"));
    write(
        "encrypted.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    write("odd.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    write("wrong_way.crt", &[std::fs::read_to_string(authority.path()).unwrap(), one.cert.clone()].concat());
    for (cert, key, says) in [
        ("none.crt", "one.key", &["tls_cert: cannot read none.crt", "No such file"][..]),
        ("one.crt", "none.key", &["tls_key: cannot read none.key"]),
        (".", "one.key", &["tls_cert: cannot read .", "directory"]),
        ("text", "one.key", &["tls_cert: there is no certificate in text", "expected PEM"]),
        ("one.key", "one.key", &["tls_cert: there is no certificate in one.key"]),
        ("cut.crt", "one.key", &["tls_cert: cut.crt is damaged, or not in PEM"]),
        ("damaged.crt", "one.key", &["tls_cert: damaged.crt", "damaged"]),
        ("one.crt", "text", &["tls_key: there is no private key in text", "PKCS#8, PKCS#1 or SEC1"]),
        ("one.crt", "one.crt", &["tls_key: there is no private key in one.crt"]),
        ("one.crt", "encrypted.key", &["encrypted", "without a passphrase"]),
        ("one.crt", "odd.key", &["tls_key: the key in odd.key cannot be used", "Ed25519"]),
        (
            "one.crt",
            "other.key",
            &["the key in other.key does not belong to the first certificate in one.crt"],
        ),
        ("wrong_way.crt", "one.key", &["does not belong to the first certificate in wrong_way.crt"]),
    ] {
        for check in [true, false] {
            serve(folder.path(), cert, key, check).refused(1, says);
        }
    }
    binary::command(folder.path(), &["serve", "--listen", "127.0.0.1:0"])
        .env("PBA_TLS_KEY", "one.key")
        .output()
        .map(Pba::from)
        .unwrap()
        .refused(1, &["tls_key: one.key is given without tls_cert"]);
}

#[test]
fn a_check_says_what_a_certificate_says() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let check = |pair: &Pair| {
        pair.write(folder.path());
        serve(folder.path(), "tls.crt", "tls.key", true)
    };
    let sound = check(&authority.sign(&HERE));
    assert_eq!(sound.stderr, "");
    let checked = sound.json();
    assert_eq!(checked["tls_cert"], "tls.crt");
    assert_eq!(checked["certificate"]["names"], serde_json::json!(HERE));
    assert_eq!(checked["certificate"]["expires"], "Sun, 01 Jan 4096 00:00:00 GMT");
    let expired = check(&authority.sign_until(&HERE, 2020));
    assert!(expired.stderr.contains("it expired on Wed, 01 Jan 2020"), "{}", expired.stderr);
    expired.ok();
    let nameless = check(&authority.sign(&[]));
    assert!(nameless.stderr.contains("names no host (subjectAltName)"), "{}", nameless.stderr);
    let ended = binary::command(folder.path(), &["serve", "--check"]).output().map(Pba::from).unwrap();
    assert_eq!(ended.json()["certificate"], serde_json::Value::Null);
}

fn succeeded(server: &TlsServer) -> f64 {
    server.metric("pba_tls_reloads_total{outcome=\"succeeded\"}")
}

fn failed(server: &TlsServer) -> f64 {
    server.metric("pba_tls_reloads_total{outcome=\"failed\"}")
}

#[test]
fn one_is_replaced_under_load() {
    let target = "/v1/datasets/shapes/epochs/7/batches?schedule=cifar10-pba";
    let expected = Server::start(&[]).get(target).body;
    let server = TlsServer::start(&[]);
    // Four streams that wait in the middle, whatever is replaced meanwhile.
    let streams: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = server.download(target);
            let begun = stream.sip(1_000_000);
            (stream, begun)
        })
        .collect();
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let answer = server.download("/v1/datasets").finish();
                    assert!(answer.status == 200 && answer.complete, "{}", answer.text());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // So that the requests end if this panics.
        let _end = End(&done);
        let mut last = server.shows();
        for number in 1..=3 {
            let pair = server.authority.sign(&HERE);
            let before = answered.load(Ordering::Relaxed);
            if number == 2 {
                // As Kubernetes does: a link to a folder is replaced by another one.
                swap_link(server.folder(), &pair);
            } else {
                replace(server.folder(), &pair);
            }
            wait_for("the next certificate", || (server.shows() == pair.sent()).then_some(()));
            wait_for("the counter", || (succeeded(&server) == f64::from(number)).then_some(()));
            assert_ne!(pair.sent(), last);
            last = pair.sent();
            wait_for("a hundred requests", || {
                (answered.load(Ordering::Relaxed) >= before + 100).then_some(())
            });
        }
    });
    for (stream, begun) in streams {
        let answer = stream.finish();
        assert!(answer.complete, "a stream was lost");
        let body = [begun, answer.body].concat();
        assert_eq!(Epoch::decode(body).digest(), Epoch::decode(expected.clone()).digest());
    }
    assert_eq!(failed(&server), 0.0, "{}", server.process.stderr());
    assert_eq!(server.metric("pba_tls_handshakes_total{outcome=\"failed\"}"), 0.0);
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Replaces each file as a whole, one after the other.
fn replace(folder: &Path, pair: &Pair) {
    for (name, text) in [("tls.key", &pair.key), ("tls.crt", &pair.cert)] {
        std::fs::write(folder.join("new"), text).unwrap();
        std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
    }
}

/// Makes both files links through one link, which is replaced.
fn swap_link(folder: &Path, pair: &Pair) {
    use std::os::unix::fs::symlink;
    std::fs::create_dir(folder.join("version")).unwrap();
    pair.write(&folder.join("version"));
    symlink("version", folder.join("data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(Path::new("data").join(name), folder.join("new")).unwrap();
        std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
    }
}

#[test]
fn a_broken_one_is_not_taken_over() {
    let server = TlsServer::start(&[]);
    let shown = server.shows();
    let next = server.authority.sign(&HERE);
    // A key of another certificate; then no key at all.
    std::fs::write(server.folder().join("tls.key"), &next.key).unwrap();
    wait_for("the refusal", || (failed(&server) == 1.0).then_some(()));
    assert!(server.process.stderr().contains("does not belong to the first certificate"));
    assert!(server.process.stderr().contains("the one before is kept"));
    std::fs::remove_file(server.folder().join("tls.key")).unwrap();
    wait_for("the refusal", || (failed(&server) == 2.0).then_some(()));
    assert_eq!((server.shows(), succeeded(&server)), (shown, 0.0));
    assert_eq!(server.download("/livez").finish().status, 200);
    // The one that fits is.
    next.write(server.folder());
    wait_for("the next certificate", || (server.shows() == next.sent()).then_some(()));
    wait_for("the counter", || (succeeded(&server) == 1.0).then_some(()));
    // So is one that has expired, aloud: its owner wants it.
    server.authority.sign_until(&HERE, 2020).write(server.folder());
    wait_for("the one that has expired", || (succeeded(&server) == 2.0).then_some(()));
    assert_eq!(server.metric("pba_tls_certificate_expiry_timestamp_seconds"), 1_577_836_800.0);
    assert!(server.process.stderr().contains("it expired on"), "{}", server.process.stderr());
}
