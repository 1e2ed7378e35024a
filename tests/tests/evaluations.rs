//! Evaluations end with the test error that their spec says, whatever happens meanwhile.

use std::sync::OnceLock;

use pba_tests::search::{Event, Script, assert_no_trainer, evaluation, signal, spec, trainer, trainers_in};
use pba_tests::server::Process;
use pba_tests::{Server, binary, wait_for};
use serde_json::{Value, json};

const JOBS: &str = "evaluations";

/// The journal of the evaluation of [`evaluation`] to which nothing happens.
fn undisturbed(trainer: &str) -> &'static str {
    static UNDISTURBED: OnceLock<String> = OnceLock::new();
    UNDISTURBED.get_or_init(|| {
        let server = Server::with_trainer(trainer);
        let id = server.start_job(JOBS, &evaluation(json!({})));
        server.wait_for_job(JOBS, &id, "done");
        server.journal_of(JOBS, &id)
    })
}

/// Checks that an evaluation ends as if nothing had happened, and that nothing is left of it.
#[track_caller]
fn ends_undisturbed(server: &Server, id: &str, trainer: &str) {
    let done = server.wait_for_job(JOBS, id, "done");
    let expected = undisturbed(trainer);
    assert_eq!(server.journal_of(JOBS, id), expected);
    let evaluated: Value = serde_json::from_str(expected.lines().last().unwrap()).unwrap();
    for field in ["test_error", "train_loss", "images", "split", "epoch"] {
        assert_eq!(done[field], evaluated[field], "{field}");
        assert!(!done[field].is_null(), "{field}");
    }
    let told: Vec<String> =
        server.events_of(JOBS, id, None).filter(|event| event.id.is_some()).map(|event| event.data).collect();
    assert_eq!(told, expected.lines().collect::<Vec<_>>(), "what is told is not what is on disk");
    assert_no_trainer(&server.job_folder(JOBS, id));
}

#[test]
fn an_evaluation_from_start_to_end() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let schedule = server.get("/v1/schedules/cifar10-pba");
    let digest = schedule.header("etag").unwrap().trim_matches('"').to_owned();
    // By digest, and told by name.
    let id = server.start_job(JOBS, &evaluation(json!({ "schedule": digest[..12] })));
    let queued = server.job(JOBS, &id);
    assert_eq!((&queued["schedule"], &queued["ablation"]), (&json!("cifar10-pba"), &json!("scheduled")));
    let keys: Vec<&String> = queued.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "id",
            "state",
            "created",
            "epoch",
            "epochs",
            "schedule",
            "ablation",
            "train_loss",
            "test_error",
            "images",
            "split",
            "seconds",
            "error",
            "dataset",
            "model",
            "place",
            "progress",
            "warnings",
            "spec",
        ]
    );
    let mut watcher = server.events_of(JOBS, &id, None);
    let events: Vec<Event> = watcher.by_ref().collect();
    assert!(watcher.ended_well);
    let last = events.last().unwrap();
    assert_eq!((last.kind.as_str(), &last.json()["state"]), ("state", &json!("done")));
    for event in &events {
        match event.id {
            Some(_) => assert_eq!(event.json()["event"], event.kind.as_str()),
            None => assert!(["state", "progress"].contains(&event.kind.as_str()), "{event:?}"),
        }
    }
    ends_undisturbed(&server, &id, &trainer);
    let done = server.job(JOBS, &id);
    assert_eq!((&done["images"], &done["split"], &done["epochs"]), (&json!(2000), &json!("test"), &json!(8)));
    assert_eq!(server.get("/v1/evaluations").json(), json!({ "evaluations": [done] }));
    // Other pictures, another result; and the metrics of searches tell of none of it.
    for (name, change) in
        [("plain", json!({ "schedule": "none" })), ("flat", json!({ "ablation": "flatten" }))]
    {
        let mut changed = evaluation(change);
        changed["name"] = name.into();
        server.start_job(JOBS, &changed);
        let other = server.wait_for_job(JOBS, name, "done");
        assert_ne!(other["train_loss"], done["train_loss"], "{name}");
    }
    let metrics = server.metrics();
    assert_eq!(metrics.get("pba_search_images_trained_total"), 0.0);
    // Names of evaluations and of searches do not stand in each other's way, and those of evaluations
    // are no schedules'.
    assert_eq!(server.get(&format!("/v1/schedules/{id}")).status, 404);
    assert_eq!(server.start_search(&spec(json!({ "epochs": 2 }))), id);
    let pointless = evaluation(json!({ "name": "pointless", "schedule": "none", "ablation": "final" }));
    let answer = server.send("POST", "/v1/evaluations", pointless.to_string().as_bytes());
    assert_eq!((answer.status, answer.problem().parameter.as_deref()), (400, Some("ablation")));
    let data = server.data();
    drop(server);
    let folders = data.path().join("evaluations");
    std::fs::create_dir(folders.join("copy")).unwrap();
    std::fs::copy(folders.join(&id).join("evaluation.json"), folders.join("copy/evaluation.json")).unwrap();
    let server = Server::start_on(data, &["--trainer", "/nowhere"]);
    assert_eq!(server.job(JOBS, &id), done, "after a restart");
    assert_eq!(server.get("/v1/evaluations/copy").status, 404);
    server.assert_healthy();
}

#[test]
fn a_trainer_that_is_killed() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let id = server.start_job(JOBS, &evaluation(json!({})));
    for lines in [0, 1, 4, 7] {
        server.wait_for_lines_of(JOBS, &id, lines);
        signal(server.trainer_in(&server.job_folder(JOBS, &id)), "KILL");
    }
    ends_undisturbed(&server, &id, &trainer);
    let restarts = |kind: &str| server.metric(&format!("pba_trainer_restarts_total{{kind=\"{kind}\"}}"));
    assert!((1.0..=4.0).contains(&restarts("evaluation")));
    assert_eq!(restarts("search"), 0.0, "no search was restarted");
}

/// The moment that matters most: an event is on disk, and the server was not told.
#[test]
fn a_trainer_that_is_killed_before_it_tells_what_it_wrote() {
    let Some(trainer) = trainer() else { return };
    for event in ["evaluating", "trained", "evaluated"] {
        let script = Script::trains(&format!(
            r#"real='{trainer}'
            [ -e "$here/killed" ] && exec "$real" "$@"
            mkfifo "$here/out"
            "$real" "$@" >"$here/out" &
            while read -r line; do
                case "$line" in *'"event":"{event}"'*)
                    kill -9 $!; touch "$here/killed"; kill -9 $$;; esac
                printf '%s\n' "$line"
            done <"$here/out""#
        ));
        let server = Server::with_trainer(script.path());
        let id = server.start_job(JOBS, &evaluation(json!({})));
        ends_undisturbed(&server, &id, &trainer);
    }
}

#[test]
fn a_server_that_is_killed_and_restarted() {
    let Some(trainer) = trainer() else { return };
    let mut server = Server::with_trainer(&trainer);
    // Of a schedule that is gone when it goes on.
    let document = server.get("/v1/schedules/cifar10-pba").text().replace("cifar10-pba", "mine");
    assert_eq!(server.send("PUT", "/v1/schedules/mine", document.as_bytes()).status, 201);
    let id = server.start_job(JOBS, &evaluation(json!({ "schedule": "mine" })));
    assert_eq!(server.send("DELETE", "/v1/schedules/mine", b"").status, 204);
    for lines in [1, 3, 6] {
        server.wait_for_lines_of(JOBS, &id, lines);
        server = server.killed_and_restarted(&trainer);
    }
    server.wait_for_job(JOBS, &id, "done");
    let renamed = undisturbed(&trainer).replace("\"schedule\":\"cifar10-pba\"", "\"schedule\":\"mine\"");
    assert_eq!(server.journal_of(JOBS, &id), renamed);
    assert_no_trainer(server.data().path());
}

#[test]
fn an_evaluation_that_is_cancelled_and_resumed() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let id = server.start_job(JOBS, &evaluation(json!({})));
    let path = format!("/v1/evaluations/{id}");
    for lines in [0, 2, 5] {
        server.wait_for_lines_of(JOBS, &id, lines);
        let answer = server.send("DELETE", &path, b"");
        assert_eq!((answer.status, answer.json()["state"].as_str()), (200, Some("cancelled")), "{lines}");
        assert_eq!(trainers_in(&server.job_folder(JOBS, &id)), [0; 0], "it is still there after the answer");
        assert_eq!(server.send("DELETE", &path, b"").status, 409);
        assert_eq!(server.send("POST", &format!("{path}/resume"), b"").status, 202);
    }
    ends_undisturbed(&server, &id, &trainer);
    let answer = server.send("POST", &format!("{path}/resume"), b"");
    assert!(answer.problem().detail.contains("only a failed or cancelled evaluation"), "{}", answer.text());
}

#[test]
fn a_search_and_an_evaluation_share_the_queue() {
    // Each runs until its file is there, and then fails.
    let script = Script::trains(
        r#"while [ "$1" != --dir ]; do shift; done
        name=$(basename "$2")
        while [ -e "$0" ] && ! [ -e "$here/$name" ]; do sleep 0.02; done
        echo '{"event":"failed","error":"enough"}'; exit 1"#,
    );
    let mut server = Server::with_trainer(script.path());
    let jobs = [("evaluations", "c"), ("searches", "a"), ("evaluations", "b"), ("searches", "d")];
    for (kind, name) in jobs {
        let named = json!({ "name": name });
        server.start_job(kind, &if kind == JOBS { evaluation(named) } else { spec(named) });
    }
    let states = |server: &Server| -> Vec<String> {
        jobs.iter().map(|(kind, name)| server.job(kind, name)["state"].as_str().unwrap().to_owned()).collect()
    };
    for (ended, (_, name)) in jobs.iter().enumerate() {
        wait_for("the next to run", || {
            let expected = (0..4).map(|at| match at {
                at if at < ended => "failed",
                at if at == ended => "running",
                _ => "queued",
            });
            states(&server).into_iter().eq(expected).then_some(())
        });
        // One that a killed server started still ends.
        wait_for("one trainer", || (trainers_in(server.data().path()).len() == 1).then_some(()));
        let searches = jobs[ended + 1..].iter().filter(|(kind, _)| *kind == "searches").count();
        assert_eq!(server.metric("pba_jobs{kind=\"search\",state=\"queued\"}"), searches as f64, "{name}");
        if ended == 1 {
            server = server.killed_and_restarted(script.path());
            wait_for("the line to go on", || (states(&server)[1] == "running").then_some(()));
        }
        std::fs::write(script.file(name), "").unwrap();
    }
    wait_for("all to end", || (states(&server) == ["failed"; 4]).then_some(()));
    assert_eq!(server.job(JOBS, "b")["error"], "enough");
    assert_no_trainer(server.data().path());
}

#[test]
fn what_is_wrong_is_refused_with_its_field() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let post = |body: &[u8]| server.send("POST", "/v1/evaluations", body);
    #[rustfmt::skip]
    let cases = [
        ("epochs", json!(0), 400, "1..="),
        ("train_size", json!("all"), 400, "1..="),
        ("model", json!("tinny"), 400, "tiny"),
        ("ablation", json!("all"), 400, "flatten"),
        ("base", json!("flop"), 400, "pad_crop:N"),
        ("name", json!("a/b"), 400, "letters"),
        ("schedule", json!(7), 400, "text"),
        ("population", json!(4), 400, "no such field; the fields are name, schedule, dataset"),
        ("schedule", json!("cifar10_pba"), 404, "cifar10-pba"),
        ("dataset", json!("shape"), 404, "shapes"),
    ];
    for (field, value, status, allowed) in cases {
        let answer = post(evaluation(json!({ field: value })).to_string().as_bytes());
        assert_eq!(answer.status, status, "{field}: {}", answer.text());
        let problem = answer.problem();
        assert_eq!(problem.parameter.as_deref(), Some(field), "{problem:?}");
        assert!(problem.allowed.as_deref().unwrap_or_default().contains(allowed), "{field}: {problem:?}");
    }
    for body in [&b""[..], b"{", b"[]", b"\xff"] {
        assert_eq!(post(body).status, 400);
    }
    assert_eq!(server.send("POST", "/v1/evaluations?epochs=4", b"{}").status, 400);
    assert_eq!(server.get("/v1/evaluations").json(), json!({ "evaluations": [] }));
    let id = server.start_job(JOBS, &evaluation(json!({})));
    let taken = post(evaluation(json!({})).to_string().as_bytes());
    assert_eq!(taken.status, 409);
    assert!(taken.problem().detail.contains("taken by an evaluation"), "{}", taken.text());
    for (method, path) in [("GET", ""), ("DELETE", ""), ("GET", "/events"), ("POST", "/resume")] {
        let answer = server.send(method, &format!("/v1/evaluations/smal{path}"), b"");
        assert_eq!((answer.status, answer.problem().parameter.as_deref()), (404, Some("evaluation")));
        let answer = server.send(method, &format!("/v1/evaluations/{id}{path}?x=1"), b"");
        assert_eq!((answer.status, answer.problem().parameter.as_deref()), (400, Some("x")));
    }
    let silent = Script::trains("exit 0");
    let server = Server::with_trainer(silent.path());
    let id = server.start_job(JOBS, &evaluation(json!({})));
    let failed = server.wait_for_job(JOBS, &id, "failed");
    assert!(failed["error"].as_str().unwrap().contains("without a test error"), "{failed}");
}

/// What only the trainer knows.
#[test]
fn what_the_dataset_and_the_machine_do_not_have() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    for (change, field) in [
        (json!({ "train_size": 10_001 }), "train_size"),
        (json!({ "train_size": 31 }), "batch_size"),
        (json!({ "device": "cuda:99" }), "device"),
    ] {
        let answer = server.send("POST", "/v1/evaluations", evaluation(change).to_string().as_bytes());
        assert_eq!((answer.status, answer.problem().parameter.as_deref()), (400, Some(field)));
    }
}

/// The flags of [`evaluation`].
const FLAGS: [&str; 16] = [
    "--model",
    "tiny",
    "--epochs",
    "8",
    "--train-size",
    "640",
    "--lr",
    "0.02",
    "--seed",
    "11",
    "--device",
    "cpu",
    "--schedule",
    "cifar10-pba",
    "--dataset",
    "shapes",
];

#[test]
fn evaluations_on_the_command_line() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let start = [&["evaluate", "--name", "mine", "--watch"][..], &FLAGS].concat();
    let text = server.pba(&start).ok();
    for says in ["evaluation mine", "epoch 8: train loss", "done in", "test error", "2000 images of test"] {
        assert!(text.contains(says), "{text} does not say {says:?}");
    }
    let told = server.pba(&["evaluate", "watch", "mine", "--json"]).ok();
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_journal =
        told.iter().filter(|event| !["state", "progress"].iter().any(|kind| event["event"] == **kind));
    let data: Vec<String> = of_journal.map(|event| event["data"].to_string()).collect();
    assert_eq!(data, server.journal_of(JOBS, "mine").lines().collect::<Vec<_>>());
    let list = server.pba(&["evaluate", "list"]).ok();
    let row: Vec<&str> = list.trim_end().split('\t').collect();
    assert_eq!(row[3].parse::<f64>().ok(), server.get("/v1/evaluations/mine").json()["test_error"].as_f64());
    assert!(list.starts_with("mine\t") && list.contains("8/8"), "{list}");
    assert_eq!(server.pba(&["evaluate", "list", "--json"]).json(), server.get("/v1/evaluations").json());
    assert_eq!(server.pba(&["evaluate", "show", "mine", "--json"]).json(), server.job(JOBS, "mine"));
    server.pba(&["evaluate", "cancel", "mine"]).refused(1, &["409", "already done"]);
    server.pba(&["evaluate", "resume", "mine"]).refused(1, &["409", "only a failed or cancelled"]);
    server.pba(&["evaluate", "show", "nothing"]).refused(1, &["404", "there is no evaluation \"nothing\""]);
    server.pba(&["evaluate", "--schedule", "mine"]).refused(1, &["404", "none"]);
    server.pba(&["evaluate", "--watch"]).refused(1, &["nothing to evaluate"]);
    server.pba(&["evaluate", "--epochs", "many"]).refused(1, &["epochs", "many"]);
    server.pba(&["evaluate", "--populations", "4"]).refused(2, &["--populations"]);
    let help = binary::pba(&["evaluate", "--help"]).ok();
    for field in
        evaluation(json!({ "ablation": "final", "base": "", "batch_size": 1 })).as_object().unwrap().keys()
    {
        assert!(help.contains(&format!("--{}", field.replace('_', "-"))), "{field}");
    }
}

#[test]
fn ctrl_c_ends_the_watching_and_not_the_evaluation() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let url = server.url();
    let folder = tempfile::tempdir().unwrap();
    let start = ["evaluate", "--name", "x", "--model", "tiny", "--watch", "--server", &url];
    let mut watch = Process::start(folder.path(), &start);
    assert_eq!(watch.line().as_deref(), Some("evaluation x"));
    watch.signal("INT");
    assert_eq!(watch.wait().code(), Some(130), "{}", watch.stderr());
    let says = format!("pba evaluate watch x --server {url}\n");
    wait_for("what to do", || watch.stderr().contains(&says).then_some(()));
    server.wait_for_job(JOBS, "x", "running");
    assert!(server.pba(&["evaluate", "cancel", "x"]).ok().contains("cancelled"));
    assert!(server.pba(&["evaluate", "resume", "x"]).ok().contains("queued"));
}
