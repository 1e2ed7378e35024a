//! What was acknowledged stays, and what could not be stored is refused.
//!
//! A folder where a file should go stands in for a disk that does not take it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pba_tests::mounts::{READ_ONLY, SMALL, fill, mounted, seen};
use pba_tests::power_loss::is_possible;
use pba_tests::search::{Script, assert_no_trainer, evaluation, spec, trainer};
use pba_tests::server::data_folder;
use pba_tests::{Answer, Server, wait_for};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

/// Keeps a file from being replaced, until it is dropped.
struct Obstacle(PathBuf);

impl Obstacle {
    fn to(path: &Path) -> Obstacle {
        let mut partial = path.to_owned();
        partial.as_mut_os_string().push(".partial");
        fs::create_dir(&partial).unwrap();
        Obstacle(partial)
    }
}

impl Drop for Obstacle {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).unwrap();
    }
}

fn cancel(server: &Server, id: &str) -> Answer {
    server.send("DELETE", &format!("/v1/searches/{id}"), b"")
}

fn post(server: &Server, id: &str, what: &str) -> Answer {
    server.send("POST", &format!("/v1/searches/{id}/{what}"), b"")
}

/// Checks that a change was refused because of the disk, in words that name the file.
#[track_caller]
fn refused(answer: &Answer, file: &str) {
    assert_eq!(answer.status, 500, "{}", answer.text());
    let detail = answer.problem().detail;
    assert!(detail.contains(file) && detail.contains("nothing was changed"), "{detail}");
}

#[test]
fn a_cancellation_that_cannot_be_stored_is_refused_and_one_that_was_stays() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let [running, queued] =
        ["running", "queued"].map(|name| server.start_search(&spec(json!({ "name": name }))));
    server.wait_for_state(&running, "running");
    let obstacles = [&running, &queued].map(|id| Obstacle::to(&server.search_folder(id).join("search.json")));
    for (id, state) in [(&running, "running"), (&queued, "queued")] {
        refused(&cancel(&server, id), "search.json");
        assert_eq!(server.search(id)["state"], state, "it goes on");
    }
    drop(obstacles);
    for id in [&running, &queued] {
        assert_eq!(cancel(&server, id).status, 200);
    }
    let server = server.killed_and_restarted(script.path());
    for id in [&running, &queued] {
        assert_eq!(server.search(id)["state"], "cancelled", "it runs again");
    }
    // Likewise to resume.
    let obstacle = Obstacle::to(&server.search_folder(&queued).join("search.json"));
    refused(&post(&server, &queued, "resume"), "search.json");
    assert_eq!(server.search(&queued)["state"], "cancelled");
    drop(obstacle);
    assert_eq!(post(&server, &queued, "resume").status, 202);
    server.wait_for_state(&queued, "running");
    // And to finish.
    let obstacle = Obstacle::to(&server.search_folder(&queued).join("finish.asked"));
    refused(&post(&server, &queued, "finish"), "finish");
    assert!(server.search(&queued).get("finishing").is_none());
    drop(obstacle);
    assert_eq!(post(&server, &queued, "finish").status, 202);
    assert_eq!(server.search(&queued)["finishing"], true);
    server.assert_healthy();
}

/// The server dies while it ends the trainer of a search that was cancelled: the client has no answer, but what
/// is on disk is what was asked.
#[test]
fn a_cancellation_holds_while_the_trainer_still_ends() {
    let script = Script::trains(r#"trap '' TERM; touch "$here/deaf"; idle"#);
    let server = Server::with_trainer(script.path());
    let id = server.start_search(&spec(json!({})));
    wait_for("a trainer that is deaf", || script.file("deaf").exists().then_some(()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let target = format!("/v1/searches/{id}");
            // The connection breaks.
            let _ = pba_tests::Download::open(server.address(), "DELETE", &target, &[], b"");
        });
        let entry = server.search_folder(&id).join("search.json");
        wait_for("the cancellation on disk", || {
            fs::read_to_string(&entry).unwrap().contains("\"cancelled\"").then_some(())
        });
        assert_eq!(server.search(&id)["state"], "running", "its trainer is not gone yet");
        server.process.signal("KILL");
    });
    let server = server.killed_and_restarted(script.path());
    assert_eq!(server.search(&id)["state"], "cancelled");
}

#[test]
fn a_job_that_cannot_be_stored_is_refused() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let searches = server.data().path().join("searches");
    let elsewhere = server.data().path().join("elsewhere");
    fs::rename(&searches, &elsewhere).unwrap();
    let answer = server.send("POST", "/v1/searches", spec(json!({})).to_string().as_bytes());
    refused(&answer, "searches");
    assert_eq!(server.get("/v1/searches").json()["searches"], json!([]));
    fs::rename(&elsewhere, &searches).unwrap();
    // Nothing is left of it: not even its name.
    let id = server.start_search(&spec(json!({})));
    let server = server.killed_and_restarted(script.path());
    server.wait_for_state(&id, "running");
    assert_eq!(searches.read_dir().unwrap().count(), 1);
}

#[test]
fn a_lock_that_is_removed_lets_no_second_writer_in() {
    let first = Server::start(&[]);
    fs::remove_file(first.data().path().join("lock")).unwrap();
    let second = Server::start_on(first.data(), &[]);
    let mut document = first.get("/v1/schedules/svhn-pba").json();
    document["name"] = "mine".into();
    let put = |server: &Server| server.send("PUT", "/v1/schedules/mine", document.to_string().as_bytes());
    assert_eq!(put(&second).status, 409, "two servers write in a data directory");
    assert_eq!(put(&first).status, 201);
    // A directory that was moved away is no longer this server's.
    let (data, elsewhere) =
        (first.data(), tempfile::tempdir_in(first.data().path().parent().unwrap()).unwrap());
    fs::rename(data.path(), elsewhere.path()).unwrap();
    fs::create_dir_all(data.path().join("schedules")).unwrap();
    let answer = first.send("DELETE", "/v1/schedules/mine", b"");
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.problem().detail.contains("moved away"), "{}", answer.text());
    assert!(elsewhere.path().join("schedules/mine.json").exists());
}

#[test]
fn a_data_directory_that_is_read_only_is_streamed_from() {
    let script = Script::idles();
    let Some(server) = mounted(READ_ONLY, &data_folder(), &["--trainer", script.path()]) else { return };
    assert_eq!(server.epoch("shapes/epochs/0/batches?split=test&shard=0/50").indices().len(), 40);
    let document = server.get("/v1/schedules/svhn-pba").text().replace("svhn-pba", "mine");
    let search = spec(json!({})).to_string();
    for (method, target, body) in [("PUT", "/v1/schedules/mine", document), ("POST", "/v1/searches", search)]
    {
        let answer = server.send(method, target, body.as_bytes());
        assert_eq!(answer.status, 503, "{}", answer.text());
        let problem = answer.problem();
        assert_eq!(problem.kind, "urn:pba:problem:read-only");
        assert!(problem.detail.contains("Read-only file system"), "{problem:?}");
    }
    for target in ["/readyz", "/v1/schedules", "/v1/searches", "/v1/schedules/cifar10-pba"] {
        assert_eq!(server.get(target).status, 200, "{target}");
    }
    assert!(server.process.stderr().contains("Read-only file system"), "{}", server.process.stderr());
    server.assert_healthy();
}

/// The trainer has to import the dataset again, for which there is no room: that is no fault of the spec.
#[test]
fn a_search_whose_dataset_does_not_fit_the_disk_is_refused_as_that() {
    let Some(trainer) = trainer() else { return };
    let data = pba_tests::server::empty_data_folder();
    let Some(server) = mounted(SMALL, &data, &["--trainer", &trainer]) else { return };
    // As the server sees it.
    fs::remove_dir_all(seen(&server, "datasets")).unwrap();
    fill(&seen(&server, "fill"));
    let answer = server.send("POST", "/v1/searches", spec(json!({})).to_string().as_bytes());
    assert_eq!(answer.status, 507, "{}", answer.text());
    assert!(answer.problem().detail.contains("No space left"), "{}", answer.text());
    server.assert_healthy();
}

/// A file that may not grow further is refused as one for which there is no room, and ends nothing.
#[test]
fn a_file_that_may_not_grow_is_refused() {
    let server = Server::start(&[]);
    let limit = Rlimit { current: Some(20_480), maximum: None };
    prlimit(Pid::from_raw(server.process.id() as i32), Resource::Fsize, limit).unwrap();
    let mut document = server.get("/v1/schedules/svhn-pba").json();
    document["name"] = "large".into();
    document["provenance"] = json!({ "notes": "x".repeat(50_000) });
    let refused = server.send("PUT", "/v1/schedules/large", document.to_string().as_bytes());
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert_eq!(server.get("/v1/schedules/large").status, 404);
    server.assert_healthy();
}

/// What is acknowledged is on disk, also of something that was acknowledged before and that the disk lost since.
#[test]
fn what_is_asked_for_again_is_written_again() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let document = server.get("/v1/schedules/svhn-pba").text().replace("svhn-pba", "mine");
    let put = || server.send("PUT", "/v1/schedules/mine", document.as_bytes()).status;
    let file = server.data().path().join("schedules/mine.json");
    assert_eq!(put(), 201);
    let written = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!((put(), std::fs::read(&file).unwrap() == written), (200, true));
    std::fs::write(&file, "{").unwrap();
    assert_eq!((put(), std::fs::read(&file).unwrap() == written), (200, true));
    let id = server.start_search(&spec(json!({})));
    let finish = || server.send("POST", &format!("/v1/searches/{id}/finish"), b"").status;
    let wish = server.search_folder(&id).join("finish");
    assert_eq!((finish(), wish.exists()), (202, true));
    std::fs::remove_file(&wish).unwrap();
    assert_eq!((finish(), wish.exists()), (202, true));
}

/// A search whose schedule could not be registered in the end is not begun.
#[test]
fn a_name_whose_file_is_taken_is_refused_at_once() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    std::fs::write(server.data().path().join("schedules/mine.json"), "notes").unwrap();
    let asked = spec(json!({ "name": "mine" }));
    let refused = server.send("POST", "/v1/searches", asked.to_string().as_bytes());
    assert_eq!(refused.status, 409, "{}", refused.text());
}

/// Pipes in place of files, to which nothing is written.
#[test]
fn nobody_waits_for_a_pipe_in_a_data_directory() {
    let (script, data) = (Script::idles(), data_folder());
    let server = Server::start_on(Arc::clone(&data), &["--trainer", script.path()]);
    let id = server.start_search(&spec(json!({})));
    server.wait_for_state(&id, "running");
    let server = server.killed_and_restarted(script.path());
    assert_eq!(server.send("DELETE", &format!("/v1/searches/{id}"), b"").status, 200);
    let document = server.get("/v1/schedules/svhn-pba").text().replace("svhn-pba", "mine");
    drop(server);
    let entry = data.path().join("searches").join(&id).join("search.json");
    fs::remove_file(&entry).unwrap();
    let pipes = ["schedules/pipe.json", "searches/pipe", "schedules/mine.json.partial"];
    for pipe in pipes.map(|pipe| data.path().join(pipe)).iter().chain([&entry]) {
        assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    }
    let server = Server::start_on(Arc::clone(&data), &["--trainer", script.path()]);
    let replica = Server::start_on(Arc::clone(&data), &[]);
    for server in [&server, &replica] {
        assert_eq!(server.search(&id)["state"], "failed");
        assert!(server.search(&id)["error"].as_str().unwrap().contains("not a regular file"));
        assert_eq!(server.get("/v1/schedules/pipe").status, 404);
        server.assert_healthy();
    }
    // What lies where a file is written first is replaced.
    let added = server.send("PUT", "/v1/schedules/mine", document.as_bytes());
    assert_eq!(added.status, 201, "{}", added.text());
    drop((server, replica));
    // Nor is it locked.
    fs::remove_file(data.path().join("lock")).unwrap();
    assert!(Command::new("mkfifo").arg(data.path().join("lock")).status().unwrap().success());
    let server = Server::start_on(data, &[]);
    let refused = server.send("PUT", "/v1/schedules/mine", document.as_bytes());
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert!(refused.problem().detail.contains("cannot be locked"), "{}", refused.text());
}

fn etag(server: &Server, schedule: &str) -> Option<String> {
    let answer = server.get(&format!("/v1/schedules/{schedule}"));
    (answer.status == 200).then(|| answer.header("etag").unwrap().to_owned())
}

#[test]
fn what_a_search_learned_is_there_as_long_as_nobody_removes_it() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({ "epochs": 4 })));
    server.wait_for_state(&id, "done");
    let learned = etag(&server, &id).unwrap();
    let file = server.data().path().join("schedules").join(format!("{id}.json"));
    let content = fs::read(&file).unwrap();
    // As after a disk that lost it.
    fs::remove_file(&file).unwrap();
    let server = server.killed_and_restarted(&trainer);
    wait_for("the schedule to be registered", || etag(&server, &id));
    assert_eq!(etag(&server, &id).as_ref(), Some(&learned));
    assert_eq!(fs::read(&file).unwrap(), content);
    // Its user removes it: it stays away.
    assert_eq!(server.send("DELETE", &format!("/v1/schedules/{id}"), b"").status, 204);
    let server = server.killed_and_restarted(&trainer);
    server.start_search(&spec(json!({ "name": "other", "epochs": 2 })));
    server.wait_for_state("other", "done");
    assert_eq!(etag(&server, &id), None);
    assert_eq!(server.search(&id)["state"], "done");
}

/// A job that is done, whose journal is not, says so, and ends with the same result once it is resumed.
#[test]
fn a_job_that_is_done_says_that_its_journal_is_damaged() {
    let Some(trainer) = trainer() else { return };
    let flip = |journal: &[u8]| {
        let mut journal = journal.to_vec();
        let at = journal.len() / 2;
        journal[at] ^= 1;
        journal
    };
    let lost = |_: &[u8]| Vec::new();
    for (jobs, spec) in
        [("searches", spec(json!({ "epochs": 4 }))), ("evaluations", evaluation(json!({ "epochs": 2 })))]
    {
        let server = Server::with_trainer(&trainer);
        let id = server.start_job(jobs, &spec);
        let mut done = server.wait_for_job(jobs, &id, "done");
        let (journal, path) =
            (server.journal_of(jobs, &id), server.job_folder(jobs, &id).join("events.jsonl"));
        let learned = etag(&server, &id);
        let mut server = server;
        for damage in [flip as fn(&[u8]) -> Vec<u8>, lost] {
            server.process.signal("KILL");
            server.process.wait();
            fs::write(&path, damage(&fs::read(&path).unwrap())).unwrap();
            server = Server::start_on(server.data(), &["--trainer", &trainer]);
            let failed = server.job(jobs, &id);
            assert_eq!(failed["state"], "failed", "{failed}");
            let error = failed["error"].as_str().unwrap();
            assert!(error.contains("events.jsonl") && error.contains("resumed"), "{error}");
            assert_eq!(failed["seconds"], done["seconds"], "what else is known stays");
            assert_eq!(etag(&server, &id), learned, "what it learned stays");
            assert_eq!(server.send("POST", &format!("/v1/{jobs}/{id}/resume"), b"").status, 202);
            let again = server.wait_for_job(jobs, &id, "done");
            done["seconds"] = again["seconds"].clone();
            assert_eq!(again, done);
            assert_eq!(server.journal_of(jobs, &id), journal);
            assert_eq!(etag(&server, &id), learned);
        }
    }
}

/// The end of a journal that never reached the disk may be anything.
#[test]
fn a_search_goes_on_from_what_is_whole_of_its_journal() {
    let Some(trainer) = trainer() else { return };
    let undisturbed = {
        let server = Server::with_trainer(&trainer);
        let id = server.start_search(&spec(json!({})));
        server.wait_for_state(&id, "done");
        server.journal(&id)
    };
    let mut server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({})));
    for (kill, lines) in [(0, 4), (1, 7), (2, 9)] {
        server.wait_for_lines(&id, lines);
        server.process.signal("KILL");
        server.process.wait();
        assert_no_trainer(server.data().path());
        let path = server.search_folder(&id).join("events.jsonl");
        let mut journal = fs::read(&path).unwrap();
        let last = journal.len() - 40;
        match kill {
            // A page that was not written, and one after it that was.
            0 => journal[last - 60..last].fill(0),
            1 => journal[last..].fill(0),
            _ => journal[last] ^= 64,
        }
        fs::write(&path, journal).unwrap();
        server = Server::start_on(server.data(), &["--trainer", &trainer]);
        let search = server.search(&id);
        assert!(["queued", "running", "done"].contains(&search["state"].as_str().unwrap()), "{search}");
    }
    server.wait_for_state(&id, "done");
    assert_eq!(server.journal(&id), undisturbed);
    let done: Value = serde_json::from_str(undisturbed.lines().last().unwrap()).unwrap();
    assert_eq!(etag(&server, &id), Some(format!("\"{}\"", done["digest"].as_str().unwrap())));
}

#[test]
fn a_line_without_end_fails_the_job_and_not_the_server() {
    let script = Script::trains(r"head -c 100000000 /dev/zero | tr '\0' x; idle");
    let server = Server::with_trainer(script.path());
    let id = server.start_search(&spec(json!({})));
    let failed = server.wait_for_state(&id, "failed");
    assert!(failed["error"].as_str().unwrap().contains("a line of more than 16 MiB"), "{failed}");
    assert_no_trainer(server.data().path());
    server.assert_healthy();
}

#[test]
fn a_job_says_what_it_waits_for() {
    let script = Script::new(
        r#"case " $* " in
            *' --check '*) exit 0;;
            ' devices ') while [ ! -e "$here/go" ]; do [ -e "$0" ] || exit 0; sleep 0.05; done
                echo '{"devices":[{"device":"cpu"}]}'; exit 0;;
        esac
        echo '{"event":"waits","reason":"another trainer still works there"}'
        trap 'exit 3' TERM; idle"#,
    );
    let server = Server::with_trainer(script.path());
    let id = server.start_search(&spec(json!({ "device": "auto" })));
    let says = |id: &str, text: &str| {
        wait_for(text, || {
            server.search(id)["waiting"].as_str().is_some_and(|said| said.contains(text)).then_some(())
        });
    };
    says(&id, "was asked which devices it can train on");
    fs::write(script.file("go"), "").unwrap();
    server.wait_for_state(&id, "running");
    says(&id, "another trainer still works there");
    let other = server.start_search(&spec(json!({ "name": "other" })));
    says(&other, "its turn");
    assert_eq!(cancel(&server, &other).status, 200);
    assert!(server.search(&other).get("waiting").is_none());
}

/// Each question to a trainer is a process: few are asked at a time, and the others do not wait for ever.
#[test]
fn specs_are_checked_two_at_a_time() {
    let script = Script::new(
        r#"case " $* " in *' --check '*) echo >>"$here/asked"; idle; exit 0;; esac
        trap 'exit 3' TERM; idle"#,
    );
    let server = Server::with_trainer(script.path());
    let ask = |number: u32| {
        let spec = spec(json!({ "name": format!("search-{number}") })).to_string();
        pba_tests::Download::open(server.address(), "POST", "/v1/searches", &[], spec.as_bytes())
    };
    let asked = || fs::read_to_string(script.file("asked")).map_or(0, |asked| asked.lines().count());
    std::thread::scope(|scope| {
        let (server, script, ask) = (&server, &script, &ask);
        let hanging = [0, 1].map(|number| scope.spawn(move || ask(number)));
        wait_for("two questions", || (asked() == 2).then_some(()));
        let refused: Vec<_> =
            (2..6).map(|number| scope.spawn(move || ask(number).unwrap().finish())).collect();
        for answer in refused {
            let answer = answer.join().unwrap();
            assert_eq!(answer.status, 429, "{}", answer.text());
            assert!(answer.header("retry-after").is_some());
        }
        assert_eq!(asked(), 2);
        assert_eq!(server.get("/livez").status, 200);
        // The two are let go.
        fs::remove_file(script.path()).unwrap();
        for answer in hanging {
            assert_eq!(answer.join().unwrap().unwrap().finish().status, 202);
        }
    });
}

/// The name of a search that is still being written to disk, for which its schedule is reserved.
fn a_name_is_taken_from_the_beginning(server: &Server) {
    let mut document = server.get("/v1/schedules/svhn-pba").json();
    document["name"] = "early".into();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| server.start_search(&spec(json!({ "name": "early" }))));
        wait_for("the folder of the search", || {
            let folders = server.data().path().join("searches").read_dir().unwrap().flatten();
            let begun = folders.filter(|folder| folder.file_name().to_string_lossy().starts_with(".begun-"));
            (begun.count() > 0).then_some(())
        });
        let answer = server.send("PUT", "/v1/schedules/early", document.to_string().as_bytes());
        assert_eq!(answer.status, 409, "{}", answer.text());
        assert!(answer.problem().detail.contains("reserved"), "{}", answer.text());
        assert_eq!(starting.join().unwrap(), "early");
    });
}

/// Each sync takes seconds: a request for a change waits for it, and no other does.
#[test]
fn a_slow_disk_is_waited_for_by_nobody_else() {
    if !is_possible() {
        return;
    }
    let script = Script::idles();
    let data = data_folder();
    let server = Server::command(data.path(), &["--trainer", script.path()]);
    let mut slow = Command::new("strace");
    slow.args(["-D", "-f", "--seccomp-bpf", "-qqq", "-o", "/dev/null", "-e", "trace=fsync"]);
    slow.args(["-e", "inject=fsync:delay_enter=1000000"]);
    slow.arg(server.get_program()).args(server.get_args()).current_dir(data.path());
    for (key, value) in server.get_envs() {
        match value {
            Some(value) => slow.env(key, value),
            None => slow.env_remove(key),
        };
    }
    let server = Server::run(slow, data);
    a_name_is_taken_from_the_beginning(&server);
    let is_answered = AtomicBool::new(false);
    let mut others = 0;
    std::thread::scope(|scope| {
        // More than there are threads that serve.
        for number in 0..6 {
            let (server, is_answered) = (&server, &is_answered);
            scope.spawn(move || {
                server.start_search(&spec(json!({ "name": format!("search-{number}") })));
                is_answered.store(true, Ordering::Relaxed);
            });
        }
        while !is_answered.load(Ordering::Relaxed) {
            for target in ["/livez", "/v1/searches", "/v1/schedules/cifar10-pba", "/metrics"] {
                assert_eq!(server.get(target).status, 200);
            }
            others += 1;
        }
    });
    assert!(others > 10, "only {others} rounds of others' requests before the first sync had ended");
}
