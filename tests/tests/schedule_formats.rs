//! Schedules from and for other programs, by the command line: logs of Ray Tune in, Tune's replay, tables and torchvision
//! out, and what differs between two schedules.

use std::path::Path;

use pba_schedules::{Policy, Schedule, formats, library};
use pba_tests::{Server, pba};
use serde_json::{Value, json};

/// 60 levels that can be told apart by their first.
fn levels(first: u8) -> Vec<u8> {
    let mut levels = vec![0; 60];
    levels[0] = first;
    levels
}

/// A line as Ray Tune writes it, with a configuration that holds more than the policy.
fn line(target: &str, clone: &str, epoch: u32, before: u8, after: u8) -> String {
    let config = |first| json!({ "lr": 0.1, "note": "it's mine", "policy": levels(first) });
    format!("{}\n", json!([target, clone, epoch, epoch, config(before), config(after)]))
}

/// A folder as Ray Tune leaves it: of four trials, three copied another.
fn experiment(folder: &Path) -> String {
    let lines = [
        line("0", "3", 3, 0, 1),
        line("1", "2", 3, 0, 2),
        line("2", "1", 6, 2, 3),
        line("0", "1", 6, 2, 4),
        line("1", "0", 9, 4, 5),
    ];
    std::fs::write(folder.join("pbt_global.txt"), lines.concat()).unwrap();
    // As Ray keeps them: a copy of the other's, if it has one, then the line.
    let own = [lines[1].clone(), lines[3].clone(), lines[4].clone()].concat();
    std::fs::write(folder.join("pbt_policy_a1b2c_00001.txt"), own).unwrap();
    folder.display().to_string()
}

fn outline(schedule: &Value) -> Vec<(u64, u64)> {
    let segments = schedule["segments"].as_array().unwrap().iter();
    segments
        .map(|segment| (segment["epochs"].as_u64().unwrap(), segment["policy"][0][0].as_u64().unwrap()))
        .collect()
}

#[test]
fn the_log_of_a_population_is_imported_by_trial() {
    let server = Server::start(&[]);
    let temporary = tempfile::tempdir().unwrap();
    let folder = experiment(temporary.path());
    let said = |file: &str, more: &[&str]| {
        let arguments = ["schedule", "import", file, "--name", "said", "--epochs", "12"];
        server.pba(&[&arguments[..], more].concat())
    };
    let (global, own) = (format!("{folder}/pbt_global.txt"), format!("{folder}/pbt_policy_a1b2c_00001.txt"));
    let import = |file: &str, name: &str, more: &[&str]| {
        let arguments = ["schedule", "import", file, "--name", name, "--epochs", "12"];
        server.pba(&[&arguments[..], more].concat())
    };
    import(&folder, "of-folder", &["--trial", "a1b2c_00001"]).ok();
    import(&global, "of-file", &["--trial", "1"]).ok();
    import(&own, "of-trial", &[]).ok();
    for name in ["of-folder", "of-file", "of-trial"] {
        let schedule = server.pba(&["schedule", "export", name]).json();
        assert_eq!(outline(&schedule), [(3, 0), (3, 2), (3, 4), (3, 5)], "{name}");
    }
    assert!(said(&folder, &["--trial", "a1b2c_00001"]).ok().ends_with("; the lineage of trial 1\n"));
    assert_eq!(said(&own, &["--json"]).json()["trial"], "1");
    // It copied none, but was copied.
    import(&folder, "still", &["--trial", "3"]).ok();
    assert_eq!(outline(&server.pba(&["schedule", "export", "still"]).json()), [(12, 0)]);

    import(&folder, "x", &[]).refused(1, &["pbt_global.txt is the log of a whole population", "--trial"]);
    import(&folder, "x", &["--trial", "7"])
        .refused(1, &["there is no trial \"7\"", "its trials are 0, 3, 1, 2"]);
    let renamed = format!("{folder}/log.txt");
    std::fs::copy(&global, &renamed).unwrap();
    import(&renamed, "x", &[])
        .refused(1, &["--trial is missing, or lines of the log are", "its trials are 0, 3, 1, 2"]);
    std::fs::write(&renamed, line("1", "0", 3, 0, 1) + "[\"0\", \"1\", 6, 6, {\"lr\": 1}, {\"lr\": 1}]")
        .unwrap();
    import(&renamed, "x", &["--trial", "1"])
        .refused(1, &["line 2: a configuration has no policy under hp_policy or policy but only \"lr\""]);
    let empty = tempfile::tempdir().unwrap();
    import(&empty.path().display().to_string(), "x", &["--trial", "1"])
        .refused(1, &["cannot read", "pbt_global.txt"]);
    let file = format!("{folder}/svhn.json");
    server.pba(&["schedule", "export", "svhn-pba", "--out", &file]).ok();
    let arguments = ["schedule", "import", &file, "--name", "x", "--trial", "1"];
    server.pba(&arguments).refused(1, &["is one schedule; --trial is for the log of a population"]);
    server.pba(&["schedule", "show", "x"]).refused(1, &["there is no schedule"]);
}

/// Tune appends a second run's exploits to the first one's, and the tags of the trials may be the same.
#[test]
fn in_a_folder_of_two_runs_a_trial_is_of_the_run_in_its_id() {
    let server = Server::start(&[]);
    let temporary = tempfile::tempdir().unwrap();
    let folder = experiment(temporary.path());
    let import = |name: &str, trial: &str| {
        let arguments = ["schedule", "import", &folder, "--name", name, "--epochs", "12", "--trial", trial];
        server.pba(&arguments)
    };
    let state = |run: &str| {
        let trial = json!({ "stub": false, "trial_id": format!("{run}_00000") }).to_string();
        let state = json!({ "trial_data": [[trial, "{}"]], "runner_data": {} }).to_string();
        std::fs::write(format!("{folder}/experiment_state-{run}.json"), state).unwrap();
    };
    state("a1b2c");
    import("x", "d4e5f_00001").refused(1, &["\"d4e5f_00001\" is of no run in", "begin with a1b2c_"]);
    // A run without an exploit.
    state("d4e5f");
    import("x", "d4e5f_00001").refused(1, &["no trial of the run d4e5f copied another"]);
    for trial in ["1", "0"] {
        import("x", trial).refused(1, &["holds several runs, a1b2c, d4e5f", "as in a1b2c_00003"]);
    }
    import("still", "a1b2c_00003").ok();
    // Now with one, of trials with the same tags.
    let line = line("1", "3", 3, 0, 7);
    std::fs::write(format!("{folder}/pbt_policy_d4e5f_00001.txt"), &line).unwrap();
    let global = format!("{folder}/pbt_global.txt");
    std::fs::write(&global, std::fs::read_to_string(&global).unwrap() + &line).unwrap();
    for (trial, expected) in
        [("a1b2c_00001", &[(3, 0), (3, 2), (3, 4), (3, 5)][..]), ("d4e5f_00001", &[(3, 0), (9, 7)])]
    {
        import(trial, trial).ok();
        assert_eq!(outline(&server.pba(&["schedule", "export", trial]).json()), expected, "{trial}");
    }
    import("x", "d4e5f_00002").refused(1, &["there is no log of the trial \"d4e5f_00002\" alone"]);
    import("x", "99999_00001").refused(1, &["is of no run in", "begin with a1b2c_ or d4e5f_"]);
}

#[test]
fn the_log_of_a_population_is_put_by_trial() {
    let server = Server::start(&[]);
    let temporary = tempfile::tempdir().unwrap();
    experiment(temporary.path());
    let log = std::fs::read(temporary.path().join("pbt_global.txt")).unwrap();
    let put = |query: &str, body: &[u8]| server.send("PUT", &format!("/v1/schedules/mine?{query}"), body);
    for (query, parameter, says) in [
        ("epochs=12", None, "its trials are 0, 3, 1, 2"),
        ("epochs=12&trial=7", Some("trial"), "there is no trial \"7\" in the log"),
        ("trial=1", None, "the search's epochs"),
    ] {
        let problem = put(query, &log).problem();
        assert_eq!((problem.status, problem.parameter.as_deref()), (400, parameter), "{query}");
        assert!(problem.detail.contains(says), "{}", problem.detail);
    }
    // Of three trials, each line with a trial of the line before: the last one is no log of a trial.
    let few =
        [line("0", "1", 1, 0, 1), line("2", "0", 2, 1, 2), line("0", "2", 3, 2, 3), line("0", "2", 4, 2, 4)];
    let problem = put("epochs=12", few.concat().as_bytes()).problem();
    assert!(problem.detail.contains("line 4 does not follow from the line before it"), "{}", problem.detail);
    let document = server.get("/v1/schedules/svhn-pba").body;
    assert_eq!(put("trial=1", &document).problem().parameter.as_deref(), Some("trial"));
    assert_eq!(put("epochs=12&trial=1", &log).status, 201);
    assert_eq!(outline(&server.get("/v1/schedules/mine").json()), [(3, 0), (3, 2), (3, 4), (3, 5)]);
}

/// What Ray's own replay makes of it, `client/python/tests/test_tune.py` tries.
#[test]
fn a_schedule_is_exported_in_the_terms_of_others() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("replay.txt").display().to_string();
    for (name, epochs) in [("cifar10-pba", "200"), ("svhn-pba", "160")] {
        server.pba(&["schedule", "export", name, "--as", "ray-tune", "--out", &file]).ok();
        let again = format!("again-{name}");
        server.pba(&["schedule", "import", &file, "--name", &again, "--epochs", epochs]).ok();
        let same = server.pba(&["schedule", "diff", name, &again]).ok();
        assert!(same.contains(&format!("{name} and {again} are the same: digest")), "{same}");
    }
    let table = server.pba(&["schedule", "export", "cifar10-pba", "--as", "csv"]).ok();
    assert!(
        table.starts_with("first_epoch,last_epoch,slot,op,probability,magnitude\n0,11,0,Rotate,0.0,0\n"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 1 + 17 * 30);
    let export = |name: &str, form: &str| server.pba(&["schedule", "export", name, "--as", form]);
    let transform = export("randaugment:2:9", "torchvision").ok();
    assert_eq!(transform, "torchvision.transforms.RandAugment(num_ops=2, magnitude=9)\n");
    assert_eq!(export("svhn-pba", "json").ok(), server.pba(&["schedule", "export", "svhn-pba"]).ok());
    export("svhn-pba", "torchvision").refused(1, &["\"svhn-pba\"", "it changes by epoch"]);
    export("randaugment:2:9", "ray-tune").refused(1, &["family \"rand-augment\" is not 60 integers"]);
    export("randaugment:2:9", "csv").refused(1, &["family \"rand-augment\" has no slots"]);
    export("svhn-pba", "timm").refused(2, &["invalid value 'timm'", "json, ray-tune, csv, torchvision"]);
}

#[test]
fn what_differs_between_two_schedules_is_told() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let mut segments = library::svhn_pba().segments().to_vec();
    let mut changed = segments[3].policy.hyperparameters();
    (changed[0], changed[33]) = (10 - changed[0], 9 - changed[33]);
    let ops: Vec<_> = segments[3].policy.as_pairs().unwrap().ops().collect();
    segments[3].policy = Policy::from_hyperparameters(&ops, &changed).unwrap();
    let edited = Schedule::new("edited", segments, Default::default()).unwrap();
    let file = folder.path().join("edited.json").display().to_string();
    std::fs::write(&file, formats::json::write(&edited)).unwrap();

    let diff = |a: &str, b: &str, more: &[&str]| server.pba(&[&["schedule", "diff", a, b], more].concat());
    let found = diff("svhn-pba", &file, &[]);
    assert_eq!((found.code, found.stderr.as_str()), (Some(1), ""));
    let rows: Vec<&str> = found.stdout.lines().skip(5).collect();
    assert_eq!(rows.len(), 2, "{}", found.stdout);
    assert!(
        rows[0].starts_with("30..=37  Rotate (1)") && rows[1].trim_start().starts_with("TranslateX (2)"),
        "{rows:?}"
    );

    let found = diff("svhn-pba", &file, &["--json"]);
    assert_eq!(found.code, Some(1));
    let document: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!((&document["same"], &document["compared_epochs"]), (&json!(false), &json!(160)));
    assert_eq!(
        document["b"],
        json!({ "schedule": file, "epochs": 160, "digest": edited.digest().to_string() })
    );
    let ranges = document["ranges"].as_array().unwrap();
    assert_eq!((ranges.len(), &ranges[0]["first"], &ranges[0]["last"]), (1, &json!(30), &json!(37)));
    let change = &ranges[0]["changes"][0];
    assert_eq!((&change["op"], &change["slot"]), (&json!("Rotate"), &json!(0)));
    assert_eq!(change["levels"][1]["probability"], json!(changed[0]));

    // By digest, by name and as a file it is the same schedule, whatever its name.
    let digest = edited.digest().to_string();
    server.pba(&["schedule", "import", &file, "--name", "mine"]).ok();
    for other in [file.as_str(), "mine", &digest] {
        assert_eq!(diff(&file, other, &["--json"]).json()["same"], true);
    }
    let found = diff("svhn-pba", "cifar10-pba", &[]);
    assert_eq!(found.code, Some(1));
    assert!(
        found.stdout.contains("b cifar10-pba: 200 epochs")
            && found.stdout.contains("of the first 160 epochs")
    );
    // Of two policies that never change there are no epochs to tell of.
    let found = diff("randaugment:2:9", "randaugment:2:10", &[]);
    assert!(found.stdout.contains("these differ:") && !found.stdout.contains("epochs"), "{}", found.stdout);
    assert!(found.stdout.lines().last().unwrap().starts_with("all "), "{}", found.stdout);
    // What cannot be compared is no difference.
    diff("svhn-pba", "nobody", &[]).refused(2, &["there is no schedule \"nobody\""]);
    diff("svhn-pba", "./nobody.json", &[]).refused(2, &["cannot read ./nobody.json"]);
    let log = folder.path().join("log.json").display().to_string();
    std::fs::write(&log, line("1", "0", 3, 0, 1)).unwrap();
    diff("svhn-pba", &log, &[]).refused(2, &["is not a pba-schedule document; a log is imported first"]);
    // Nor is a server that is not there, also for a file beside it.
    let nobody = ["schedule", "diff", &file, "svhn-pba", "--server", "http://127.0.0.1:1"];
    pba(&nobody).refused(2, &["cannot reach"]);
    pba(&["schedule", "diff", &file, &file, "--server", "http://127.0.0.1:1"]).ok();
}
