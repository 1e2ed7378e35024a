//! `pba search`, as people and scripts use it.

use pba_tests::search::{Script, events_in, spec, trainer};
use pba_tests::server::Process;
use pba_tests::{Server, binary, wait_for};
use serde_json::{Value, json};

/// The flags of [`spec`].
const FLAGS: [&str; 20] = [
    "--model",
    "tiny",
    "--population",
    "4",
    "--epochs",
    "4",
    "--perturbation-interval",
    "2",
    "--train-size",
    "128",
    "--val-size",
    "128",
    "--batch-size",
    "64",
    "--lr",
    "0.02",
    "--seed",
    "11",
    "--device",
    "cpu",
];

#[test]
fn a_search_from_start_to_stream() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let start = [&["search", "start", "--watch", "--name", "mine"][..], &FLAGS].concat();
    let watched = server.pba(&start);
    let text = watched.ok();
    for says in [
        "search mine",
        "epoch 2: best member",
        "epoch 4: best member",
        "done in",
        &format!("pba stream --dataset shapes --schedule mine --server {}", server.url()),
    ] {
        assert!(text.contains(says), "{text} does not say {says:?}");
    }
    // Who comes late sees the same, as JSON: one event a line.
    let told = server.pba(&["search", "watch", "mine", "--json"]).ok();
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let journal: Vec<Value> =
        server.journal("mine").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_journal =
        |event: &&Value| !["state", "progress", "reconnecting"].contains(&event["event"].as_str().unwrap());
    let data: Vec<Value> = told.iter().filter(of_journal).map(|event| event["data"].clone()).collect();
    assert_eq!(data, journal);
    assert_eq!(told.last().unwrap()["data"]["state"], "done");

    let list = server.pba(&["search", "list"]).ok();
    assert!(list.starts_with("mine\t"), "{list}");
    assert!(list.contains("done") && list.contains("4/4") && list.contains("shapes"), "{list}");
    let listed = server.pba(&["search", "list", "--json"]).json();
    assert_eq!(listed, server.get("/v1/searches").json());
    let shown = server.pba(&["search", "show", "mine"]).ok();
    assert!(shown.contains("MEMBER") && shown.contains("PARENT"), "{shown}");
    assert_eq!(server.pba(&["search", "show", "mine", "--json"]).json(), server.search("mine"));
    let schedule = server.pba(&["search", "schedule", "mine"]).json();
    assert_eq!(schedule, server.pba(&["schedule", "export", "mine"]).json());
    let streamed = server.pba(&["stream", &server.url(), "--schedule", "mine", "--split", "test"]).ok();
    assert!(streamed.contains("2000"), "{streamed}");

    server.pba(&["search", "cancel", "mine"]).refused(1, &["409", "already done"]);
    server.pba(&["search", "resume", "mine"]).refused(1, &["409", "only a failed or cancelled"]);
    server.pba(&start).refused(1, &["409", "mine"]);
}

#[test]
fn refusals_on_the_command_line() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    for command in ["show", "watch", "cancel", "resume", "schedule"] {
        server.pba(&["search", command, "nothing"]).refused(1, &["404", "there is no search \"nothing\""]);
        server.pba(&["search", command, "../schedules"]).refused(1, &["404"]);
        server.pba(&["search", command]).refused(2, &["<ID>"]);
        server.pba(&["search", command, "x", "--server", "http://127.0.0.1:1"]).refused(1, &["cannot reach"]);
    }
    for (flag, value, says) in [
        ("--population", "1", "2..=256"),
        ("--population", "many", "\"many\""),
        ("--perturbation-interval", "0", "1..="),
        ("--quantile", "-0.25", "above 0"),
        ("--lr", "-1", "above 0"),
        ("--ops", "Rotate,Blur", "Blur"),
        ("--lr-schedule", "linear", "cosine"),
        ("--base", "flop", "pad_crop"),
        ("--dataset", "shape", "shapes"),
        ("--seed", "18446744073709551616", "18446744073709551615"),
    ] {
        let field = flag.trim_start_matches("--").replace('-', "_");
        server.pba(&["search", "start", flag, value]).refused(1, &[&field, says]);
    }
    server.pba(&["search", "start", "--populations", "4"]).refused(2, &["--populations"]);
    server.pba(&["search", "start", "--spec", "/nowhere.json"]).refused(1, &["cannot read /nowhere.json"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spec.json").display().to_string();
    std::fs::write(&file, "[]").unwrap();
    server.pba(&["search", "start", "--spec", &file]).refused(1, &["spec.json is not a JSON object"]);
    assert_eq!(server.get("/v1/searches").json(), json!({ "searches": [] }));

    // A file, and flags that win over it.
    std::fs::write(&file, spec(json!({ "epochs": 9, "ops": ["Rotate"] })).to_string()).unwrap();
    let start = ["search", "start", "--spec", &file, "--name", "x", "--epochs", "7", "--json"];
    let started = server.pba(&start).json();
    assert_eq!(
        (&started["id"], &started["epochs"], &started["population"]),
        (&json!("x"), &json!(7), &json!(4))
    );
    assert_eq!(started["spec"]["ops"], json!(["Rotate"]));
    server.pba(&["search", "schedule", "x"]).refused(1, &["its schedule is available when it is done"]);
    let second = server.pba(&["search", "start", "--model", "tiny", "--ops", "Rotate, Cutout"]).ok();
    assert!(second.contains("search shapes-tiny-1 is queued"), "{second}");
    assert_eq!(server.pba(&["search", "cancel", "shapes-tiny-1", "--json"]).json()["state"], "cancelled");
    assert!(server.pba(&["search", "resume", "shapes-tiny-1"]).ok().contains("queued"));
    let cancelled = server.pba(&["search", "cancel", "x"]).ok();
    assert!(cancelled.contains("cancelled"), "{cancelled}");
}

#[test]
fn watching_a_search_that_fails_or_is_cancelled() {
    let fails = Script::trains(r#"echo '{"event":"failed","error":"no space left on the disk"}'; exit 1"#);
    let server = Server::with_trainer(fails.path());
    for json in [&[][..], &["--json"]] {
        let watched = server.pba(&[&["search", "start", "--model", "tiny", "--watch"][..], json].concat());
        assert_eq!(watched.code, Some(1), "{watched:?}");
        assert!(watched.stderr.contains("the search failed: no space left on the disk"), "{watched:?}");
    }
    let shown = server.pba(&["search", "show", "shapes-tiny-1"]).ok();
    assert!(shown.contains("error: no space left on the disk"), "{shown}");
    server.pba(&["search", "schedule", "shapes-tiny-1"]).refused(1, &["is failed"]);

    let idles = Script::idles();
    let server = Server::with_trainer(idles.path());
    let folder = tempfile::tempdir().unwrap();
    let url = server.url();
    let mut watch =
        Process::start(folder.path(), &["search", "start", "--name", "x", "--watch", "--server", &url]);
    assert_eq!(watch.line().as_deref(), Some("search x"));
    server.wait_for_state("x", "running");
    server.pba(&["search", "cancel", "x"]).ok();
    assert_eq!(watch.wait().code(), Some(1));
    wait_for("the reason", || watch.stderr().contains("the search was cancelled").then_some(()));
}

/// A trainer that tells of one generation of four members, of which one copied another, and idles.
fn one_generation() -> Script {
    Script::trains(
        r#"while [ $# -gt 0 ]; do [ "$1" = --spec ] && spec=$2; shift; done
        printf '{"event":"started","spec":%s,"dataset_digest":"x"}\n' "$(tr -d '\n' <"$spec")"
        echo '{"event":"scored","epoch":2,"scores":[0.31,0.295,null,0.435]}'
        echo '{"event":"exploit","epoch":2,"target":1,"clone":3,"target_score":0.295,"clone_score":0.435,"clone_policy":[0,0,0,0],"policy":[1,1,0,0]}'
        echo '{"event":"checkpoint","epoch":2}'
        trap 'exit 3' TERM; idle"#,
    )
}

/// Where a job trains is told everywhere, as soon as the trainer says it.
#[test]
fn every_view_shows_where_it_trains() {
    let script = Script::trains(
        r#"while [ $# -gt 0 ]; do [ "$1" = --spec ] && spec=$2; shift; done
        printf '{"event":"started","spec":%s,"dataset_digest":"x"}\n' "$(tr -d '\n' <"$spec")"
        echo '{"event":"device","device":"cuda:1","strategy":"graphs","precision":"bf16","threads":16,"note":"mind the gap"}'
        echo '{"event":"progress","epoch":1,"epochs":12,"fraction":0.1,"images":128,"images_per_second":64.0,"seconds":2.0,"seconds_left":18.0}'
        trap 'exit 3' TERM; idle"#,
    );
    let server = Server::with_trainer(script.path());
    let id = server.start_search(&spec(json!({})));
    wait_for("the place", || server.search(&id)["place"].is_object().then_some(()));
    wait_for("the time left", || (server.search(&id)["progress"]["seconds_left"] == 18.0).then_some(()));
    let place = server.search(&id)["place"].clone();
    assert_eq!((&place["device"], &place["strategy"]), (&json!("cuda:1"), &json!("graphs")));
    assert_eq!((&place["precision"], &place["threads"]), (&json!("bf16"), &json!(16)));
    let listed = server.pba(&["search", "list"]).ok();
    for says in ["\t18.0\t", "\tcuda:1, graphs, bf16\t"] {
        assert!(listed.contains(says), "{listed}");
    }
    let folder = tempfile::tempdir().unwrap();
    let watch = Process::start(folder.path(), &["search", "watch", &id, "--server", &server.url()]);
    assert_eq!(watch.line().unwrap(), "trains on cuda:1, graphs, bf16");
    assert_eq!(watch.line().unwrap(), "note: mind the gap");
    wait_for("the log", || {
        let log = server.process.stderr();
        (log.contains("precision=\"bf16\"") && log.contains("seconds_left=18")).then_some(())
    });
    // It is still known when it has ended, and the server is started again.
    server.send("DELETE", &format!("/v1/searches/{id}"), b"");
    server.wait_for_state(&id, "cancelled");
    let idles = Script::idles();
    let server = server.killed_and_restarted(idles.path());
    assert_eq!(server.search(&id)["place"], place);
    // Where it goes on, its next trainer says.
    server.send("POST", &format!("/v1/searches/{id}/resume"), b"");
    server.wait_for_state(&id, "running");
    assert!(server.search(&id).get("place").is_none_or(Value::is_null));
}

#[test]
fn libtorch_is_put_before_the_trainers_own() {
    let script = Script::trains(r#"echo "{\"event\":\"failed\",\"error\":\"$LD_LIBRARY_PATH\"}"; exit 1"#);
    let folder = tempfile::tempdir().unwrap();
    let named = folder.path().join("pytorch");
    std::fs::create_dir_all(named.join("torch/lib")).unwrap();
    let text = named.to_str().unwrap();
    let refused = binary::pba_in(folder.path(), &["serve", "--libtorch", text, "--check"]);
    assert!(refused.stderr.contains("libtorch: there is no libtorch_cpu.so in"), "{refused:?}");
    for (wrong, says) in [("/opt/a:b", "colon"), ("", "libtorch: \"\" is not a folder")] {
        std::fs::write(folder.path().join("pba.toml"), format!("libtorch = {wrong:?}")).unwrap();
        let refused = binary::pba_in(folder.path(), &["serve", "--check"]);
        assert!(refused.stderr.contains(says), "{refused:?}");
    }
    std::fs::write(named.join("torch/lib/libtorch_cpu.so"), "").unwrap();
    let server = Server::start(&["--trainer", script.path(), "--libtorch", text]);
    let id = server.start_search(&spec(json!({})));
    let failed = server.wait_for_state(&id, "failed");
    let path = failed["error"].as_str().unwrap();
    assert_eq!(path.split(':').next(), named.join("torch/lib").to_str());
}

/// The score of a member is what it reached itself; whom it copied stands beside it.
#[test]
fn every_view_shows_the_same_scores() {
    let script = one_generation();
    let server = Server::with_trainer(script.path());
    let id = server.start_search(&spec(json!({ "ops": ["Rotate"] })));
    let events: Vec<Value> = {
        let mut told = Vec::new();
        for event in server.events(&id, None) {
            told.push(event.json());
            if event.kind == "checkpoint" {
                break;
            }
        }
        told
    };
    let scored = events.iter().rfind(|event| event["event"] == "scored").unwrap();
    let members = server.search(&id)["members"].clone();
    let scores: Vec<&Value> = members.as_array().unwrap().iter().map(|member| &member["score"]).collect();
    assert_eq!(json!(scores), scored["scores"]);
    assert_eq!(members[1], json!({ "id": 1, "score": 0.295, "age": 0, "parent": 3 }));
    let shown = server.pba(&["search", "show", &id]).ok();
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.contains(&vec!["1", "29.5", "%", "0", "3"]), "{shown}");
    assert!(rows.contains(&vec!["3", "43.5", "%", "2", "-"]), "{shown}");
    let folder = tempfile::tempdir().unwrap();
    let watch = Process::start(folder.path(), &["search", "watch", &id, "--server", &server.url()]);
    let line = watch.line().unwrap();
    assert_eq!(
        line.split_whitespace().collect::<Vec<_>>().join(" "),
        "epoch 2: best member 3 43.5 % age 2 parent -"
    );
}

#[test]
fn ctrl_c_ends_the_watching_and_not_the_search() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let url = server.url();
    let folder = tempfile::tempdir().unwrap();
    let watch = |arguments: &[&str]| {
        let watch = Process::start(folder.path(), &[arguments, &["--server", &url]].concat());
        let first = watch.line().unwrap();
        (watch, first)
    };
    let (mut started, first) = watch(&["search", "start", "--name", "x", "--watch"]);
    assert_eq!(first, "search x");
    let (mut told, first) = watch(&["search", "watch", "x", "--json"]);
    assert!(serde_json::from_str::<Value>(&first).is_ok(), "{first}");
    for watch in [&mut started, &mut told] {
        watch.signal("INT");
        assert_eq!(watch.wait().code(), Some(130), "{}", watch.stderr());
        for says in [
            "search x continues".to_owned(),
            format!("pba search watch x --server {url}"),
            format!("pba search cancel x --server {url}"),
        ] {
            wait_for("what to do", || watch.stderr().contains(&says).then_some(()));
        }
    }
    assert_eq!(started.line(), None);
    while let Some(line) = told.line() {
        assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
    }
    server.wait_for_state("x", "running");
    // The server has heard of none of it.
    assert!(server.pba(&["search", "cancel", "x"]).ok().contains("cancelled"));
}

/// A watch outlives the server, as long as another one comes.
#[test]
fn watching_over_a_restart() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({})));
    let (data, address) = (server.data(), server.address().to_string());
    let folder = tempfile::tempdir().unwrap();
    let url = server.url();
    let mut watch = Process::start(folder.path(), &["search", "watch", &id, "--json", "--server", &url]);
    server.wait_for_lines(&id, 6);
    drop(server);
    let data_dir = data.path().to_str().unwrap();
    let again = ["serve", "--listen", &address, "--data-dir", data_dir, "--trainer", &trainer];
    let server = Process::start(data.path(), &again);
    assert!(server.line().is_some_and(|line| line.contains(&address)), "{}", server.stderr());
    let told: Vec<Value> =
        std::iter::from_fn(|| watch.line()).map(|line| serde_json::from_str(&line).unwrap()).collect();
    assert_eq!(watch.wait().code(), Some(0), "{}", watch.stderr());
    let of_journal =
        |event: &&Value| !["state", "progress", "reconnecting"].contains(&event["event"].as_str().unwrap());
    let told: Vec<Value> = told.iter().filter(of_journal).map(|event| event["data"].clone()).collect();
    let journal = data.path().join("searches").join(&id).join("events.jsonl");
    let journal = events_in(&std::fs::read_to_string(journal).unwrap());
    assert_eq!(told, journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>());
}

#[test]
fn help_names_every_field() {
    let help = binary::pba(&["search", "start", "--help"]).ok();
    for field in spec(json!({})).as_object().unwrap().keys() {
        assert!(help.contains(&format!("--{}", field.replace('_', "-"))), "{field}");
    }
}
