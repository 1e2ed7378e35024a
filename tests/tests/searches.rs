//! Searches end with the schedule that their spec says, whatever happens meanwhile.
//!
//! Everything is compared with the journal of one search that ran undisturbed: it holds no clock
//! and no machine, so the same spec leaves the same bytes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pba_schedules::rng::{Address, Purpose};
use pba_tests::search::{Script, assert_no_trainer, signal, spec, trainer, trainers_in};
use pba_tests::{Server, wait_for, xml};
use serde_json::{Value, json};

/// What the search of [`spec`] leaves when nothing happens to it.
struct Undisturbed {
    journal: String,
    took: Duration,
}

fn undisturbed(trainer: &str) -> &'static Undisturbed {
    static UNDISTURBED: OnceLock<Undisturbed> = OnceLock::new();
    UNDISTURBED.get_or_init(|| {
        let server = Server::with_trainer(trainer);
        let start = Instant::now();
        let id = server.start_search(&spec(json!({})));
        server.wait_for_state(&id, "done");
        Undisturbed { took: start.elapsed(), journal: server.journal(&id) }
    })
}

/// A number in 0..1 that depends on these alone.
fn share(seed: u64, draw: u32) -> f64 {
    let draws = Address { seed, purpose: Purpose::Dataset, epoch: 0, item: 0 };
    f64::from(draws.block(draw)[0]) / f64::from(u32::MAX)
}

fn lines(journal: &str) -> usize {
    journal.lines().count()
}

/// Checks that a search ends as if nothing had happened, and that nothing is left of it.
#[track_caller]
fn ends_undisturbed(server: &Server, id: &str, trainer: &str) {
    let search = server.wait_for_state(id, "done");
    let expected = &undisturbed(trainer).journal;
    assert_eq!(server.journal(id), *expected);
    let done: Value = serde_json::from_str(expected.lines().last().unwrap()).unwrap();
    let schedule = server.get(&format!("/v1/schedules/{}", search["schedule"].as_str().unwrap()));
    assert_eq!(schedule.header("etag"), Some(&*format!("\"{}\"", done["digest"].as_str().unwrap())));
    let told: Vec<String> =
        server.events(id, None).filter(|event| event.id.is_some()).map(|event| event.data).collect();
    assert_eq!(told, expected.lines().collect::<Vec<_>>(), "what is told is not what is on disk");
    assert_no_trainer(&server.search_folder(id));
}

#[test]
fn the_same_spec_learns_the_same_and_another_seed_does_not() {
    let Some(trainer) = trainer() else { return };
    let expected = &undisturbed(&trainer).journal;
    let server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({})));
    let other = server.start_search(&spec(json!({ "name": "other", "seed": 12 })));
    ends_undisturbed(&server, &id, &trainer);
    server.wait_for_state(&other, "done");
    let digest = |journal: &str| {
        let done: Value = serde_json::from_str(journal.lines().last().unwrap()).unwrap();
        done["digest"].as_str().unwrap().to_owned()
    };
    assert_ne!(digest(&server.journal(&other)), digest(expected));
    let exploits = expected.lines().filter(|line| line.contains("\"exploit\"")).count();
    assert_eq!(exploits, 5, "one of four members copies after each generation but the last");
}

#[test]
fn a_trainer_that_is_killed_at_five_moments() {
    let Some(trainer) = trainer() else { return };
    let undisturbed = undisturbed(&trainer);
    let server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({})));
    let watchers: Vec<_> = [None, Some(3)]
        .into_iter()
        .map(|last| {
            let mut watcher = server.events(&id, last);
            std::thread::spawn(move || {
                let told: Vec<_> = watcher.by_ref().collect();
                (told, watcher.ended_well)
            })
        })
        .collect();
    let total = lines(&undisturbed.journal);
    for kill in 0..5 {
        // One in each sixth of the journal, and there at any moment of a generation.
        server.wait_for_lines(&id, 1 + total * kill / 6);
        std::thread::sleep(undisturbed.took.mul_f64(share(5, kill as u32) / 6.0));
        signal(server.trainer_of(&id), "KILL");
    }
    ends_undisturbed(&server, &id, &trainer);
    assert!((1.0..=5.0).contains(&server.metric("pba_trainer_restarts_total{kind=\"search\"}")));
    // Who watches a crash sees each line of the journal once.
    for (watcher, seen) in watchers.into_iter().zip([0, 3]) {
        let (told, ended_well) = watcher.join().unwrap();
        assert!(ended_well);
        let told: Vec<_> = told.into_iter().filter_map(|event| Some((event.id?, event.data))).collect();
        let expected = undisturbed.journal.lines().enumerate().skip(seen);
        assert_eq!(told, expected.map(|(at, line)| (at + 1, line.to_owned())).collect::<Vec<_>>());
    }
}

/// The moment that matters most: an event is on disk, and the server was not told.
#[test]
fn a_trainer_that_is_killed_before_it_tells_what_it_wrote() {
    let Some(trainer) = trainer() else { return };
    for event in ["scored", "exploit", "checkpoint", "done"] {
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
        let id = server.start_search(&spec(json!({})));
        ends_undisturbed(&server, &id, &trainer);
        assert_eq!(server.metric("pba_trainer_restarts_total{kind=\"search\"}"), 1.0, "{event}");
    }
}

#[test]
fn a_server_that_is_killed_and_restarted() {
    let Some(trainer) = trainer() else { return };
    let undisturbed = undisturbed(&trainer);
    let mut server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({})));
    let waiting = server.start_search(&spec(json!({ "name": "waiting", "epochs": 2 })));
    let total = lines(&undisturbed.journal);
    for kill in 0..3 {
        server.wait_for_lines(&id, 1 + total * kill / 4);
        std::thread::sleep(undisturbed.took.mul_f64(share(6, kill as u32) / 4.0));
        server = server.killed_and_restarted(&trainer);
        assert_ne!(server.search(&waiting)["state"], "failed");
    }
    ends_undisturbed(&server, &id, &trainer);
    server.wait_for_state(&waiting, "done");
    assert_no_trainer(server.data().path());
}

#[test]
fn a_server_that_is_stopped_and_restarted() {
    let Some(trainer) = trainer() else { return };
    let mut server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({})));
    for lines in [1, 4, 8] {
        server.wait_for_lines(&id, lines);
        let start = Instant::now();
        server.process.signal("TERM");
        assert_eq!(server.process.wait().code(), Some(0), "{}", server.process.stderr());
        // A trainer ends between two steps, not after its twenty seconds.
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
        assert_eq!(trainers_in(server.data().path()), [0; 0]);
        server = Server::start_on(server.data(), &["--trainer", &trainer]);
    }
    ends_undisturbed(&server, &id, &trainer);
}

/// As with `make run`, which serves while it still builds the trainer.
#[test]
fn a_search_of_a_restarted_server_waits_for_a_trainer() {
    let Some(trainer) = trainer() else { return };
    let mut server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({})));
    // As soon as it has begun: it takes seconds.
    server.wait_for_lines(&id, 1);
    server.process.signal("TERM");
    assert_eq!(server.process.wait().code(), Some(0), "{}", server.process.stderr());
    let folder = tempfile::tempdir().unwrap();
    let built = folder.path().join("pba-trainer");
    server = Server::start_on(server.data(), &["--trainer", built.to_str().unwrap()]);
    wait_for("the server to say so", || {
        server.process.stderr().contains("there is no trainer").then_some(())
    });
    assert_eq!(server.search(&id)["state"], "queued");
    std::os::unix::fs::symlink(&trainer, &built).unwrap();
    ends_undisturbed(&server, &id, &trainer);
}

#[test]
fn a_server_beside_the_one_that_writes_shows_its_searches() {
    let Some(trainer) = trainer() else { return };
    let writer = Server::with_trainer(&trainer);
    let beside = Server::start_on(writer.data(), &["--trainer", &trainer]);
    let id = writer.start_search(&spec(json!({ "epochs": 300 })));
    // Never behind what the other one has done, and never before it.
    writer.wait_for_lines(&id, 12);
    let shown = beside.search(&id);
    assert_eq!((&shown["state"], &shown["id"]), (&json!("running"), &json!(id)));
    assert!(shown["epoch"].as_u64() > Some(0), "{shown}");
    assert!(shown["seconds"].as_f64() > Some(0.0), "{shown}");
    let watched = beside.get(&format!("/v1/searches/{id}/events"));
    assert_eq!(watched.status, 409, "it would hear of nothing");
    assert_eq!(writer.send("DELETE", &format!("/v1/searches/{id}"), b"").status, 200);
    assert_eq!(beside.search(&id)["state"], "cancelled");
    assert_eq!(beside.metric("pba_jobs{kind=\"search\",state=\"cancelled\"}"), 0.0, "it hosts none");
}

#[test]
fn a_server_beside_the_one_that_writes_clears_nothing_away() {
    let writer = Server::start(&[]);
    let begun = writer.search_folder(".begun-just-now");
    std::fs::create_dir(&begun).unwrap();
    let beside = Server::start_on(writer.data(), &[]);
    assert!(begun.exists(), "what the other one may be making was removed");
    let data = writer.data();
    drop((beside, writer));
    let _again = Server::start_on(data, &[]);
    assert!(!begun.exists(), "what is no longer being made was left");
}

/// The trainer has not even begun to watch its parent when that dies.
#[test]
fn a_server_that_is_killed_while_its_trainer_starts() {
    let Some(trainer) = trainer() else { return };
    let mut server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({})));
    for _ in 0..3 {
        server.trainer_of(&id);
        server = server.killed_and_restarted(&trainer);
    }
    ends_undisturbed(&server, &id, &trainer);
}

#[test]
fn a_search_that_is_cancelled_and_resumed() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({})));
    let path = format!("/v1/searches/{id}");
    for lines in [0, 3, 9, 10] {
        server.wait_for_lines(&id, lines);
        let start = Instant::now();
        let answer = server.send("DELETE", &path, b"");
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
        assert_eq!((answer.status, answer.json()["state"].as_str()), (200, Some("cancelled")), "{lines}");
        assert_eq!(trainers_in(&server.search_folder(&id)), [0; 0], "it is still there after the answer");
        assert_eq!(server.send("DELETE", &path, b"").status, 409);
        let resumed = server.send("POST", &format!("{path}/resume"), b"");
        assert_eq!(resumed.status, 202, "{}", resumed.text());
        assert!(["queued", "running"].contains(&resumed.json()["state"].as_str().unwrap()));
    }
    ends_undisturbed(&server, &id, &trainer);
    for (method, path, says) in
        [("DELETE", path.clone(), "already done"), ("POST", format!("{path}/resume"), "only a failed or")]
    {
        let answer = server.send(method, &path, b"");
        assert_eq!(answer.status, 409);
        assert!(answer.problem().detail.contains(says), "{}", answer.text());
    }
    // It stays cancelled, and resumable, over a restart.
    let id = server.start_search(&spec(json!({ "name": "again" })));
    server.wait_for_lines(&id, 4);
    assert_eq!(server.send("DELETE", "/v1/searches/again", b"").status, 200);
    let server = server.killed_and_restarted(&trainer);
    assert_eq!(server.search(&id)["state"], "cancelled");
    assert_eq!(server.send("POST", "/v1/searches/again/resume", b"").status, 202);
    server.wait_for_state(&id, "done");
    let renamed = undisturbed(&trainer).journal.replace("\"name\":\"small\"", "\"name\":\"again\"");
    assert_eq!(server.journal(&id), renamed);
}

/// After a checkpoint that is a crash; before it, the members may never fit.
#[test]
fn a_device_that_fails() {
    let Some(trainer) = trainer() else { return };
    let script = Script::trains(&format!(
        r#"real='{trainer}'
        [ -e "$here/failed" ] && exec "$real" "$@"
        mkfifo "$here/out"
        "$real" "$@" >"$here/out" &
        while read -r line; do
            printf '%s\n' "$line"
            case "$line" in *'"event":"saved"'*)
                kill -9 $!; touch "$here/failed"; echo 'error: CUDA: out of memory' >&2; exit 4;; esac
        done <"$here/out""#
    ));
    let server = Server::with_trainer(script.path());
    let id = server.start_search(&spec(json!({})));
    ends_undisturbed(&server, &id, &trainer);
    assert_eq!(server.metric("pba_trainer_restarts_total{kind=\"search\"}"), 1.0);

    let script = Script::trains("echo 'error: CUDA: out of memory' >&2; exit 4");
    let server = Server::with_trainer(script.path());
    let id = server.start_search(&spec(json!({})));
    let failed = server.wait_for_state(&id, "failed");
    assert!(failed["error"].as_str().unwrap().contains("CUDA: out of memory"), "{failed}");
    assert_eq!(server.metric("pba_trainer_restarts_total{kind=\"search\"}"), 0.0);
}

#[test]
fn a_disk_that_is_full() {
    let Some(trainer) = trainer() else { return };
    // No file may grow beyond some blocks, as on a disk that is full.
    let script = Script::trains(&format!(
        r#"if [ -e "$here/full" ]; then ulimit -f 600; fi
        exec '{trainer}' "$@""#
    ));
    let server = Server::with_trainer(script.path());
    let id = server.start_search(&spec(json!({})));
    let checkpoints = |journal: &str| journal.matches("\"event\":\"checkpoint\"").count();
    let saved = |name: String| name.starts_with("checkpoint-") && *name >= *"checkpoint-000004.safetensors";
    wait_for("two generations", || {
        let mut files = std::fs::read_dir(server.search_folder(&id)).ok()?;
        files.any(|file| saved(file.unwrap().file_name().into_string().unwrap())).then_some(())
    });
    std::fs::write(script.file("full"), "").unwrap();
    signal(server.trainer_of(&id), "KILL");
    let failed = server.wait_for_state(&id, "failed");
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("cannot save the checkpoint"), "{error}");
    assert!(failed["epoch"].as_u64().unwrap() >= 4);
    let kept = server.journal(&id);
    assert!(undisturbed(&trainer).journal.starts_with(&kept));
    assert!(checkpoints(&kept) >= 2, "finished generations were lost");
    // It says so again, as long as the disk is full, and also after a restart.
    assert_eq!(server.send("POST", &format!("/v1/searches/{id}/resume"), b"").status, 202);
    server.wait_for_state(&id, "failed");
    let server = server.killed_and_restarted(script.path());
    assert_eq!(server.search(&id)["error"], error);
    std::fs::remove_file(script.file("full")).unwrap();
    assert_eq!(server.send("POST", &format!("/v1/searches/{id}/resume"), b"").status, 202);
    ends_undisturbed(&server, &id, &trainer);
}

#[test]
fn the_end_of_a_journal_is_torn() {
    let Some(trainer) = trainer() else { return };
    let whole = &undisturbed(&trainer).journal;
    let mut server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({})));
    server.wait_for_lines(&id, 6);
    server.process.signal("KILL");
    server.process.wait();
    assert_no_trainer(server.data().path());
    let path = server.search_folder(&id).join("events.jsonl");
    let kept = std::fs::read(&path).unwrap();
    assert!(whole.starts_with(&server.journal(&id)));
    std::fs::write(&path, [&kept[..], b"{\"event\":\"sco\xff\0\0"].concat()).unwrap();
    let server = Server::start_on(server.data(), &["--trainer", &trainer]);
    ends_undisturbed(&server, &id, &trainer);
}

#[test]
fn what_was_learned_is_a_schedule_like_any_other() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({})));
    let drawn_early = server.get(&format!("/v1/searches/{id}/plot.svg"));
    xml::check(&drawn_early.text());
    wait_for("a score in the metrics", || {
        let metrics = server.metrics();
        let told =
            ["pba_search_epoch", "pba_search_best_accuracy_ratio", "pba_search_progress_timestamp_seconds"]
                .map(|name| metrics.get(&format!("{name}{{search=\"{id}\"}}")));
        told.iter().all(|value| *value > 0.0).then_some(())
    });
    let search = server.wait_for_state(&id, "done");
    assert_eq!(search["schedule"], id.as_str());
    assert_eq!((&search["epoch"], &search["epochs"]), (&json!(12), &json!(12)));
    let best = search["best_accuracy"].as_f64().unwrap();
    assert!(search["seconds"].as_f64().unwrap() > 0.0 && search["error"].is_null());

    let plot = server.get(&format!("/v1/searches/{id}/plot.svg"));
    assert_eq!(plot.header("content-type"), Some("image/svg+xml"));
    let texts = xml::check(&plot.text());
    for says in ["small", "12 of 12 epochs", "5 exploits", "Rotate", "Cutout"] {
        assert!(texts.iter().any(|text| text.contains(says)), "{texts:?} does not say {says:?}");
    }
    for other in ["?x=1", "?width=100"] {
        assert_eq!(server.get(&format!("/v1/searches/{id}/plot.svg{other}")).status, 400);
    }

    let request = format!("shapes/epochs/11/batches?schedule={id}&split=test");
    let streamed = server.epoch(&request);
    let page = server.get(&format!("/v1/schedules/{id}"));
    assert_eq!(page.header("etag"), Some(&*format!("\"{}\"", streamed.metadata["pba.schedule"])));
    let document = page.json();
    assert_eq!(document["provenance"]["seed"], 11);
    assert_eq!(document["provenance"]["population"], 4);
    assert_eq!(document["provenance"]["score"].as_f64(), Some(best));

    // The gauges and counters have moved.
    wait_for("the search to be counted as done", || {
        (server.metric("pba_jobs{kind=\"search\",state=\"done\"}") == 1.0).then_some(())
    });
    let metrics = server.metrics();
    let states: BTreeSet<&str> = metrics.label_values("state");
    for state in ["queued", "running", "done", "failed", "cancelled"] {
        assert!(states.contains(state), "{states:?}");
    }
    // They end with the search.
    for ended in
        ["pba_search_epoch", "pba_search_best_accuracy_ratio", "pba_search_progress_timestamp_seconds"]
    {
        assert!(!metrics.families.contains_key(ended), "{ended} outlasts its search");
    }
    assert_eq!(metrics.get("pba_search_exploits_total"), 5.0);
    assert_eq!(metrics.get("pba_trainer_restarts_total{kind=\"search\"}"), 0.0);
    assert_eq!(metrics.get("pba_search_images_trained_total"), 4.0 * 128.0 * 12.0);
    assert_eq!(metrics.lint(), [""; 0]);

    let data = server.data();
    drop(server);
    let server = Server::start_on(Arc::clone(&data), &["--trainer", "/nowhere"]);
    let again = server.search(&id);
    for field in ["state", "epoch", "best_accuracy", "schedule", "members", "spec", "seconds"] {
        assert_eq!(again[field], search[field], "{field} after a restart");
    }
    assert!(server.epoch(&request).bytes == streamed.bytes, "other bytes after a restart");
    assert_eq!(server.get(&format!("/v1/searches/{id}/plot.svg")).body, plot.body);
    assert_eq!(server.metric("pba_jobs{kind=\"search\",state=\"done\"}"), 1.0);
    server.assert_healthy();
    assert!(Path::new(&server.search_folder(&id)).exists());
}

/// Streams are served while a search takes every core, and are not changed by it.
#[test]
fn streams_beside_a_search() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let request = "shapes/epochs/3/batches?schedule=cifar10-pba&split=test";
    let expected = server.epoch(request);
    let id = server.start_search(&spec(json!({})));
    server.wait_for_lines(&id, 1);
    for _ in 0..3 {
        assert!(server.epoch(request).bytes == expected.bytes);
    }
    ends_undisturbed(&server, &id, &trainer);
    server.assert_healthy();
}
