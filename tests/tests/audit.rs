//! The audit log: who changed what, or tried to.

use pba_tests::guarded::{Guarded, bearer};
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
