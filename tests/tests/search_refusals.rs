//! Searches that cannot be: refused before anything starts, or ended with the reason. Most stand
//! in for the trainer with a script, so they run where there is no libtorch.

use std::time::{Duration, Instant};

use pba_tests::search::{Script, assert_no_trainer, comparison, evaluation, spec, trainer, trainers_in};
use pba_tests::{Answer, Server, wait_for};
use serde_json::json;

fn post(server: &Server, body: &[u8]) -> Answer {
    server.send("POST", "/v1/searches", body)
}

/// Checks that nothing was begun.
#[track_caller]
fn nothing_started(server: &Server) {
    assert_eq!(server.get("/v1/searches").json(), json!({ "searches": [] }));
    let folders: Vec<_> = std::fs::read_dir(server.data().path().join("searches"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(folders, [""; 0], "something was left");
    assert_eq!(server.metric("pba_jobs{kind=\"search\",state=\"queued\"}"), 0.0);
}

#[test]
fn every_field_wrong_once() {
    // A trainer that would find every spec right: whatever is refused here, the server refuses.
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    #[rustfmt::skip]
    let cases = [
        ("population", json!(1), "2..=256"),
        ("population", json!(257), "2..=256"),
        ("population", json!(-4), "2..=256"),
        ("population", json!(4.5), "2..=256"),
        ("population", json!("4"), "2..=256"),
        ("perturbation_interval", json!(0), "1..="),
        ("perturbation_interval", json!([2]), "1..="),
        ("quantile", json!(0), "above 0"),
        ("quantile", json!(0.6), "up to 0.5"),
        ("quantile", json!(-0.25), "above 0"),
        ("quantile", json!("a quarter"), "above 0"),
        ("resample_probability", json!(-0.1), "0..=1"),
        ("resample_probability", json!(1.5), "0..=1"),
        ("resample_probability", json!(true), "0..=1"),
        ("lr", json!(0), "above 0"),
        ("lr", json!(-0.1), "above 0"),
        ("lr", json!("fast"), "above 0"),
        ("weight_decay", json!(-0.0005), "0..=1000"),
        ("weight_decay", json!(1e300), "0..=1000"),
        ("lr", json!(1e308), "up to 1000"),
        ("epochs", json!(0), "1..="),
        ("epochs", json!(1_000_001), "1..=1000000"),
        ("batch_size", json!(0), "1..=65536"),
        ("batch_size", json!(65_537), "1..=65536"),
        ("train_size", json!(0), "1..="),
        ("train_size", json!("all"), "1..="),
        ("val_size", json!(0), "1..="),
        ("seed", json!(-1), "0..=18446744073709551615"),
        ("seed", json!(1.5), "0..="),
        ("split_seed", json!("all"), "0..="),
        ("val_split", json!("test"), "train, val"),
        ("preset", json!("cifar10"), "rcifar10, rsvhn"),
        ("preset", json!(10), "text"),
        ("model", json!("tinny"), "tiny"),
        ("model", json!("wrn-41-2"), "wrn-D-K"),
        ("model", json!(""), "tiny"),
        ("model", json!(20), "text"),
        ("ops", json!(["Rotate", "Blur"]), "Rotate"),
        ("ops", json!([]), "Rotate"),
        ("ops", json!(["Rotate", "Rotate"]), "once"),
        ("ops", json!("Rotate"), "Rotate"),
        ("device", json!("tpu"), "cuda:N"),
        ("device", json!("cuda:-1"), "cuda:N"),
        ("strategy", json!("threads"), "stacked"),
        ("lr_schedule", json!("linear"), "cosine"),
        ("lr_schedule", json!({ "steps": [2, 1], "factor": 0.1 }), "ascending"),
        ("lr_schedule", json!({ "steps": [1, 2], "factor": 1.5 }), "up to 1"),
        ("lr_schedule", json!({ "steps": [1, 2] }), "factor"),
        ("lr_schedule", json!({ "steps": [1], "factor": 0.1, "every": 3 }), "steps"),
        ("base", json!("flop"), "pad_crop:N"),
        ("base", json!("flip,pad_crop:4"), "pad_crop:N"),
        ("base", json!("cutout"), "cutout:N"),
        ("base", json!(4), "text"),
        ("name", json!("a/b"), "letters"),
        ("name", json!(".."), "letters"),
        ("name", json!(""), "letters"),
        ("name", json!("x".repeat(2000)), ""),
        ("name", json!(7), "text"),
        ("populations", json!(4), "no such field"),
        ("", json!(4), "no such field"),
        ("dataset", json!(7), "text"),
    ];
    for (field, value, allowed) in cases {
        let changed = spec(json!({ field: value }));
        let answer = post(&server, changed.to_string().as_bytes());
        assert_eq!(answer.status, 400, "{field} {value}: {}", answer.text());
        let problem = answer.problem();
        assert_eq!(problem.parameter.as_deref(), Some(field), "{problem:?}");
        let says = problem.allowed.as_deref().unwrap_or_default();
        assert!(says.contains(allowed) && problem.detail.contains(field), "{field} {value}: {problem:?}");
    }
    for (dataset, nearest) in [("shape", Some("shapes")), ("imagenet", None), ("../shapes", Some("shapes"))] {
        let answer = post(&server, spec(json!({ "dataset": dataset })).to_string().as_bytes());
        assert_eq!((answer.status, answer.problem().parameter.as_deref()), (404, Some("dataset")));
        let hint = nearest.is_none_or(|nearest| answer.text().contains(nearest));
        assert!(hint, "{}", answer.text());
    }
    for body in
        [&b"{"[..], b"[]", b"7", b"null", b"\"tiny\"", b"population=4", b"\xff", b"{\"population\": 4} {}"]
    {
        let answer = post(&server, body);
        assert_eq!(answer.status, 400, "{}", answer.text());
        answer.problem();
    }
    assert_eq!(server.send("POST", "/v1/searches?population=4", b"{}").status, 400);
    nothing_started(&server);
    server.assert_healthy();
}

/// What only the trainer knows.
#[test]
fn what_the_dataset_and_the_machine_do_not_have() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    for (change, field) in [
        (json!({ "train_size": 10_000 }), "train_size"),
        (json!({ "train_size": 9_000, "val_size": 1_001 }), "val_size"),
        (json!({ "train_size": 63 }), "batch_size"),
        (json!({ "device": "cuda:99" }), "device"),
        (json!({ "device": "cpu", "strategy": "graphs" }), "strategy"),
    ] {
        let answer = post(&server, spec(change.clone()).to_string().as_bytes());
        assert_eq!(answer.status, 400, "{change}: {}", answer.text());
        let problem = answer.problem();
        assert_eq!(problem.parameter.as_deref(), Some(field), "{change}: {problem:?}");
        assert!(problem.detail.contains("allowed"), "{problem:?}");
    }
    nothing_started(&server);
}

#[test]
fn ids_that_nothing_has() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let id = server.start_search(&spec(json!({ "name": "flowers" })));
    for (method, path) in
        [("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/plot.svg"), ("POST", "/resume")]
    {
        for unknown in ["flower", "..%2Fflowers", "Flowers"] {
            let answer = server.send(method, &format!("/v1/searches/{unknown}{path}"), b"");
            assert_eq!(answer.status, 404, "{method} {unknown}{path}: {}", answer.text());
            let problem = answer.problem();
            assert_eq!(problem.parameter.as_deref(), Some("search"));
            assert!(problem.detail.contains("did you mean \"flowers\"?"), "{problem:?}");
        }
        let answer = server.send(method, &format!("/v1/searches/{id}{path}?x=1"), b"");
        assert_eq!(answer.status, 400, "{method} {path}");
        assert_eq!(answer.problem().parameter.as_deref(), Some("x"));
    }
    assert_eq!(server.send("PUT", "/v1/searches/flowers", b"").status, 405);
    assert_eq!(server.search(&id)["id"], "flowers");
}

#[test]
fn names_that_are_taken() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    server.start_search(&spec(json!({ "name": "mine" })));
    let body = server.get("/v1/schedules/svhn-pba").body;
    assert_eq!(server.send("PUT", "/v1/schedules/put", &body).status, 201);
    // By a search, by a published schedule, by one that was put.
    for name in ["mine", "cifar10-pba", "put"] {
        let answer = post(&server, spec(json!({ "name": name })).to_string().as_bytes());
        assert_eq!(answer.status, 409, "{name}: {}", answer.text());
        assert!(answer.problem().detail.contains(name), "{}", answer.text());
    }
    // The search will need its name for its schedule.
    let answer = server.send("PUT", "/v1/schedules/mine", &body);
    assert_eq!(answer.status, 409, "{}", answer.text());
    // Without a name it gets a free one, also in a race.
    let mut unnamed = spec(json!({}));
    unnamed.as_object_mut().unwrap().remove("name");
    let mut names: Vec<String> = std::thread::scope(|scope| {
        let posts: Vec<_> = (0..4).map(|_| scope.spawn(|| server.start_search(&unnamed))).collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });
    names.sort();
    assert_eq!(names, ["shapes-tiny-1", "shapes-tiny-2", "shapes-tiny-3", "shapes-tiny-4"]);
}

#[test]
fn searches_run_one_at_a_time_in_the_order_they_came() {
    // Each runs until its file is there, and then fails.
    let script = Script::trains(
        r#"while [ "$1" != --dir ]; do shift; done
        name=$(basename "$2")
        while [ -e "$0" ] && ! [ -e "$here/$name" ]; do sleep 0.02; done
        echo '{"event":"failed","error":"enough"}'; exit 1"#,
    );
    let server = Server::with_trainer(script.path());
    let names = ["c", "a", "b", "d"];
    for name in names {
        server.start_search(&spec(json!({ "name": name })));
    }
    let states = || -> Vec<String> {
        names.iter().map(|name| server.search(name)["state"].as_str().unwrap().to_owned()).collect()
    };
    wait_for("the first to run", || (states() == ["running", "queued", "queued", "queued"]).then_some(()));
    assert_eq!(server.metric("pba_jobs{kind=\"search\",state=\"queued\"}"), 3.0);
    assert_eq!(server.metric("pba_jobs{kind=\"search\",state=\"running\"}"), 1.0);
    assert_eq!(server.send("DELETE", "/v1/searches/a", b"").json()["state"], "cancelled");
    std::fs::write(script.file("c"), "").unwrap();
    wait_for("the next to run", || (states() == ["failed", "cancelled", "running", "queued"]).then_some(()));
    // A search that is resumed keeps its place in line.
    assert_eq!(server.send("POST", "/v1/searches/a/resume", b"").status, 202);
    assert_eq!(server.send("POST", "/v1/searches/a/resume", b"").status, 409);
    assert_eq!(server.send("POST", "/v1/searches/b/resume", b"").status, 409);
    assert_eq!(trainers_in(server.data().path()).len(), 1);
    // So does the line, over a restart.
    let mut server = server;
    server = server.killed_and_restarted(script.path());
    let states = || -> Vec<String> {
        names.iter().map(|name| server.search(name)["state"].as_str().unwrap().to_owned()).collect()
    };
    wait_for("the line to go on", || (states() == ["failed", "running", "queued", "queued"]).then_some(()));
    for name in names {
        std::fs::write(script.file(name), "").unwrap();
    }
    wait_for("all to end", || (states() == ["failed"; 4]).then_some(()));
    assert_eq!(server.search("d")["error"], "enough");
    assert_eq!(server.metric("pba_jobs{kind=\"search\",state=\"failed\"}"), 4.0);
    assert_no_trainer(server.data().path());
}

#[test]
fn the_line_has_an_end() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let start = |at: usize| post(&server, spec(json!({ "name": format!("s{at}") })).to_string().as_bytes());
    for at in 0..64 {
        assert_eq!(start(at).status, 202);
    }
    let refused = start(64);
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(refused.problem().detail.contains("64"));
    assert_eq!(server.send("DELETE", "/v1/searches/s63", b"").status, 200);
    assert_eq!(start(64).status, 202);
    server.assert_healthy();
}

#[test]
fn no_trainer_is_there() {
    let not_executable = tempfile::NamedTempFile::new().unwrap();
    let no_library = Script::new(
        "echo 'pba-trainer: error while loading shared libraries: libtorch_cpu.so: cannot open' >&2; exit 127",
    );
    let not_executable_path = not_executable.path().to_str().unwrap();
    for (trainer, says) in [
        ("/nowhere/pba-trainer", "No such file"),
        (not_executable_path, "ermission denied"),
        (no_library.path(), "libtorch_cpu.so"),
    ] {
        let server = Server::with_trainer(trainer);
        let answer = post(&server, spec(json!({})).to_string().as_bytes());
        assert_eq!(answer.status, 503, "{}", answer.text());
        for says in [trainer, says, "make build", "PBA_TRAINER", "Streams are not affected"] {
            assert!(answer.problem().detail.contains(says), "{} does not say {says:?}", answer.text());
        }
        // What is wrong with the spec is said all the same.
        assert_eq!(post(&server, br#"{"population": 1}"#).status, 400);
        nothing_started(&server);
        server.assert_healthy();
        server.pba(&["search", "start", "--model", "tiny"]).refused(1, &["503", "make build"]);
    }
}

#[test]
fn trainers_of_every_kind_of_job_are_counted_when_they_are_started_again() {
    let script = Script::trains("kill -9 $$");
    let server = Server::with_trainer(script.path());
    let jobs = [
        ("search", "searches", spec(json!({}))),
        ("evaluation", "evaluations", evaluation(json!({}))),
        ("comparison", "comparisons", comparison(json!({}))),
    ];
    for (kind, path, spec) in jobs {
        let restarts = || server.metric(&format!("pba_trainer_restarts_total{{kind=\"{kind}\"}}"));
        assert_eq!(restarts(), 0.0, "{kind}");
        let id = server.start_job(path, &spec);
        server.wait_for_job(path, &id, "failed");
        assert_eq!(restarts(), 3.0, "{kind}");
    }
}

#[test]
fn trainers_that_always_end_at_once() {
    #[rustfmt::skip]
    let cases = [
        // (what it does, starts, what the error says)
        (r#"echo "out of memory, said the kernel" >&2; kill -9 $$"#, 4, &["4 times", "SIGKILL", "out of memory, said"][..]),
        (r#"echo "terminate called" >&2; kill -ABRT $$"#, 4, &["4 times", "SIGABRT", "terminate called"]),
        (r#"exit 3"#, 4, &["4 times"]),
        (r#"echo "thread 'main' gave up" >&2; exit 101"#, 1, &["101", "thread 'main' gave up"]),
        (r#"echo '{"event":"failed","error":"the dataset is gone"}'; exit 1"#, 1, &["the dataset is gone"]),
        (r#"echo '{"error":{"field":"device","message":"device is cuda:0; there is none"}}'; exit 2"#, 1, &["there is none"]),
        (r#"exit 0"#, 1, &["without a schedule"]),
        // What no trainer says.
        (r#"echo '{"event":"scored","epoch":2,"scores":[0.5]}'; idle"#, 1, &["before the search started"]),
        (r#"echo 'hello'; echo '{"event":"sung"}'; echo '[]'; exit 1"#, 1, &["exit status: 1"]),
        (r#"printf '\377\376\n'; idle"#, 1, &["utf-8"]),
    ];
    for (at, (lines, starts, says)) in cases.into_iter().enumerate() {
        let script = Script::trains(&format!("echo x >>\"$here/starts\"\n{lines}"));
        let server = Server::with_trainer(script.path());
        let id = server.start_search(&spec(json!({})));
        let failed = server.wait_for_state(&id, "failed");
        let error = failed["error"].as_str().unwrap();
        for says in says {
            assert!(error.contains(says), "{at}: {error:?} does not say {says:?}");
        }
        let started = std::fs::read_to_string(script.file("starts")).unwrap().lines().count();
        assert_eq!(started, starts, "{at}: {error}");
        assert_eq!(server.metric("pba_trainer_restarts_total{kind=\"search\"}"), (starts - 1) as f64);
        assert_no_trainer(server.data().path());
        // It can be resumed as often as one likes, and fails as often.
        assert_eq!(server.send("POST", &format!("/v1/searches/{id}/resume"), b"").status, 202);
        server.wait_for_state(&id, "failed");
        server.assert_healthy();
    }
}

#[test]
fn a_trainer_that_does_not_listen() {
    let script = Script::trains("trap '' TERM; touch \"$here/deaf\"; idle");
    let server = Server::with_trainer(script.path());
    let id = server.start_search(&spec(json!({})));
    wait_for("a trainer that is deaf", || script.file("deaf").exists().then_some(()));
    let start = Instant::now();
    let answer = server.send("DELETE", &format!("/v1/searches/{id}"), b"");
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("cancelled")));
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    assert_no_trainer(server.data().path());
    server.assert_healthy();
}

#[test]
fn folders_that_are_damaged() {
    let script = Script::idles();
    let mut server = Server::with_trainer(script.path());
    let names = [
        "torn-search",
        "no-search",
        "flipped-search",
        "nothing",
        "wrong-journal",
        "binary-journal",
        "others-journal",
        "good",
    ];
    for name in names {
        server.start_search(&spec(json!({ "name": name, "seed": 7 })));
        assert_eq!(server.send("DELETE", &format!("/v1/searches/{name}"), b"").status, 200);
    }
    let good = server.search("good")["spec"].clone();
    server.process.signal("KILL");
    server.process.wait();
    let searches = server.data().path().join("searches");
    let write = |path: &str, bytes: &[u8]| std::fs::write(searches.join(path), bytes).unwrap();
    write("torn-search/search.json", b"{\"spec\": {\"na");
    for gone in ["no-search/search.json", "nothing/search.json", "nothing/request.json"] {
        std::fs::remove_file(searches.join(gone)).unwrap();
    }
    let mut flipped = std::fs::read(searches.join("flipped-search/search.json")).unwrap();
    flipped[40] ^= 1;
    write("flipped-search/search.json", &flipped);
    std::fs::remove_file(searches.join("good/request.json")).unwrap();
    write("wrong-journal/events.jsonl", b"{\"event\":\"checkpoint\",\"epoch\":3}\n");
    write("binary-journal/events.jsonl", b"\0\0\0\0\xff\n\n");
    let started = json!({ "event": "started", "spec": good, "dataset_digest": "toy" });
    write("others-journal/events.jsonl", format!("{started}\n").as_bytes());
    write("a-file", b"");
    let server = Server::start_on(server.data(), &["--trainer", script.path()]);
    server.assert_healthy();
    assert_eq!(server.search("good")["state"], "cancelled");
    // A damaged journal is seen, and said; what was cancelled stays so.
    for name in ["wrong-journal", "binary-journal", "others-journal"] {
        let search = server.search(name);
        assert_eq!(search["state"], "cancelled", "{search}");
        assert!(search["error"].as_str().unwrap().contains("journal"), "{search}");
    }
    let search = server.search("others-journal");
    assert!(search["error"].as_str().unwrap().contains("is that of \"good\""), "{search}");
    // What it was asked is kept a second time; what became of it is not, and that is said. A replica says the same.
    let replica = Server::start_on(server.data(), &[]);
    for name in ["torn-search", "no-search", "flipped-search"] {
        for server in [&server, &replica] {
            let search = server.search(name);
            assert_eq!(search["state"], "failed", "{search}");
            assert!(search["error"].as_str().unwrap().contains(&format!("{name}/search.json")), "{search}");
            assert_eq!(search["spec"]["seed"], 7, "{search}");
        }
        let answer = post(&server, spec(json!({ "name": name })).to_string().as_bytes());
        assert_eq!(answer.status, 409, "{}", answer.text());
    }
    assert_eq!(std::fs::read(searches.join("flipped-search/search.json")).unwrap(), flipped, "left alone");
    let resumed = server.send("POST", "/v1/searches/flipped-search/resume", b"");
    assert_eq!(resumed.status, 202, "{}", resumed.text());
    server.wait_for_state("flipped-search", "running");
    // A name of a folder that is no search is not free, and that is no fault of the server.
    assert_eq!(server.get("/v1/searches/nothing").status, 404);
    let answer = post(&server, spec(json!({ "name": "nothing" })).to_string().as_bytes());
    assert_eq!(answer.status, 409, "{}", answer.text());
    // Those of older versions are kept a second time from now on.
    assert!(searches.join("good/request.json").exists());
}
