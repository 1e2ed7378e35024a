//! A job of each kind, killed at random again and again, ends as if nothing had happened.

use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pba_tests::Server;
use pba_tests::search::{comparison, evaluation, signal, spec, trainer, trainers_in};
use serde_json::{Value, json};

const KILLS: usize = 10;

/// What lasts of a job: its journal, and its results in the API.
fn result(server: &Server, jobs: &str, id: &str) -> (String, Value) {
    let mut answer = server.wait_for_job(jobs, id, "done");
    for of_this_run in ["created", "seconds"] {
        answer[of_this_run] = Value::Null;
    }
    (server.journal_of(jobs, id), answer)
}

#[track_caller]
fn check(jobs: &str, spec: &Value) {
    let Some(trainer) = trainer() else { return };
    let undisturbed = {
        let server = Server::with_trainer(&trainer);
        let id = server.start_job(jobs, spec);
        result(&server, jobs, &id)
    };
    let mut state = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    eprintln!("seed {state}");
    let mut random = |below: u64| {
        // Xorshift (Marsaglia 2003): the moments need only differ from run to run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut server = Server::with_trainer(&trainer);
    let id = server.start_job(jobs, spec);
    let (mut kills, mut lines) = (0, 0);
    while kills < KILLS {
        // It has to get somewhere before it dies again: after four deaths without progress it is given up.
        lines = server.journal_of(jobs, &id).lines().count().max(lines) + 1;
        server.wait_for_lines_of(jobs, &id, lines);
        sleep(Duration::from_millis(random(250)));
        assert_ne!(
            server.job(jobs, &id)["state"],
            "done",
            "it ended after {kills} kills: give it more to do"
        );
        if random(4) == 0 {
            // The server dies, and its trainer with it.
            server = server.killed_and_restarted(&trainer);
            kills += 1;
        } else if let Some(&process) = trainers_in(&server.job_folder(jobs, &id)).first() {
            signal(process, "KILL");
            kills += 1;
        }
    }
    assert_eq!(result(&server, jobs, &id), undisturbed);
}

#[test]
fn a_search() {
    check("searches", &spec(json!({ "epochs": 60 })));
}

#[test]
fn an_evaluation() {
    check("evaluations", &evaluation(json!({ "epochs": 60 })));
}

#[test]
fn a_comparison() {
    let arms = json!(["none", "randaugment:tuned"]);
    let spec = json!({ "arms": arms, "seeds": 6, "tuning_seeds": 1, "val_size": 64, "at_once": 1 });
    check("comparisons", &comparison(spec));
}
