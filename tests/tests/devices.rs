//! One job trains at a time on each device. A script stands in for a trainer on a machine with two GPUs.

use pba_tests::search::{Script, evaluation, spec};
use pba_tests::{Server, wait_for};
use serde_json::json;

/// A trainer that finds two GPUs, writes down how it is called, and trains until it is told to stop.
fn two_gpus() -> Script {
    Script::new(
        r#"case "$1 $*" in
            devices*) echo '{"devices":[{"device":"cpu"},{"device":"cuda:0"},{"device":"cuda:1"}]}'; exit 0;;
            *' --check'*) exit 0;;
        esac
        echo "$*" >>"$here/calls"
        trap 'exit 3' TERM; idle"#,
    )
}

#[test]
fn a_job_for_each_device() {
    let script = two_gpus();
    let server = Server::with_trainer(script.path());
    let state = |jobs: &str, id: &str| server.job(jobs, id)["state"].as_str().unwrap().to_owned();
    let start = |name: &str, device: &str| {
        server.start_search(&spec(json!({ "name": name, "device": device })));
    };
    start("first", "auto");
    start("second", "auto");
    start("third", "auto");
    start("named", "cuda:1");
    start("on-cpu", "cpu");
    server.start_job("evaluations", &evaluation(json!({ "name": "tested", "device": "cpu" })));
    for name in ["first", "second", "on-cpu"] {
        server.wait_for_state(name, "running");
    }
    for (jobs, name) in [("searches", "third"), ("searches", "named"), ("evaluations", "tested")] {
        assert_eq!(state(jobs, name), "queued", "{name}");
    }
    // The device that `auto` means, for each folder.
    let placed = |name: &str| {
        let call = wait_for("the trainer to be called", || {
            let calls = std::fs::read_to_string(script.file("calls")).unwrap_or_default();
            calls.lines().rev().find(|call| call.contains(&format!("/{name}/"))).map(str::to_owned)
        });
        let words: Vec<&str> = call.split_whitespace().collect();
        words.windows(2).find(|pair| pair[0] == "--auto").map(|pair| pair[1].to_owned())
    };
    assert_eq!(placed("first").as_deref(), Some("cuda:0"));
    assert_eq!(placed("second").as_deref(), Some("cuda:1"));
    assert_eq!(placed("on-cpu"), None);

    // What frees a device lets in the one that has waited longest for it.
    let cancel =
        |name: &str| assert_eq!(server.send("DELETE", &format!("/v1/searches/{name}"), b"").status, 200);
    cancel("on-cpu");
    server.wait_for_job("evaluations", "tested", "running");
    cancel("first");
    server.wait_for_state("third", "running");
    assert_eq!(placed("third").as_deref(), Some("cuda:0"));
    assert_eq!(state("searches", "named"), "queued", "its own GPU is taken");
    cancel("second");
    server.wait_for_state("named", "running");
    assert_eq!(server.metric("pba_jobs{kind=\"search\",state=\"running\"}"), 2.0);

    // A server that is stopped ends them all, and the next one begins them again.
    let data = server.data();
    drop(server);
    let server = Server::start_on(data, &["--trainer", script.path()]);
    for (jobs, name) in [("searches", "third"), ("searches", "named"), ("evaluations", "tested")] {
        server.wait_for_job(jobs, name, "running");
    }
}

#[test]
fn a_trainer_that_knows_no_gpus_trains_on_the_cpu() {
    let script = Script::new(
        r#"case "$1 $*" in devices*) echo 'no idea'; exit 1;; *' --check'*) exit 0;; esac
        echo "$*" >>"$here/calls"
        trap 'exit 3' TERM; idle"#,
    );
    let server = Server::with_trainer(script.path());
    for name in ["first", "second"] {
        server.start_search(&spec(json!({ "name": name, "device": "auto" })));
    }
    server.wait_for_state("first", "running");
    assert_eq!(server.search("second")["state"], "queued");
    let call = wait_for("the trainer to be called", || std::fs::read_to_string(script.file("calls")).ok());
    assert!(!call.contains("--auto"), "{call}");
}
