//! How commands fail, for people and for programs.

use pba_tests::search::Script;
use pba_tests::server::Process;
use pba_tests::{Pba, Server, pba};
use serde_json::{Value, json};

/// An address where no server listens: port 1 needs privileges and has no service.
const NOBODY: &str = "http://127.0.0.1:1";

/// The error that a command printed as JSON: one object on one line of standard error, and nothing else.
#[track_caller]
fn error_of(failed: &Pba, code: i32) -> Value {
    assert_eq!((failed.code, failed.stdout.as_str()), (Some(code), ""), "{failed:?}");
    assert_eq!(failed.stderr.lines().count(), 1, "{failed:?}");
    let document: Value = serde_json::from_str(&failed.stderr).unwrap_or_else(|_| panic!("{failed:?}"));
    let error = document["error"].clone();
    let keys: Vec<&String> = error.as_object().expect("it is an object").keys().collect();
    assert_eq!(keys, ["message", "kind", "status", "parameter", "value", "allowed", "causes", "hint"]);
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    error
}

#[test]
fn what_the_server_refuses_is_told_with_its_problem() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let error = error_of(&server.pba(&["search", "show", "nothing", "--json"]), 1);
    assert_eq!((&error["kind"], &error["status"]), (&json!("urn:pba:problem:not-found"), &json!(404)));
    assert_eq!((&error["parameter"], &error["value"]), (&json!("search"), &json!("nothing")));

    let error = error_of(&server.pba(&["search", "start", "--json", "--population", "1"]), 1);
    assert_eq!((&error["kind"], &error["status"]), (&json!("urn:pba:problem:wrong-parameter"), &json!(400)));
    assert_eq!((&error["parameter"], &error["value"]), (&json!("population"), &json!("1")));
    assert_eq!(error["allowed"], "an integer in 2..=256");

    for command in [
        &["stream", "--dataset", "shape", "--json"][..],
        &["dataset", "show", "shape", "--json"],
        &["schedule", "show", "mine", "--json"],
        &["schedule", "delete", "cifar10-pba", "--json"],
        &["evaluate", "cancel", "nothing", "--json"],
        &["compare", "delete", "nothing", "--json"],
    ] {
        let error = error_of(&server.pba(command), 1);
        assert!(error["kind"].as_str().unwrap().starts_with("urn:pba:problem:"), "{command:?}: {error}");
        assert!(error["status"].as_u64().is_some_and(|status| status >= 400), "{command:?}: {error}");
    }
    // A job that fails is no refusal.
    let fails = Script::trains(r#"echo '{"event":"failed","error":"no space left on the disk"}'; exit 1"#);
    let server = Server::with_trainer(fails.path());
    let watched = server.pba(&["search", "start", "--model", "tiny", "--watch", "--json"]);
    assert_eq!(watched.code, Some(1), "{watched:?}");
    let error: Value = serde_json::from_str(&watched.stderr).unwrap();
    assert_eq!(error["error"]["message"], "the search failed: no space left on the disk");
    assert_eq!(error["error"]["kind"], "job-failed");
}

#[test]
fn what_keeps_a_command_from_asking_is_told_too() {
    let error = error_of(&pba(&["search", "list", "--json", "--server", NOBODY]), 1);
    assert_eq!((&error["kind"], &error["status"]), (&json!("unreachable"), &Value::Null));
    assert!(error["message"].as_str().unwrap().contains("pba serve"), "{error}");
    assert_eq!(error_of(&pba(&["stream", NOBODY, "--json"]), 1)["kind"], "unreachable");
    assert_eq!(error_of(&pba(&["dataset", "list", "--json", "--server", "ftp://x"]), 1)["kind"], "usage");
    let error = error_of(&pba(&["stream", "--batch-size", "0", "--json"]), 1);
    assert_eq!((&error["kind"], &error["parameter"]), (&json!("usage"), &json!("batch_size")));
    let error = error_of(&pba(&["search", "start", "--spec", "/nowhere.json", "--json"]), 1);
    assert_eq!((&error["message"], &error["kind"]), (&json!("cannot read /nowhere.json"), &Value::Null));
    assert_eq!(error["causes"], json!(["No such file or directory (os error 2)"]));
    // Which is not the same as a difference.
    let error = error_of(&pba(&["schedule", "diff", "./a.json", "./b.json", "--json"]), 2);
    assert_eq!(error["message"], "cannot read ./a.json");
}

#[test]
fn a_wrong_command_line_is_told_as_json_if_that_was_asked_for() {
    let error = error_of(&pba(&["search", "lits", "--json"]), 2);
    assert_eq!((&error["kind"], &error["parameter"]), (&json!("usage"), &json!("lits")));
    assert_eq!(error["hint"], "did you mean list?");
    let error = error_of(&pba(&["stream", "--json", "--batchsize", "5"]), 2);
    assert_eq!(
        (&error["parameter"], &error["hint"]),
        (&json!("--batchsize"), &json!("did you mean --batch-size?"))
    );
    assert_eq!(error["message"], "unexpected argument '--batchsize' found");
    let error = error_of(&pba(&["schedule", "export", "x", "--as", "yaml", "--json"]), 2);
    assert_eq!(
        (&error["value"], &error["allowed"]),
        (&json!("yaml"), &json!("json, ray-tune, csv, torchvision"))
    );
    let error = error_of(&pba(&["token", "new", "--name", "a", "--role", "root", "--json"]), 2);
    assert_eq!(
        (&error["parameter"], &error["value"], &error["allowed"]),
        (&json!("--role"), &json!("root"), &json!("reader, researcher, admin"))
    );
    let error = error_of(&pba(&["token", "new", "--json"]), 2);
    assert_eq!(error["parameter"], "--role, --name");
    assert!(!error["message"].as_str().unwrap().contains('\n'), "{error}");
    let error = error_of(&pba(&["schedule", "--json"]), 2);
    assert!(error["message"].as_str().unwrap().contains("subcommand"), "{error}");
    error_of(&pba(&["search", "show", "--json"]), 2);
    // What belongs to help is printed as it is, and what comes after -- is no flag.
    assert!(pba(&["search", "--help", "--json"]).ok().contains("Usage"));
    pba(&["stream", "--nothing", "--", "--json"]).refused(2, &["error: unexpected argument '--nothing'"]);
}

#[test]
fn ctrl_c_is_told_as_json_too() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let id = server.pba(&["search", "start", "--name", "x", "--quiet"]).ok();
    assert_eq!(id, "x\n");
    let folder = tempfile::tempdir().unwrap();
    let url = server.url();
    let mut watch = Process::start(folder.path(), &["search", "watch", "x", "--json", "--server", &url]);
    assert!(watch.line().is_some());
    watch.signal("INT");
    assert_eq!(watch.wait().code(), Some(130), "{}", watch.stderr());
    let document: Value = serde_json::from_str(&watch.stderr()).unwrap();
    let error = &document["error"];
    assert_eq!(error["kind"], "interrupted");
    for says in ["search x continues", "pba search watch x --server", "pba search cancel x --server"] {
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
    }
}

/// Without colours, as in a pipe; with them, where they are asked for.
#[test]
fn errors_are_coloured_only_where_that_is_asked_for() {
    let red = "\u{1b}[1m\u{1b}[31merror:\u{1b}[0m ";
    for (flags, variables, is_colored) in [
        (&[][..], &[][..], false),
        (&["--color", "always"], &[], true),
        (&["--color=never"], &[("CLICOLOR_FORCE", "1")], false),
        (&["--color=always"], &[("NO_COLOR", "1")], true),
    ] {
        for command in [&["dataset", "list", "--server", NOBODY][..], &["dataset", "lits"]] {
            let folder = tempfile::tempdir().unwrap();
            let mut command = pba_tests::binary::command(folder.path(), &[flags, command].concat());
            let failed = Pba::from(command.envs(variables.iter().copied()).output().unwrap());
            assert_eq!(failed.stderr.contains('\u{1b}'), is_colored, "{flags:?}: {failed:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let arguments = [flags, &["dataset", "list", "--server", NOBODY]].concat();
        let mut command = pba_tests::binary::command(folder.path(), &arguments);
        let failed = Pba::from(command.envs(variables.iter().copied()).output().unwrap());
        assert_eq!(failed.stderr.starts_with(red), is_colored, "{flags:?}: {failed:?}");
    }
    pba(&["--color", "sometimes", "dataset", "list"]).refused(2, &["sometimes", "auto, always, never"]);
}
