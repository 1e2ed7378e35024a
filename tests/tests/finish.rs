//! Searches that are asked to end with their generation.

use pba_tests::search::{Script, assert_no_trainer, signal, spec, trainer};
use pba_tests::{Server, wait_for};
use serde_json::{Value, json};

fn finish(server: &Server, id: &str) -> Value {
    let answer = server.send("POST", &format!("/v1/searches/{id}/finish"), b"");
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()
}

/// Checks that a search ended early, with what its journal says, and that its events until then are those of a
/// search that went on.
#[track_caller]
fn ended_early(server: &Server, id: &str) {
    let done = server.wait_for_state(id, "done");
    let journal = server.journal(id);
    let events: Vec<Value> = journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let at = events.iter().position(|event| event["event"] == "finished").expect("the journal says so");
    let epoch = events[at]["epoch"].as_u64().unwrap();
    assert!((2..400).contains(&epoch), "{epoch}");
    assert_eq!((&done["epoch"], &done["epochs"]), (&json!(epoch), &json!(400)));
    assert!(done.get("finishing").is_none(), "{done}");
    assert_eq!((&events[at - 1]["event"], &events[at - 1]["epoch"]), (&json!("scored"), &json!(epoch)));
    assert!(
        events[at..].iter().all(|event| event["event"] != "exploit"),
        "no member copies another any more"
    );
    let learned = events.last().unwrap();
    assert_eq!(learned["event"], "done");
    let best = events[at - 1]["scores"].as_array().unwrap();
    let best = best.iter().filter_map(Value::as_f64).fold(0.0, f64::max);
    assert_eq!((learned["score"].as_f64(), done["best_accuracy"].as_f64()), (Some(best), Some(best)));
    // What was learned is a schedule of so many epochs.
    let schedule = server.get(&format!("/v1/schedules/{id}"));
    assert_eq!(schedule.header("etag"), Some(&*format!("\"{}\"", learned["digest"].as_str().unwrap())));
    assert_eq!(schedule.json()["epochs"], json!(epoch));
    assert_no_trainer(&server.search_folder(id));
}

#[test]
fn a_search_ends_with_the_generation_that_it_trains() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({ "epochs": 400 })));
    server.wait_for_lines(&id, 2);
    assert_eq!(finish(&server, &id)["finishing"], true);
    ended_early(&server, &id);
    let refused = server.send("POST", &format!("/v1/searches/{id}/finish"), b"");
    assert_eq!(refused.status, 409);
    assert!(
        refused.problem().detail.contains("is done; only one that is waiting or running"),
        "{}",
        refused.text()
    );
    assert_eq!(server.send("POST", "/v1/searches/nothing/finish", b"").status, 404);
    assert_eq!(server.send("POST", "/v1/evaluations/nothing/finish", b"").status, 404);

    // Until it was asked, it did what a search does that is not.
    let other = server.start_search(&spec(json!({ "epochs": 400, "name": "other" })));
    let journal = server.journal(&id).replace("\"name\":\"small\"", "\"name\":\"other\"");
    let until = journal.find("{\"event\":\"finished\"").unwrap();
    server.wait_for_lines(&other, journal[..until].lines().count());
    assert_eq!(server.journal(&other)[..until], journal[..until]);
    let told = server.pba(&["search", "finish", &other]).ok();
    assert!(told.contains("search other ends with its generation"), "{told}");
    ended_early(&server, &other);
}

/// A search goes back to what is on disk, and then beyond where it was when it was asked.
#[test]
fn a_crash_takes_nothing_from_what_was_reached() {
    let Some(trainer) = trainer() else { return };
    let server = Server::start(&["--trainer", &trainer, "--save-seconds", "3600"]);
    let id = server.start_search(&spec(json!({ "epochs": 400 })));
    let reached =
        wait_for("four generations", || server.search(&id)["epoch"].as_u64().filter(|&epoch| epoch >= 8));
    let trainer = server.trainer_of(&id);
    signal(trainer, "STOP");
    finish(&server, &id);
    signal(trainer, "KILL");
    ended_early(&server, &id);
    assert!(server.search(&id)["epoch"].as_u64().unwrap() > reached);
}

#[test]
fn one_that_is_resumed_goes_on_to_its_end() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let busy = server.start_search(&spec(json!({ "epochs": 400, "name": "busy" })));
    let id = server.start_search(&spec(json!({ "name": "changed" })));
    finish(&server, &id);
    server.send("DELETE", &format!("/v1/searches/{id}"), b"");
    server.wait_for_state(&id, "cancelled");
    assert_eq!(server.send("POST", &format!("/v1/searches/{id}/resume"), b"").status, 202);
    assert!(server.search(&id).get("finishing").is_none());
    server.send("DELETE", &format!("/v1/searches/{busy}"), b"");
    let done = server.wait_for_state(&id, "done");
    assert_eq!(done["epoch"], done["epochs"]);
}

#[test]
fn it_stays_asked_whatever_happens_meanwhile() {
    let Some(trainer) = trainer() else { return };
    // A trainer that waits before each start, so that it is asked while there is none.
    let script = Script::trains(&format!(
        r#"while [ ! -e "$here/go" ]; do [ -e "$0" ] || exit 0; sleep 0.05; done; exec '{trainer}' "$@""#
    ));
    let server = Server::with_trainer(script.path());
    let id = server.start_search(&spec(json!({ "epochs": 400 })));
    server.wait_for_state(&id, "running");
    let waiting = server.start_search(&spec(json!({ "epochs": 400, "name": "waiting", "seed": 3 })));
    finish(&server, &id);
    finish(&server, &waiting);
    // Asked again, the first wish holds.
    let wish = server.search_folder(&waiting).join("finish");
    assert_eq!(std::fs::read_to_string(&wish).unwrap(), "0");
    std::fs::write(&wish, "1").unwrap();
    finish(&server, &waiting);
    assert_eq!(std::fs::read_to_string(&wish).unwrap(), "1");
    signal(server.trainer_of(&id), "KILL");
    let server = server.killed_and_restarted(script.path());
    for id in [&id, &waiting] {
        assert_eq!(server.search(id)["finishing"], true, "{id}");
    }
    std::fs::write(script.file("go"), b"").unwrap();
    for id in [&id, &waiting] {
        ended_early(&server, id);
        let journal = server.journal(id);
        assert_eq!(journal.matches("\"scored\"").count(), 1, "one generation");
    }
}
