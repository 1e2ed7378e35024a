//! The audit log: who changed what, or tried to.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use pba_tests::guarded::{Guarded, bearer};
use pba_tests::http::{connect, raw};
use pba_tests::{Download, Server, wait_for};
use pba_wire::Role;
use pba_wire::audit::AuditEntry;
use serde_json::{Value, json};

#[test]
fn changes_and_attempts_are_in_the_audit_log() {
    let guarded = Guarded::start(&[]);
    let schedule = br#"{"format":"pba-schedule/1","name":"mine","epochs":1,"policies":[]}"#;
    let document = guarded.ask_as(Role::Reader, "GET", "/v1/schedules/cifar10-pba", b"").body;
    let mut document: Value = serde_json::from_slice(&document).unwrap();
    let object = document.as_object_mut().unwrap();
    object.insert("name".to_owned(), json!("mine"));
    object.remove("digest");
    let document = serde_json::to_vec(&document).unwrap();
    let put = |role: Role, body: &[u8]| guarded.ask_as(role, "PUT", "/v1/schedules/mine", body).status;
    assert_eq!(put(Role::Reader, &document), 403);
    assert_eq!(put(Role::Researcher, schedule), 400);
    assert_eq!(put(Role::Researcher, &document), 201);
    let id = bearer(&guarded.tokens[&Role::Admin]);
    let headers = [("authorization", id.as_str()), ("x-request-id", "my-request-7")];
    assert_eq!(guarded.ask("DELETE", "/v1/schedules/mine?", &headers, b"").status, 204);
    assert_eq!(guarded.ask("POST", "/v1/searches", &[], b"{}").status, 401);
    // Neither reads, nor what strangers read in vain.
    assert_eq!(guarded.ask("GET", "/v1/schedules", &[], b"").status, 401);
    assert_eq!(guarded.ask_as(Role::Reader, "GET", "/v1/audit", b"").status, 403);
    let told = |entry: &AuditEntry| {
        let role = entry.role.map(Role::name).unwrap_or("-");
        format!(
            "{} {role} {} {} {}",
            entry.token.as_deref().unwrap_or("-"),
            entry.method,
            entry.path,
            entry.status
        )
    };
    let expected = [
        "reader reader PUT /v1/schedules/mine 403",
        "researcher researcher PUT /v1/schedules/mine 400",
        "researcher researcher PUT /v1/schedules/mine 201",
        "admin admin DELETE /v1/schedules/mine 204",
        "- - POST /v1/searches 401",
        "reader reader GET /v1/audit 403",
    ];
    let entries =
        wait_for("the entries", || Some(guarded.audit()).filter(|found| found.len() >= expected.len()));
    assert_eq!(entries.iter().map(told).collect::<Vec<_>>(), expected);
    assert_eq!(entries[3].request_id.as_deref(), Some("my-request-7"));
    for entry in &entries {
        assert!(entry.peer.starts_with("127.0.0.1:"), "{}", entry.peer);
        assert!(
            entry.time.starts_with("20") && entry.time.ends_with('Z') && entry.time.contains('T'),
            "{entry:?}"
        );
    }
    assert_eq!(
        guarded.ask_as(Role::Admin, "GET", "/v1/audit?n=2", b"").json()["entries"].as_array().unwrap().len(),
        2
    );
    assert_eq!(guarded.ask_as(Role::Admin, "GET", "/v1/audit?n=0", b"").status, 400);

    // A replica refuses, and has that in its log only.
    let flags = ["--tokens-file", guarded.file.to_str().unwrap()];
    let replica = Server::start_on(guarded.server.data(), &flags);
    let answer =
        Download::open(replica.address(), "DELETE", "/v1/schedules/mine", &[], b"").unwrap().finish();
    assert_eq!(answer.status, 401);
    wait_for("the line of the log", || {
        replica.process.stderr().contains("a change was refused").then_some(())
    });
    assert_eq!(guarded.audit().len(), expected.len());

    // What strangers try is bounded; what others do is not displaced by it.
    for _ in 0..100 {
        assert_eq!(guarded.ask("DELETE", "/v1/schedules/mine", &[], b"").status, 401);
    }
    assert_eq!(guarded.ask_as(Role::Admin, "DELETE", "/v1/schedules/mine", b"").status, 404);
    let entries = wait_for("the last entry", || {
        Some(guarded.audit()).filter(|found| found.last().is_some_and(|entry| entry.status == 404))
    });
    assert!(entries.len() < expected.len() + 65, "{}", entries.len());
    assert_eq!(guarded.metric("pba_audit_lines_lost_total"), 0.0);
}

#[test]
fn a_search_is_in_the_audit_log_by_its_name() {
    let script = pba_tests::search::Script::idles();
    let guarded = Guarded::start(&["--trainer", script.path()]);
    let spec = pba_tests::search::spec(json!({"name": "seen"})).to_string();
    let started = guarded.ask_as(Role::Researcher, "POST", "/v1/searches", spec.as_bytes());
    assert_eq!(started.status, 202, "{}", started.text());
    let entry = wait_for("the entry", || guarded.audit().pop());
    assert_eq!((entry.made.as_deref(), entry.status), (Some("seen"), 202));
    assert_eq!(guarded.ask_as(Role::Researcher, "DELETE", "/v1/searches/seen", b"").status, 200);
}

#[test]
fn what_the_disk_does_not_take_of_the_audit_log_is_told() {
    let guarded = Guarded::start(&[]);
    std::fs::create_dir(guarded.server.data().path().join("audit.jsonl")).unwrap();
    assert_eq!(guarded.ask_as(Role::Admin, "DELETE", "/v1/schedules/nothing", b"").status, 404);
    wait_for("the loss", || (guarded.metric("pba_audit_lines_lost_total") == 1.0).then_some(()));
    wait_for("the log", || {
        let log = guarded.server.process.stderr();
        (log.contains("an entry of the audit log cannot be written") && log.contains("/v1/schedules/nothing"))
            .then_some(())
    });
}

/// The document of a schedule of a name.
fn document(guarded: &Guarded, name: &str) -> String {
    let mut document = guarded.ask_as(Role::Reader, "GET", "/v1/schedules/cifar10-pba", b"").json();
    let object = document.as_object_mut().unwrap();
    object.insert("name".to_owned(), json!(name));
    object.remove("digest");
    document.to_string()
}

/// The bytes of a request that puts a schedule.
fn put(guarded: &Guarded, name: &str) -> String {
    let body = document(guarded, name);
    let authorization = bearer(&guarded.tokens[&Role::Researcher]);
    format!(
        "PUT /v1/schedules/{name} HTTP/1.1\r\nhost: {}\r\nauthorization: {authorization}\r\n\
         content-length: {}\r\n\r\n{body}",
        guarded.server.address(),
        body.len()
    )
}

fn made(guarded: &Guarded) -> BTreeSet<String> {
    let entries = guarded.audit().into_iter().filter(|entry| entry.status == 201);
    entries.map(|entry| entry.path.replace("/v1/schedules/", "")).collect()
}

#[test]
fn what_clients_change_that_hang_up_is_in_the_audit_log() {
    let guarded = Guarded::start(&[]);
    for number in 0..40 {
        let request = put(&guarded, &format!("gone-{number}"));
        let mut connection = connect(guarded.server.address()).unwrap();
        connection.write_all(request.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_micros(number * 50));
        // Its buffer is not empty when it is closed, or it is still to be answered: either way it is a reset.
        drop(connection);
    }
    let stored = || -> BTreeSet<String> {
        let list = guarded.ask_as(Role::Reader, "GET", "/v1/schedules", b"").json();
        let names =
            list["schedules"].as_array().unwrap().iter().map(|of| of["name"].as_str().unwrap().to_owned());
        names.filter(|name| name.starts_with("gone-")).collect()
    };
    // What has been seen of a request before its end is made, and nothing is made without an entry and a count.
    wait_for("changes to be made", || (stored().len() > 10).then_some(()));
    let series = "pba_requests_total{route=\"/v1/schedules/{schedule}\",status=\"201\"}";
    wait_for("their entries and counts", || {
        let stored = stored();
        (made(&guarded) == stored && guarded.metric(series) == stored.len() as f64).then_some(())
    });
}

#[test]
fn what_changes_nothing_does_not_displace_what_does() {
    let guarded = Guarded::start(&["--metrics-listen", "127.0.0.1:0"]);
    let metrics = guarded.server.process.line().unwrap();
    let metrics = metrics.strip_prefix("metrics on http://").unwrap().strip_suffix("/metrics").unwrap();
    let metrics = metrics.parse().unwrap();
    let body = document(&guarded, "kept");
    assert_eq!(guarded.ask_as(Role::Researcher, "PUT", "/v1/schedules/kept", body.as_bytes()).status, 201);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let reader = bearer(&guarded.tokens[&Role::Reader]);
    let reader = ("authorization", reader.as_str());
    for _ in 0..80 {
        assert_eq!(guarded.ask("POST", "/v1/session", &[], b"").status, 415);
        assert_eq!(guarded.ask("POST", "/v1/session", &[form], b"token=wrong").status, 401);
        assert_eq!(guarded.ask("POST", "/v1/session/end", &[], b"").status, 303);
        assert_eq!(guarded.ask("POST", "/v1/session/end", &[reader], b"").status, 303);
        let changed = ("pba-request", "0000000000000000");
        assert_eq!(guarded.ask("PUT", "/v1/schedules/x", &[reader, changed], b"{}").status, 400);
        assert_eq!(guarded.ask_as(Role::Researcher, "DELETE", "/v1/schedules/none", b"").status, 404);
        let probed = Download::open(metrics, "POST", "/metrics", &[], b"").unwrap().finish();
        assert_eq!(probed.status, 405);
    }
    let two_hosts = b"PUT /v1/schedules/x HTTP/1.1\r\nhost: a\r\nhost: b\r\ncontent-length: 0\r\n\r\n";
    raw(guarded.server.address(), two_hosts);
    assert_eq!(guarded.ask_as(Role::Researcher, "DELETE", "/v1/schedules/kept", b"").status, 204);
    let entries = wait_for("the last entry", || {
        Some(guarded.audit()).filter(|found| found.last().is_some_and(|entry| entry.status == 204))
    });
    assert_eq!((entries[0].path.as_str(), entries[0].status), ("/v1/schedules/kept", 201));
    assert!(entries.len() <= 2 * 60 + 2, "{}", entries.len());
    assert!(entries.iter().all(|entry| entry.path != "/metrics"));
}

#[test]
fn what_is_answered_while_the_server_ends_is_in_the_audit_log() {
    let mut guarded = Guarded::start(&[]);
    let request = put(&guarded, "last");
    let (most, end) = request.split_at(request.len() - 10);
    let mut connection = connect(guarded.server.address()).unwrap();
    connection.write_all(most.as_bytes()).unwrap();
    // It has been received as far as it was sent once a later request is answered.
    assert_eq!(guarded.ask("GET", "/livez", &[], b"").status, 200);
    guarded.server.process.signal("INT");
    wait_for("the server to stop", || guarded.server.process.stderr().contains("draining").then_some(()));
    connection.write_all(end.as_bytes()).unwrap();
    guarded.server.process.wait();
    let data = guarded.server.data();
    let log = std::fs::read_to_string(data.path().join("audit.jsonl")).unwrap_or_default();
    let stored = data.path().join("schedules/last.json").exists();
    assert_eq!(stored, log.contains("/v1/schedules/last"), "{log}");
    use std::os::unix::fs::PermissionsExt;
    let mode =
        std::fs::metadata(data.path().join("audit.jsonl")).map(|file| file.permissions().mode() & 0o777);
    assert_eq!(mode.unwrap_or(0o600), 0o600);
}
