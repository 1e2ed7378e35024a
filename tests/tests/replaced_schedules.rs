//! A schedule whose name was given to another one is never taken for that of a job.

use std::fs;
use std::sync::Arc;

use pba_tests::search::{comparison, evaluation, spec, trainer};
use pba_tests::{Server, wait_for};
use serde_json::{Value, json};

/// Gives the name of a schedule to the content of another one.
#[track_caller]
fn replace(server: &Server, name: &str) {
    remove(server, name);
    give(server, name, "svhn-pba");
}

#[track_caller]
fn remove(server: &Server, name: &str) {
    assert_eq!(server.send("DELETE", &format!("/v1/schedules/{name}"), b"").status, 204);
}

/// Gives a name to the content of a published schedule.
#[track_caller]
fn give(server: &Server, name: &str, content: &str) {
    let mut document = server.get(&format!("/v1/schedules/{content}")).json();
    document["name"] = name.into();
    let answer = server.send("PUT", &format!("/v1/schedules/{name}"), document.to_string().as_bytes());
    assert_eq!(answer.status, 201, "{}", answer.text());
}

fn digest(server: &Server, path: &str) -> String {
    server.get(path).header("etag").expect("a schedule has its digest").trim_matches('"').to_owned()
}

/// Checks that a job says of a schedule what became of it.
#[track_caller]
fn noted(job: &Value, name: &str, parts: &[&str]) {
    let notes: Vec<&str> =
        job["notes"].as_array().expect("there are notes").iter().map(|note| note.as_str().unwrap()).collect();
    let note = notes.iter().find(|note| note.contains(&format!("schedule {name:?}"))).expect("one is of it");
    parts.iter().for_each(|part| assert!(note.contains(part), "{note}\ndoes not say {part}"));
}

#[test]
fn a_search_hands_out_what_it_learned() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({ "epochs": 4 })));
    assert_eq!(server.get(&format!("/v1/searches/{id}/schedule")).status, 409, "it is not done");
    let done = server.wait_for_state(&id, "done");
    let learned = done["schedule_digest"].as_str().unwrap();
    let path = format!("/v1/schedules/{id}");
    assert_eq!((digest(&server, &path).as_str(), done.get("notes")), (learned, None));
    let link = format!("href=\"/schedules/{id}\"");
    assert!(server.get(&format!("/searches/{id}")).text().contains(&link));
    let document = server.get(&path).text();

    replace(&server, &id);
    let other = digest(&server, &path);
    assert!(!server.get(&format!("/searches/{id}")).text().contains(&link));
    let shown = server.search(&id);
    assert_eq!(shown["schedule_digest"], learned);
    let parts = ["was replaced since", &other, "this search learned", learned];
    noted(&shown, &id, &parts);
    noted(&server.get("/v1/searches").json()["searches"][0], &id, &parts);
    let last = server.events(&id, None).last().expect("it tells its state");
    noted(&last.json(), &id, &parts);
    let handed = server.get(&format!("/v1/searches/{id}/schedule"));
    assert_eq!(handed.header("etag"), Some(&*format!("{learned:?}")));
    assert_eq!(handed.text(), document);

    let url = server.url();
    for command in ["show", "watch"] {
        let shown = server.pba(&["search", command, &id, "--server", &url]).ok();
        assert!(shown.contains("note: schedule") && shown.contains(&other), "{shown}");
        assert!(!shown.contains("stream with it"), "{shown}");
    }
    assert_eq!(server.pba(&["search", "schedule", &id, "--server", &url]).ok(), document);
    // A server beside it looks at the names as they are now.
    let replica = Server::start_on(server.data(), &[]);
    noted(&replica.search(&id), &id, &parts);
    remove(&server, &id);
    noted(&replica.search(&id), &id, &["was removed since"]);
    // Its page leads to what it learned, and to no schedule that is gone or another one.
    let page = server.get(&format!("/searches/{id}")).text();
    let [gone, kept] = [link, format!("href=\"/v1/searches/{id}/schedule\"")];
    assert!(page.contains("was removed since") && page.contains(&kept) && !page.contains(&gone), "{page}");
    // After a restart, too.
    give(&server, &id, "svhn-pba");
    let server = server.killed_and_restarted(&trainer);
    noted(&server.search(&id), &id, &parts);
}

#[test]
fn jobs_say_what_they_were_requested_with() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    give(&server, "mine", "cifar10-pba");
    let requested = digest(&server, "/v1/schedules/mine");
    server.start_job("evaluations", &evaluation(json!({ "schedule": "mine", "epochs": 1 })));
    let arms = json!({ "arms": ["random:1", "mine"], "epochs": 1, "seeds": 1 });
    server.start_job("comparisons", &comparison(arms));
    let jobs = ["evaluations", "comparisons"];
    for kind in jobs {
        assert_eq!(server.wait_for_job(kind, "small", "done").get("notes"), None);
    }
    let compared = server.job("comparisons", "small");
    assert_eq!((&compared["recommended"], compared["stream_command"].is_string()), (&json!("mine"), true));
    replace(&server, "mine");
    let other = digest(&server, "/v1/schedules/mine");
    let parts = ["was replaced since", &other, "was requested with", &requested];
    let check = |server: &Server| {
        let command = &server.job("comparisons", "small")["stream_command"];
        assert!(command.is_null(), "{command} would stream another one");
        for kind in jobs {
            noted(&server.job(kind, "small"), "mine", &parts);
        }
        let report = server.get("/v1/comparisons/small/report.md").text();
        assert!(report.contains("was replaced since"), "{report}");
    };
    check(&server);
    let url = server.url();
    let shown = server.pba(&["compare", "show", "small", "--server", &url]).ok();
    assert!(shown.contains("was replaced since") && !shown.contains("train with it"), "{shown}");
    check(&server.killed_and_restarted(&trainer));
}

/// A comparison that follows a search trains with what was learned, and with what there was when it was promised.
#[test]
fn a_promised_comparison_compares_nothing_else() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    give(&server, "other", "cifar10-pba");
    let promised = digest(&server, "/v1/schedules/other");
    let compared = json!({ "arms": ["none", "other", "small"], "seeds": 1, "epochs": 1 });
    let id = server.start_search(&spec(json!({ "epochs": 4, "then_compare": compared })));
    replace(&server, "other");
    let refused = |server: &Server, parts: &[&str]| {
        wait_for(&format!("the search to say {parts:?}"), || {
            let error = server.search(&id)["error"].as_str().map(str::to_owned).unwrap_or_default();
            let mut parts = ["its comparison cannot start", "was replaced since"].iter().chain(parts);
            parts.all(|part| error.contains(part)).then_some(())
        });
        assert_eq!(server.get("/v1/comparisons/small-compared").status, 404);
    };
    let done = server.wait_for_state(&id, "done");
    refused(&server, &["\"other\"", &promised]);
    remove(&server, "other");
    give(&server, "other", "cifar10-pba");

    // In the folder of a server that ended before it began the comparison, the learned one is replaced.
    let (data, learned) = (server.data(), done["schedule_digest"].as_str().unwrap());
    drop(server);
    let _ = fs::remove_dir_all(data.path().join("comparisons/small-compared"));
    let file = |name: &str| data.path().join("schedules").join(format!("{name}.json"));
    let whole = fs::read(file("small")).unwrap();
    let mut document: Value = serde_json::from_slice(&fs::read(file("other")).unwrap()).unwrap();
    document["name"] = "small".into();
    fs::write(file("small"), document.to_string()).unwrap();
    let server = Server::start_on(Arc::clone(&data), &["--trainer", &trainer]);
    refused(&server, &["\"small\"", learned]);
    drop(server);
    fs::write(file("small"), whole).unwrap();
    let server = Server::start_on(data, &["--trainer", &trainer]);
    wait_for("the comparison", || (server.get("/v1/comparisons/small-compared").status == 200).then_some(()));
    let compared = server.wait_for_job("comparisons", "small-compared", "done");
    let digests = [1, 2].map(|arm| compared["arms"][arm]["schedule_digest"].as_str().unwrap());
    assert_eq!((digests, &server.search(&id)["error"]), ([&*promised, learned], &Value::Null));
}
