//! Watching a search: server-sent events.

use std::time::Duration;

use pba_search::{EvaluationEvent, journal};
use pba_tests::search::{Event, Script, evaluation, spec, trainer};
use pba_tests::{Download, Server};
use serde_json::{Value, json};

/// Checks what every watcher is promised: the ids are the journal's line numbers after the first
/// `seen`, without a gap; the data are those lines; the last event is the final state.
#[track_caller]
fn check(events: &[Event], seen: usize, journal: &str, state: &str) {
    let told: Vec<(usize, &str)> =
        events.iter().filter_map(|event| Some((event.id?, event.data.as_str()))).collect();
    let expected: Vec<(usize, &str)> =
        journal.lines().enumerate().skip(seen).map(|(at, line)| (at + 1, line)).collect();
    assert_eq!(told, expected);
    for event in events {
        match event.id {
            Some(_) => assert_eq!(event.json()["event"], event.kind.as_str()),
            None => assert!(["state", "progress"].contains(&event.kind.as_str()), "{event:?}"),
        }
    }
    let last = events.last().expect("at least a state");
    assert_eq!((last.kind.as_str(), &last.json()["state"]), ("state", &json!(state)), "{last:?}");
    let states: Vec<[Value; 2]> = events
        .iter()
        .filter(|event| event.kind == "state")
        .map(|event| ["state", "place"].map(|field| event.json()[field].clone()))
        .collect();
    let mut distinct = states.clone();
    distinct.dedup();
    assert_eq!(states, distinct, "a state and a place that are no news");
}

#[test]
fn every_watcher_sees_every_line_once() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({ "epochs": 6 })));
    let collect = |last: Option<usize>| {
        let mut watcher = server.events(&id, last);
        let events: Vec<Event> = watcher.by_ref().collect();
        assert!(watcher.ended_well, "the stream broke off");
        events
    };
    std::thread::scope(|scope| {
        let live: Vec<_> = [None, None, Some(0), Some(2)]
            .into_iter()
            .map(|last| (last.unwrap_or(0), scope.spawn(move || collect(last))))
            .collect();
        // One that leaves in the middle, and one that never reads.
        let mut leaves = server.events(&id, None);
        leaves.by_ref().find(|event| event.kind == "scored").expect("a score comes");
        drop(leaves);
        let _never_reads = Download::open_narrow(server.address(), &format!("/v1/searches/{id}/events"));
        for (seen, watcher) in live {
            let events = watcher.join().unwrap();
            check(&events, seen, &server.journal(&id), "done");
            assert_eq!(events.last().unwrap().json()["schedule"], id.as_str());
            assert!(events.iter().any(|event| event.kind == "progress"), "no progress was told");
        }
    });
    // After the end, from each event on: exactly the rest, and an end.
    let journal = server.journal(&id);
    let lines = journal.lines().count();
    for last in 0..=lines {
        check(&collect(Some(last)), last, &journal, "done");
    }
    // More than there are: there is nothing to tell but the state.
    for last in [lines + 1, usize::MAX] {
        check(&collect(Some(last)), lines, &journal, "done");
    }
    for wrong in ["x", "-1", "1.5", "", "99999999999999999999"] {
        let path = format!("/v1/searches/{id}/events");
        let answer = Download::open(server.address(), "GET", &path, &[("last-event-id", wrong)], b"");
        let answer = answer.unwrap().finish();
        assert_eq!((answer.status, answer.problem().parameter.as_deref()), (400, Some("Last-Event-ID")));
    }
    server.assert_healthy();
}

#[test]
fn a_watcher_over_a_restart_of_the_server() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({ "epochs": 6 })));
    let mut watcher = server.events(&id, None);
    let first = watcher.by_ref().take_while(|event| event.kind != "exploit" || event.id < Some(6));
    let mut told: Vec<Event> = first.collect();
    let seen = told.iter().filter_map(|event| event.id).max();
    let server = server.killed_and_restarted(&trainer);
    assert!(watcher.all(|event| event.kind != "done"));
    assert!(!watcher.ended_well, "a stream that was cut looks complete");
    told.extend(server.events(&id, seen));
    // The state is told again to who connects again.
    told.dedup_by(|two, one| two.kind == "state" && one.kind == "state");
    let mut ids = told.iter().filter_map(|event| event.id);
    let journal = server.wait_for_state(&id, "done");
    assert_eq!(journal["epoch"], 6);
    assert!(ids.by_ref().eq(1..=server.journal(&id).lines().count()));
}

/// The server keeps no line of an ended job in memory; it reads them for watchers from the file.
#[test]
fn a_long_journal_is_told_whole() {
    const EPOCHS: u32 = 20_000;
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let jobs = "evaluations";
    let id = server.start_job(jobs, &evaluation(json!({ "epochs": EPOCHS, "schedule": null })));
    server.wait_for_job(jobs, &id, "running");
    assert_eq!(server.send("DELETE", &format!("/v1/{jobs}/{id}"), b"").json()["state"], "cancelled");
    // What its trainer would have written.
    let spec = serde_json::from_value(server.job(jobs, &id)["spec"].clone()).unwrap();
    let (spec, dataset_digest) = (Box::new(spec), "0".repeat(64));
    let begun = EvaluationEvent::Evaluating { spec, schedule_digest: None, dataset_digest };
    let trained = (1..EPOCHS).map(|epoch| EvaluationEvent::Trained { epoch, train_loss: Some(0.5) });
    let lines = std::iter::once(begun).chain(trained).map(|event| journal::line(&event));
    let kept: String = lines.enumerate().map(|(at, line)| journal::kept(&line, at + 1)).collect();
    std::fs::write(server.job_folder(jobs, &id).join("events.jsonl"), kept).unwrap();
    let server = server.killed_and_restarted(script.path());
    let journal = server.journal_of(jobs, &id);
    assert_eq!(journal.lines().count(), EPOCHS as usize);
    for seen in [0, 1, 9_999, EPOCHS as usize - 1, EPOCHS as usize] {
        let mut watcher = server.events_of(jobs, &id, Some(seen));
        let events: Vec<Event> = watcher.by_ref().collect();
        assert!(watcher.ended_well, "the stream broke off");
        check(&events, seen, &journal, "cancelled");
    }
    server.assert_healthy();
}

/// Lines that are no longer as the trainer wrote them are told of, and nothing is told that they might have said.
#[test]
fn what_is_missing_of_a_journal_is_told() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({ "epochs": 4 })));
    server.wait_for_state(&id, "done");
    let (path, journal) = (server.search_folder(&id).join("events.jsonl"), server.journal(&id));
    let lines = journal.lines().count();
    let plot = format!("/v1/searches/{id}/plot.svg");
    assert_eq!(server.get(&plot).status, 200);
    let mut bytes = std::fs::read(&path).unwrap();
    let third = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 20;
    bytes[third] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let mut watcher = server.events(&id, None);
    let events: Vec<Event> = watcher.by_ref().collect();
    assert!(watcher.ended_well);
    let told: Vec<&str> =
        events.iter().filter(|event| event.id.is_some()).map(|event| &*event.data).collect();
    assert!(told[..2].iter().copied().eq(journal.lines().take(2)));
    let missing = &events[2];
    assert_eq!((&*missing.kind, missing.id, told.len()), ("missing", Some(lines), 3));
    assert_eq!(missing.json(), json!({ "first": 3, "last": lines }));
    assert_eq!(
        (&*events.last().unwrap().kind, &events.last().unwrap().json()["state"]),
        ("state", &json!("done"))
    );
    // What is sent again after a broken connection begins behind them.
    assert!(server.events(&id, Some(lines)).all(|event| event.kind != "missing"));
    let answer = server.get(&plot);
    let says = format!(
        "line 3 of the journal is no longer as its trainer wrote it, and nothing is told of it and of what follows, up to \
         line {lines}"
    );
    assert!(answer.status == 500 && answer.problem().detail.starts_with(&says), "{:?}", answer.problem());
    let watched = server.pba(&["search", "watch", &id]);
    assert!(watched.code == Some(0) && watched.stderr.contains(&says), "{watched:?}");
}

#[test]
fn watchers_of_a_search_that_waits_and_is_cancelled() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let running = server.start_search(&spec(json!({ "name": "running" })));
    let waiting = server.start_search(&spec(json!({ "name": "waiting" })));
    server.wait_for_state(&running, "running");
    for (id, state) in [(&waiting, "queued"), (&running, "running")] {
        let mut watcher = server.events(id, None);
        assert_eq!(watcher.next().unwrap().json()["state"], state);
        let start = std::time::Instant::now();
        assert_eq!(server.send("DELETE", &format!("/v1/searches/{id}"), b"").json()["state"], "cancelled");
        let events: Vec<Event> = watcher.by_ref().collect();
        assert!(watcher.ended_well && start.elapsed() < Duration::from_secs(15));
        check(&events, 0, "", "cancelled");
    }
}

#[test]
fn watchers_do_not_hold_up_a_server_that_ends() {
    let script = Script::idles();
    let mut server = Server::start(&["--trainer", script.path(), "--drain-seconds", "3600"]);
    let id = server.start_search(&spec(json!({})));
    let mut watchers: Vec<_> = (0..3).map(|_| server.events(&id, None)).collect();
    server.wait_for_state(&id, "running");
    let start = std::time::Instant::now();
    server.process.signal("TERM");
    assert_eq!(server.process.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    for watcher in &mut watchers {
        let last = watcher.by_ref().last();
        let is_final =
            last.is_some_and(|event| ["done", "failed", "cancelled"].contains(&event.kind.as_str()));
        assert!(!is_final, "the search looks ended; it goes on after a restart");
    }
}
