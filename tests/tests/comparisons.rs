//! Comparisons: every arm with every seed, the same images for all of them, and an answer.

use pba_tests::search::{assert_no_trainer, comparison, spec, trainer};
use pba_tests::{Server, parquet_files, wait_for};
use serde_json::{Value, json};

const JOBS: &str = "comparisons";

/// Errors by arm and seed.
fn errors(done: &Value) -> Vec<Vec<f64>> {
    let arms = done["arms"].as_array().unwrap().iter();
    let of =
        |arm: &Value| arm["errors"].as_array().unwrap().iter().map(|error| error.as_f64().unwrap()).collect();
    arms.map(of).collect()
}

#[test]
fn a_comparison_from_start_to_end() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let digest = server.get("/v1/schedules/cifar10-pba").header("etag").unwrap().trim_matches('"').to_owned();
    // One schedule by digest, and told by name.
    let id = server.start_job(
        JOBS,
        &comparison(json!({ "arms": ["none", "cutout:4", "identity", &digest[..12], "cifar10-pba@shuffled", "random:3"] })),
    );
    let queued = server.job(JOBS, &id);
    assert_eq!(queued["spec"]["arms"][3], "cifar10-pba");
    assert_eq!(
        (&queued["runs"], &queued["runs_done"], &queued["verdict"]),
        (&json!(12), &json!(0), &Value::Null)
    );
    let done = server.wait_for_job(JOBS, &id, "done");
    assert_eq!(
        (&done["runs_done"], &done["split"], &done["images"]),
        (&json!(12), &json!("test"), &json!(2000))
    );
    assert_eq!(done["epoch"], done["epochs"]);
    assert_eq!(done["arms"][3]["schedule_digest"], digest);
    assert_eq!(done["arms"][0]["schedule_digest"], Value::Null);
    let arms = errors(&done);
    assert!(arms.iter().all(|seeds| seeds.len() == 2), "{arms:?}");
    for (position, arm) in arms.iter().enumerate() {
        assert!(!arms[..position].contains(arm), "two arms were augmented alike: {arms:?}");
    }
    let none = &done["arms"][0];
    let mean = (arms[0][0] + arms[0][1]) / 2.0;
    assert!((none["mean"].as_f64().unwrap() - mean).abs() < 1e-12 && none["n"] == 2);
    assert!(done["recommended"].is_string() && done["verdict"].is_string(), "{done}");
    let command = done["stream_command"].as_str().unwrap();
    assert!(command.starts_with("pba stream --dataset shapes --schedule "), "{command}");
    // The command streams, as it stands.
    let url = server.url();
    let words: Vec<&str> = command.split(' ').skip(1).chain(["--server", &url]).collect();
    server.pba(&words).ok();

    let report = server.get(&format!("/v1/comparisons/{id}/report.md"));
    assert_eq!(report.header("content-type"), Some("text/markdown; charset=utf-8"));
    for arm in done["spec"]["arms"].as_array().unwrap() {
        assert!(report.text().contains(&format!("| {} |", arm.as_str().unwrap())), "{}", report.text());
    }
    let plot = server.get(&format!("/v1/comparisons/{id}/plot.svg"));
    assert_eq!(plot.header("content-type"), Some("image/svg+xml"));
    pba_tests::xml::check(&plot.text());
    assert_eq!(plot.text().matches("<circle").count(), 12);
    assert_no_trainer(&server.job_folder(JOBS, &id));
    assert_eq!(server.get("/v1/comparisons").json(), json!({ "comparisons": [done] }));
    server.assert_healthy();
}

/// What is trained side by side does not matter, and seeds are the same in every arm.
#[test]
fn rounds_change_nothing() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let of = |name: &str, change: Value| {
        let mut spec = comparison(json!({ "arms": ["none", "cifar10-pba"], "again": true, "name": name }));
        for (field, value) in change.as_object().unwrap() {
            spec[field] = value.clone();
        }
        server.start_job(JOBS, &spec);
        errors(&server.wait_for_job(JOBS, name, "done"))
    };
    let one_by_one = of("one-by-one", json!({ "at_once": 1 }));
    assert_eq!(one_by_one, of("together", json!({})));
    assert_eq!(
        of("more", json!({ "arms": ["cutout:4", "cifar10-pba", "none"] }))[1..],
        [one_by_one[1].clone(), one_by_one[0].clone()]
    );
    assert_ne!(one_by_one, of("other-seed", json!({ "seed": 12 })));
    // Twice the same arm by another name: no difference at all.
    let mut twin = server.get("/v1/schedules/cifar10-pba").json();
    twin["name"] = json!("twin");
    assert_eq!(server.send("PUT", "/v1/schedules/twin", twin.to_string().as_bytes()).status, 201);
    let twice = of("twice", json!({ "arms": ["cifar10-pba", "twin"] }));
    assert_eq!(twice[0], twice[1]);
}

#[test]
fn the_test_split_is_opened_once() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let post =
        |change: Value| server.send("POST", "/v1/comparisons", comparison(change).to_string().as_bytes());
    // Chosen on validation images as often as one likes.
    for name in ["first", "second"] {
        server.start_job(JOBS, &comparison(json!({ "name": name, "score": "val", "val_size": 200 })));
    }
    let chosen = server.wait_for_job(JOBS, "first", "done");
    assert_eq!((&chosen["split"], &chosen["images"]), (&json!("train"), &json!(200)));
    // One that is cancelled while it waits has opened nothing.
    server.start_job(JOBS, &comparison(json!({ "name": "cancelled" })));
    server.send("DELETE", "/v1/comparisons/cancelled", b"");
    server.wait_for_job(JOBS, "cancelled", "cancelled");
    server.start_job(JOBS, &comparison(json!({ "name": "opened" })));
    let refused = post(json!({ "name": "again" }));
    assert_eq!((refused.status, refused.problem().parameter.as_deref()), (400, Some("score")));
    for part in ["opened", "--again", "val"] {
        assert!(refused.text().contains(part), "{}", refused.text());
    }
    server.wait_for_job(JOBS, "opened", "done");
    assert_eq!(post(json!({ "name": "again" })).status, 400);
    // Nor can the one that was cancelled be resumed now.
    let resumed = server.send("POST", "/v1/comparisons/cancelled/resume", b"");
    assert_eq!((resumed.status, resumed.problem().parameter.as_deref()), (400, Some("score")));
    assert_eq!(post(json!({ "name": "again", "again": true })).status, 202);
}

#[test]
fn wrong_comparisons_are_refused_before_anything_starts() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let refused = |change: Value, status: u16, says: &[&str]| {
        let answer =
            server.send("POST", "/v1/comparisons", comparison(change.clone()).to_string().as_bytes());
        assert_eq!(answer.status, status, "{change}: {}", answer.text());
        for part in says {
            assert!(answer.text().contains(part), "{change}: {} does not say {part}", answer.text());
        }
    };
    refused(json!({ "arms": ["none", "cifar10-pbb"] }), 404, &["cifar10-pbb", "cifar10-pba", "random:K"]);
    refused(json!({ "arms": ["none", "cifar10-pba@sorted"] }), 400, &["arms", "shuffled"]);
    refused(json!({ "arms": ["none"] }), 400, &["arms", "nothing to compare"]);
    refused(
        json!({ "arms": ["none", "cutout:16"], "base": "cutout:16" }),
        400,
        &["arms", "one augmentation"],
    );
    refused(json!({ "seeds": 0 }), 400, &["seeds", "1..=1000"]);
    refused(json!({ "train_size": 10001 }), 400, &["train_size", "10000"]);
    refused(json!({ "score": "val", "val_size": 10000 }), 400, &["val_size", "9999"]);
    refused(json!({ "model": "wrn-41-2" }), 400, &["model"]);
    refused(json!({ "dataset": "nothing" }), 404, &["nothing"]);
    let digest = server.get("/v1/schedules/cifar10-pba").header("etag").unwrap().trim_matches('"').to_owned();
    refused(json!({ "arms": ["cifar10-pba", digest[..12]] }), 400, &["arms", "twice"]);
    assert_eq!(server.get("/v1/comparisons").json(), json!({ "comparisons": [] }));
}

#[test]
fn the_command_line_compares() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let url = server.url();
    let flags = "compare --name told --dataset shapes --model tiny --epochs 2 --train-size 128 --batch-size 64 \
                 --device cpu --arms none,cutout:4,random:1,random:2 --group chance=random:1,random:2 --seeds 2 --watch";
    let words: Vec<&str> = flags.split_whitespace().chain(["--server", &url]).collect();
    let shown = server.pba(&words).ok();
    for part in ["8 of 8 runs", "ARM", "AGAINST", "chance", "train with it: pba stream"] {
        assert!(shown.contains(part), "{shown}\ndoes not say {part}");
    }
    let shown = server.pba(&["compare", "show", "told", "--server", &url]).ok();
    assert!(shown.contains("TRAIN WITH") && shown.contains("train with it: pba stream"), "{shown}");
    let again = server.pba(&["compare", "--dataset", "shapes", "--model", "tiny", "--server", &url]);
    again.refused(1, &["--again"]);
    server.pba(&["compare", "--group", "x", "--server", &url]).refused(2, &["NAME=ARM"]);
    let twice = ["compare", "--group", "x=none,identity", "--group", "x=none,cutout:2", "--server", &url];
    server.pba(&twice).refused(1, &["two groups"]);
}

/// Did it help? The answer comes in the same place as the schedule.
#[test]
fn a_search_is_followed_by_its_comparison() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let url = server.url();
    let flags = "search start --name mine --dataset shapes --model tiny --epochs 6 --population 2 --train-size 128 \
                 --val-size 64 --batch-size 64 --device cpu --watch --then-compare={\"seeds\":2,\"tuning_seeds\":1}";
    let words: Vec<&str> = flags.split_whitespace().chain(["--server", &url]).collect();
    let shown = server.pba(&words).ok();
    for part in [
        "schedule mine;",
        "20 of 20 runs",
        "mine@shuffled",
        "randaugment:tuned is randaugment:",
        "train with it:",
    ] {
        assert!(shown.contains(part), "{shown}\ndoes not say {part}");
    }
    let compared = server.wait_for_job(JOBS, "mine-compared", "done");
    let digest = server.get("/v1/schedules/mine").header("etag").unwrap().trim_matches('"').to_owned();
    assert_eq!(compared["arms"][3]["schedule_digest"], digest);
    assert_eq!(compared["tuning"]["candidates"].as_array().unwrap().len(), 10);

    // What the comparison could not do is said before the search.
    let refused = |change: Value, says: &str| {
        let answer = server.send("POST", "/v1/searches", spec(change).to_string().as_bytes());
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains("then_compare") && answer.text().contains(says), "{}", answer.text());
    };
    refused(json!({ "then_compare": true }), "mine-compared");
    refused(json!({ "then_compare": { "dataset": "other" } }), "which is the search's");
    refused(json!({ "then_compare": { "seeds": 0 } }), "1..=1000");
    refused(json!({ "then_compare": { "again": true, "train_size": 20000 } }), "train_size");
    assert_eq!(server.get("/v1/searches").json()["searches"].as_array().unwrap().len(), 1);

    // A server that dies between the two finds out what is left to do.
    let data = server.data();
    drop(server);
    std::fs::remove_dir_all(data.path().join("comparisons/mine-compared")).unwrap();
    let server = Server::start_on(data, &["--trainer", &trainer]);
    wait_for("the comparison", || (server.get("/v1/comparisons/mine-compared").status == 200).then_some(()));
    assert_eq!(server.wait_for_job(JOBS, "mine-compared", "done")["arms"], compared["arms"]);
}

#[test]
fn a_model_that_does_not_fit_the_images_is_refused() {
    let Some(trainer) = trainer() else { return };
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<Vec<u8>> = (0..200).map(|seed| parquet_files::png(4, 4, seed)).collect();
    for split in ["train", "test"] {
        parquet_files::write(&folder.path().join(format!("{split}.parquet")), &images);
    }
    let dataset = format!("small={}", folder.path().display());
    let server = Server::start(&["--trainer", &trainer, "--dataset", &dataset]);
    wait_for("the dataset", || (server.get("/readyz").status == 200).then_some(()));
    let post = |model: &str| {
        let change = json!({ "dataset": "small", "model": model, "train_size": 64, "epochs": 1, "seeds": 1 });
        server.send("POST", "/v1/comparisons", comparison(change).to_string().as_bytes())
    };
    let refused = post("tiny");
    assert_eq!(
        (refused.status, refused.problem().parameter.as_deref()),
        (400, Some("model")),
        "{}",
        refused.text()
    );
    assert!(refused.text().contains("4x4"), "{}", refused.text());
    assert_eq!(post("resnet-20").status, 202);
}

/// Another name and another place do not make it another test split.
#[test]
fn a_copy_of_a_test_split_is_the_same() {
    let Some(trainer) = trainer() else { return };
    let folder = tempfile::tempdir().unwrap();
    let flags = ["one", "copy", "other"].map(|name| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        let seeds = if name == "other" { 1..201 } else { 0..200 };
        let images: Vec<Vec<u8>> = seeds.map(|seed| parquet_files::png(8, 8, seed)).collect();
        for split in ["train", "test"] {
            parquet_files::write(&path.join(format!("{split}.parquet")), &images);
        }
        format!("--dataset={name}={}", path.display())
    });
    let flags: Vec<&str> =
        ["--trainer", &trainer].into_iter().chain(flags.iter().map(String::as_str)).collect();
    let server = Server::start(&flags);
    wait_for("the datasets", || (server.get("/readyz").status == 200).then_some(()));
    let post = |dataset: &str| {
        let change =
            json!({ "name": dataset, "dataset": dataset, "train_size": 64, "epochs": 1, "seeds": 1 });
        server.send("POST", "/v1/comparisons", comparison(change).to_string().as_bytes())
    };
    assert_eq!(post("one").status, 202);
    let refused = post("copy");
    assert_eq!((refused.status, refused.problem().parameter.as_deref()), (400, Some("score")));
    assert!(refused.problem().detail.contains("test split of \"one\""), "{}", refused.text());
    assert_eq!(post("other").status, 202);
}

/// What is promised to a search is kept for it.
#[test]
fn a_search_keeps_name_and_test_split_for_its_comparison() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let busy = comparison(json!({ "name": "busy", "score": "val", "val_size": 64, "epochs": 400 }));
    server.start_job(JOBS, &busy);
    let search = |name: &str| spec(json!({ "name": name, "then_compare": { "seeds": 2 } }));
    server.start_search(&search("first"));
    let refused = |path: &str, body: Value, status: u16, says: &str| {
        let answer = server.send("POST", path, body.to_string().as_bytes());
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(says), "{}", answer.text());
    };
    refused("/v1/searches", search("second"), 400, "first-compared");
    refused("/v1/comparisons", comparison(json!({ "name": "other" })), 400, "first-compared");
    let taken = comparison(json!({ "name": "first-compared", "again": true }));
    refused("/v1/comparisons", taken, 409, "kept for the comparison that follows search");
    for (jobs, id) in [("searches", "first"), (JOBS, "busy")] {
        server.send("DELETE", &format!("/v1/{jobs}/{id}"), b"");
    }
    server.start_job(JOBS, &comparison(json!({ "name": "other" })));
}

/// A search that is resumed is followed by its own comparison, and by no other one of that name.
#[test]
fn a_search_is_resumed_only_if_its_comparison_can_follow() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let busy = comparison(json!({ "name": "busy", "score": "val", "val_size": 64, "epochs": 400 }));
    server.start_job(JOBS, &busy);
    let then_compare = json!({ "arms": ["none", "mine"], "seeds": 1, "epochs": 1, "again": true });
    server.start_search(&spec(json!({ "name": "mine", "epochs": 4, "then_compare": then_compare })));
    let cancel = |jobs: &str, id: &str| server.send("DELETE", &format!("/v1/{jobs}/{id}"), b"").status;
    assert_eq!(cancel("searches", "mine"), 200);
    // Another one takes the name while nothing keeps it.
    let other = json!({ "name": "mine-compared", "score": "val", "val_size": 64 });
    server.start_job(JOBS, &comparison(other));
    let resume = || server.send("POST", "/v1/searches/mine/resume", b"");
    let refused = resume();
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.text().contains("mine-compared"), "{}", refused.text());
    assert_eq!(server.search("mine")["state"], "cancelled");
    assert_eq!(cancel(JOBS, "mine-compared"), 200);
    assert_eq!(server.send("POST", "/v1/comparisons/mine-compared/remove", b"").status, 200);
    assert_eq!(resume().status, 202);
    assert_eq!(cancel(JOBS, "busy"), 200);
    server.wait_for_state("mine", "done");
    wait_for("the comparison", || (server.get("/v1/comparisons/mine-compared").status == 200).then_some(()));
    let compared = server.wait_for_job(JOBS, "mine-compared", "done");
    assert_eq!(compared["follows"], "mine");
    let kept = server.send("POST", "/v1/comparisons/mine-compared/remove", b"");
    assert_eq!(kept.status, 409, "its search would start it again");

    // What a search follows is told apart on disk: that of another one is not taken for it.
    let data = server.data();
    drop(server);
    let entry = data.path().join("comparisons/mine-compared/comparison.json");
    let text = std::fs::read_to_string(&entry).unwrap();
    let (fields, _) = text.rsplit_once(",\n  \"xxh3\"").unwrap();
    std::fs::write(&entry, format!("{fields}\n}}").replace(r#""follows": "mine""#, r#""follows": "other""#))
        .unwrap();
    let server = Server::start_on(data, &["--trainer", &trainer]);
    let error =
        wait_for("the search to say so", || server.search("mine")["error"].as_str().map(str::to_owned));
    assert!(error.contains("its comparison cannot start") && error.contains("mine-compared"), "{error}");
}

/// However close together they are asked for.
#[test]
fn of_two_that_would_open_one_test_split_one_is_resumed() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let busy = comparison(json!({ "name": "busy", "score": "val", "val_size": 64, "epochs": 400 }));
    server.start_job(JOBS, &busy);
    let cancel = |id: &str| server.send("DELETE", &format!("/v1/{JOBS}/{id}"), b"").status;
    for id in ["one", "two"] {
        server.start_job(JOBS, &comparison(json!({ "name": id })));
        assert_eq!(cancel(id), 200);
    }
    for _ in 0..20 {
        let resume = |id: &str| server.send("POST", &format!("/v1/{JOBS}/{id}/resume"), b"").status;
        let mut statuses = std::thread::scope(|scope| {
            let resumed = ["one", "two"].map(|id| scope.spawn(move || resume(id)));
            resumed.map(|resumed| resumed.join().unwrap())
        });
        let resumed = if statuses[0] == 202 { "one" } else { "two" };
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 400]);
        assert_eq!(cancel(resumed), 200);
    }
}

/// A trainer that is killed after any event goes on with the same ones.
#[test]
fn a_comparison_resumes_after_every_event() {
    let Some(trainer) = trainer() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let arms = json!(["none", "randaugment:tuned"]);
    let spec =
        comparison(json!({ "arms": arms, "epochs": 1, "tuning_seeds": 1, "val_size": 64, "at_once": 8 }));
    std::fs::write(path("spec.json"), spec.to_string()).unwrap();
    let run = |name: &str| {
        let arguments =
            ["compare", "--dataset", "shapes", "--spec", "spec.json", "--cache", "cache", "--dir", name];
        let ended =
            std::process::Command::new(&trainer).args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(ended.status.success(), "{name}: {}", String::from_utf8_lossy(&ended.stderr));
        std::fs::read_to_string(path(name).join("events.jsonl")).unwrap()
    };
    let journal = run("whole");
    let lines: Vec<&str> = journal.split_inclusive('\n').collect();
    let names: Vec<String> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["comparing", "scored", "scored", "tuned", "scored", "compared"]);
    for cut in 1..=lines.len() {
        let name = format!("cut-{cut}");
        std::fs::create_dir(path(&name)).unwrap();
        std::fs::write(path(&name).join("events.jsonl"), lines[..cut].concat()).unwrap();
        assert_eq!(run(&name), journal, "after {cut} lines");
    }
}
