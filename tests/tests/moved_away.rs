//! A server whose data directory was moved away writes nothing into what is there now.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use pba_tests::search::{Script, spec};
use pba_tests::{Server, wait_for};
use serde_json::json;

/// What a successor has acknowledged is not undone by a server that still runs.
#[test]
fn a_server_that_lost_its_data_directory_leaves_it_to_the_successor() {
    // The first trainer fails when it is told to; others train for ever.
    let script = Script::trains(
        r#"trap 'exit 3' TERM
        if mkdir "$here/first" 2>/dev/null; then
            while [ -e "$0" ] && [ ! -e "$here/fail" ]; do sleep 0.05; done
            exit 1
        fi
        idle"#,
    );
    let first = Server::with_trainer(script.path());
    first.start_search(&spec(json!({ "name": "small" })));
    first.start_search(&spec(json!({ "name": "later" })));
    first.wait_for_state("small", "running");
    wait_for("its trainer", || script.file("first").exists().then_some(()));

    let data = first.data();
    let elsewhere = tempfile::tempdir_in(data.path().parent().unwrap()).unwrap();
    fs::rename(data.path(), elsewhere.path()).unwrap();
    let copied = Command::new("cp").arg("-a").arg(elsewhere.path()).arg(data.path()).status().unwrap();
    assert!(copied.success());
    let second = Server::start_on(Arc::clone(&data), &["--trainer", script.path()]);
    second.wait_for_state("small", "running");
    assert_eq!(second.send("DELETE", "/v1/searches/small", b"").status, 200);

    fs::write(script.file("fail"), "").unwrap();
    first.wait_for_state("small", "failed");
    let waiting = wait_for("the other search to wait", || {
        let waiting = first.search("later")["waiting"].as_str().map(str::to_owned);
        waiting.filter(|reason| reason.contains("moved away"))
    });
    assert!(waiting.contains("put it back"), "{waiting}");
    assert_eq!(first.search("later")["state"], "queued");
    let second = second.killed_and_restarted(script.path());
    assert_eq!(second.search("small")["state"], "cancelled");
}
