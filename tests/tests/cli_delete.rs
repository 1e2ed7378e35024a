//! `delete`, which is the word for all that can be deleted.

use pba_tests::search::{Script, spec, trainer};
use pba_tests::terminal::Terminal;
use pba_tests::{Server, pba};
use serde_json::json;

#[test]
fn all_kinds_of_job_and_schedules_are_deleted_by_one_word() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let url = server.url();
    for (kind, start) in
        [("search", &["search", "start"][..]), ("evaluate", &["evaluate"]), ("compare", &["compare"])]
    {
        for (name, word) in [("one", "delete"), ("two", "remove")] {
            server.pba(&[start, &["--name", name, "--model", "tiny"]].concat()).ok();
            server.pba(&[kind, word, name]).refused(1, &["409", "cancel it before you delete it"]);
            server.pba(&[kind, "cancel", name]).ok();
            // A script need not know what is asked and what is not.
            let flags = if word == "delete" { &["--yes"][..] } else { &[] };
            let deleted = server.pba(&[&[kind, word, name], flags].concat()).ok();
            assert!(deleted.starts_with("deleted ") && deleted.ends_with(&format!(" {name}\n")), "{deleted}");
            server.pba(&[kind, "show", name]).refused(1, &["404"]);
        }
        let help = pba(&[kind, "--help"]).ok();
        assert!(help.contains("delete") && !help.contains("remove"), "{help}");
    }
    let log = pba_tests::repository("schedules/library/source/rcifar10_16_wrn.txt").display().to_string();
    for word in ["delete", "remove"] {
        server.pba(&["schedule", "import", &log, "--name", "mine", "--epochs", "200", "--server", &url]).ok();
        // No job hands it out: nothing is asked.
        assert_eq!(server.pba(&["schedule", word, "mine"]).ok(), "deleted mine\n");
    }
    server.pba(&["schedule", "import", &log, "--name", "mine", "--epochs", "200"]).ok();
    assert_eq!(server.pba(&["schedule", "delete", "mine", "--json"]).json(), json!({ "deleted": "mine" }));
}

#[test]
fn a_schedule_that_a_search_hands_out_is_deleted_on_purpose_only() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let id = server.start_search(&spec(json!({ "name": "mine", "epochs": 4 })));
    server.wait_for_state(&id, "done");
    let says = [
        "search \"mine\" hands schedule \"mine\" out as the result",
        "streams and new jobs that name it are refused",
        "`pba search schedule mine` still prints",
        "nothing was deleted: pass --yes",
    ];
    server.pba(&["schedule", "delete", "mine"]).refused(1, &says);
    // In a terminal it is asked.
    let folder = tempfile::tempdir().unwrap();
    let url = server.url();
    let answer = |text: &str| {
        let terminal = Terminal { columns: 100, rows: 24 };
        terminal.pba(folder.path(), &[("PBA_SERVER", &url)], &["schedule", "delete", "mine"], text)
    };
    for no in ["n\n", "\n", "perhaps\n"] {
        let shown = answer(no);
        assert_eq!(shown.code, Some(1), "{shown:?}");
        let text = shown.lines().join("\n");
        assert!(text.contains(says[0]) && text.contains("delete schedule \"mine\"? [y/N]"), "{text}");
        assert!(text.contains("error: nothing was deleted"), "{text}");
    }
    server.pba(&["schedule", "show", "mine"]).ok();
    let shown = answer("y\n");
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.lines().last().unwrap().ends_with("deleted mine"), "{shown:?}");
    server.pba(&["schedule", "show", "mine"]).refused(1, &["404"]);
    // As was said: the search has it all the same.
    assert_eq!(server.pba(&["search", "schedule", "mine"]).json()["name"], "mine");
    server.pba(&["schedule", "delete", "mine", "--yes"]).refused(1, &["404"]);

    let id = server.start_search(&spec(json!({ "name": "other", "epochs": 4 })));
    server.wait_for_state(&id, "done");
    assert_eq!(server.pba(&["schedule", "delete", "other", "--yes"]).ok(), "deleted other\n");
}
