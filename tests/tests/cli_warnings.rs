//! What a job is asked that cannot do what it is for is said before it trains.

use pba_tests::Server;
use pba_tests::search::{Script, spec};
use serde_json::{Value, json};

#[test]
fn what_cannot_work_is_said_when_it_is_asked() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let says = "perturbation_interval is 30, and epochs is 24";
    let start = ["search", "start", "--model", "tiny", "--epochs", "24", "--perturbation-interval", "30"];
    let started = server.pba(&[&start[..], &["--name", "one"]].concat());
    assert!(started.stderr.starts_with(&format!("warning: {says}")), "{started:?}");
    assert!(started.ok().contains("search one is queued"));
    // It is told again, and in the answer, until the job is gone.
    let shown = server.pba(&["search", "show", "one"]);
    assert!(shown.stderr.contains(says), "{shown:?}");
    let warnings = server.search("one")["warnings"].clone();
    assert!(warnings[0].as_str().unwrap().starts_with(says), "{warnings}");
    let json = server.pba(&[&start[..], &["--name", "two", "--json"]].concat());
    assert_eq!(json.stderr, "");
    assert_eq!(json.json()["warnings"], warnings);
    let quiet = server.pba(&[&start[..], &["--name", "three", "--quiet"]].concat());
    assert_eq!((quiet.stderr.as_str(), quiet.stdout.as_str()), ("", "three\n"));

    let fine = server.pba(&["search", "start", "--model", "tiny", "--epochs", "24", "--name", "fine"]);
    assert_eq!(fine.stderr, "");
    assert_eq!(server.search("fine").get("warnings"), None);

    for (command, says) in [
        (&["compare", "--dataset", "shapes", "--model", "tiny", "--seeds", "1"][..], "seeds is 1"),
        (&["evaluate", "--model", "tiny", "--epochs", "3", "--schedule", "cifar10-pba"], "has 17 policies"),
        (
            &["evaluate", "--model", "tiny", "--schedule", "trivial-augment-wide", "--ablation", "final"],
            "changes nothing",
        ),
    ] {
        let started = server.pba(command);
        assert!(started.stderr.contains("warning: ") && started.stderr.contains(says), "{started:?}");
        started.ok();
    }
}

/// A search of the tests does what searches are for.
#[test]
fn the_searches_of_the_tests_are_not_warned_of() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let id = server.start_search(&spec(json!({})));
    assert_eq!(server.search(&id).get("warnings"), None::<&Value>);
}
