//! What commands print, in a terminal and elsewhere.

use pba_tests::search::{Script, spec, trainer};
use pba_tests::server::Process;
use pba_tests::terminal::Terminal;
use pba_tests::{Pba, Server, binary, wait_for};
use serde_json::json;

const WIDE: Terminal = Terminal { columns: 200, rows: 30 };

/// The columns of a time in UTC.
fn is_utc(text: &str) -> bool {
    text.len() >= 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T' && text.starts_with("20")
}

#[test]
fn lists_are_tabbed_elsewhere_and_newest_first() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let ids = ["b-first", "c-second", "a-third"];
    for id in ids {
        server.start_search(&spec(json!({ "name": id })));
        server.send("PUT", &format!("/v1/schedules/{id}-schedule?epochs=200"), &log());
        // So that each has a time of its own.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let listed = server.pba(&["search", "list"]).ok();
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split('\t').collect()).collect();
    let newest_first: Vec<&str> = ids.iter().rev().copied().collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), newest_first, "{listed}");
    for row in &rows {
        assert_eq!(row.len(), 11, "{row:?}");
        // Numbers have no units, and are a dash before they are known.
        assert!(row[3] == "-" && row[6] == "-" && row[5].parse::<f64>().is_ok(), "{row:?}");
        assert!(is_utc(row[4]), "{row:?}");
        assert_eq!(server.search(row[0])["created"], row[4]);
    }
    // The documents have the same order.
    let searches = server.pba(&["search", "list", "--json"]).json();
    let listed: Vec<&str> = searches["searches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|search| search["id"].as_str().unwrap())
        .collect();
    assert_eq!(listed, newest_first);
    let schedules = server.pba(&["schedule", "list", "--json"]).json();
    let first = [0, 1, 2].map(|at| schedules["schedules"][at]["name"].as_str().unwrap().to_owned());
    assert_eq!(first, ["a-third-schedule", "c-second-schedule", "b-first-schedule"]);
    let listed = server.pba(&["schedule", "list"]).ok();
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split('\t').collect()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names[..3], ["a-third-schedule", "c-second-schedule", "b-first-schedule"]);
    assert!(rows[..3].iter().all(|row| is_utc(row[4])), "{rows:?}");
    assert!(rows[3..].iter().all(|row| row[4] == "-"), "what is built in was not added: {rows:?}");
    for command in [&["dataset", "list"][..], &["evaluate", "list"], &["compare", "list"]] {
        let listed = server.pba(command).ok();
        assert!(!listed.contains("  ") && !listed.contains("NAME") && !listed.contains("ID"), "{listed}");
    }
    assert!(server.pba(&["dataset", "list"]).ok().starts_with("shapes\t"));
}

fn log() -> Vec<u8> {
    std::fs::read(pba_tests::repository("schedules/library/source").join("rcifar10_16_wrn.txt")).unwrap()
}

#[test]
fn lists_fit_the_terminal_and_have_a_head_there() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    let long = "a-name-of-a-search-that-is-longer-than-the-other-columns";
    server.start_search(&spec(json!({ "name": long })));
    server.wait_for_state(long, "running");
    let folder = tempfile::tempdir().unwrap();
    let url = server.url();
    let list = |terminal: Terminal, variables: &[(&str, &str)], flags: &[&str]| {
        let all = [&[("PBA_SERVER", url.as_str()), ("TZ", "Asia/Tokyo")], variables].concat();
        let shown = terminal.pba(folder.path(), &all, &[&["search", "list"], flags].concat(), "");
        assert_eq!(shown.code, Some(0), "{shown:?}");
        shown
    };
    let wide = list(WIDE, &[], &[]);
    let lines = wide.lines();
    assert!(lines[0].starts_with("ID ") && lines[0].contains("CREATED"), "{lines:?}");
    assert!(lines[1].starts_with(&format!("{long}  running  0/12")), "{lines:?}");
    // The local time, short: in Tokyo it is nine hours later.
    let created = server.search(long)["created"].as_str().unwrap().to_owned();
    let hour = (created[11..13].parse::<u32>().unwrap() + 9) % 24;
    assert!(lines[1].contains(&format!(" {hour:02}:{}  ", &created[14..16])), "{created}: {lines:?}");
    assert!(wide.raw.contains("\u{1b}[36mrunning"), "{wide:?}");
    for columns in [60, 80, 100] {
        let shown = list(Terminal { columns, rows: 20 }, &[], &[]);
        let lines = shown.lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        let widths = lines[..2].iter().map(|line| line.chars().count());
        assert!(widths.into_iter().all(|width| width <= columns.into()), "{columns}: {lines:?}");
        assert!(lines[1].contains('…') && lines[1].contains("running"), "{lines:?}");
        // What is not shown is named, and the first of it is what matters least.
        assert!(lines[2].starts_with("left out: ") && lines[2].ends_with("; --json has all"), "{lines:?}");
        for head in ["EPOCH", "BEST", "CREATED", "SECONDS", "LEFT", "DATASET", "MODEL", "PLACE", "MEMBERS"] {
            let is_shown = lines[0].split("  ").any(|cell| cell.trim() == head);
            let is_named = lines[2]["left out: ".len()..].split([',', ';']).any(|name| name.trim() == head);
            assert!(is_shown != is_named, "{columns}: {head}: {lines:?}");
        }
        assert!(lines[2].contains("MEMBERS") && lines[0].contains("BEST"), "{lines:?}");
    }
    assert_eq!(wide.lines().len(), 2, "{wide:?}");
    assert_eq!(list(Terminal { columns: 80, rows: 20 }, &[], &["--quiet"]).lines().len(), 2);
    // Names that begin alike are told apart.
    let terminal = Terminal { columns: 50, rows: 20 };
    let shown = terminal.pba(folder.path(), &[("PBA_SERVER", &url)], &["schedule", "list"], "");
    for name in ["autoaugment-cifar10", "autoaugment-svhn", "autoaugment-imagenet"] {
        assert!(shown.lines().iter().any(|line| line.starts_with(name)), "{name}: {shown:?}");
    }
    assert_eq!(shown.lines().last().unwrap(), "left out: DIGEST; --json has all", "{shown:?}");
    // Plain where that is wanted.
    for (variables, flags) in [
        (&[("NO_COLOR", "1")][..], &[][..]),
        (&[], &["--color", "never"]),
        (&[("TERM", "dumb")], &[]),
        (&[("TERM", "dumb"), ("CI", "true")], &[]),
    ] {
        let plain = list(WIDE, variables, flags);
        assert!(!plain.raw.contains('\u{1b}'), "{variables:?} {flags:?}: {plain:?}");
    }
    // And coloured in a pipe only if that is wanted.
    let mut piped = binary::command(folder.path(), &["search", "show", long, "--color", "always"]);
    let piped = Pba::from(piped.env("PBA_SERVER", &url).output().unwrap()).ok();
    assert!(piped.contains("\u{1b}[36mrunning"), "{piped}");
    assert!(!server.pba(&["search", "show", long]).ok().contains('\u{1b}'));
}

/// A trainer that tells of two generations of four members, of the second when it is watched.
const TWO_GENERATIONS: &str = r#"while [ $# -gt 0 ]; do [ "$1" = --spec ] && spec=$2; shift; done
    printf '{"event":"started","spec":%s,"dataset_digest":"x"}\n' "$(tr -d '\n' <"$spec")"
    for epoch in 2 4; do
        echo '{"event":"scored","epoch":'$epoch',"scores":[0.31,0.295,null,0.435]}'
        echo '{"event":"exploit","epoch":'$epoch',"target":1,"clone":3,"target_score":0.295,"clone_score":0.435,"clone_policy":[0,0,0,0],"policy":[1,1,0,0]}'
        echo '{"event":"checkpoint","epoch":'$epoch'}'
        while [ ! -e "$here/go" ]; do sleep 0.05; done
        sleep 1
    done
    echo '{"event":"failed","error":"that was all"}'; exit 1"#;

#[test]
fn a_watch_redraws_in_a_terminal_and_tells_lines_elsewhere() {
    let script = Script::trains(TWO_GENERATIONS);
    let server = Server::with_trainer(script.path());
    let folder = tempfile::tempdir().unwrap();
    let url = server.url();
    let id = server.start_search(&spec(json!({ "ops": ["Rotate"] })));
    let watch = ["search", "watch", &id];
    let mut piped = Process::start(folder.path(), &[&watch[..], &["--server", &url]].concat());
    let first = piped.line().unwrap();
    let shown = std::thread::scope(|scope| {
        let terminal = scope.spawn(|| WIDE.pba(folder.path(), &[("PBA_SERVER", &url)], &watch, ""));
        let watchers = r#"pba_requests_total{route="/v1/searches/{search}/events",status="200"}"#;
        wait_for("both watchers", || (server.metric(watchers) >= 2.0).then_some(()));
        std::fs::write(script.file("go"), "").unwrap();
        terminal.join().unwrap()
    });
    assert_eq!(shown.code, Some(1), "{shown:?}");
    // The table was drawn again over itself: the cursor was moved up over its five lines.
    assert!(shown.raw.contains("MEMBER") && shown.raw.contains("43.5 %"), "{shown:?}");
    assert!(shown.raw.contains("\u{1b}[5A"), "{shown:?}");
    assert!(!shown.raw.contains("epoch 2: best member"), "{shown:?}");
    assert!(shown.lines().last().unwrap().contains("error: the search failed: that was all"), "{shown:?}");

    assert_eq!(piped.wait().code(), Some(1), "{}", piped.stderr());
    let lines = [Some(first), piped.line(), piped.line()];
    for (line, epoch) in lines.iter().flatten().zip([2, 4]) {
        assert!(line.starts_with(&format!("epoch {epoch}: best member")), "{lines:?}");
    }
    assert!(lines[1].is_some() && lines[2].is_none(), "{lines:?}");
    let quiet = server.pba(&[&watch[..], &["--quiet"]].concat());
    assert_eq!((quiet.code, quiet.stdout.as_str()), (Some(1), ""), "{quiet:?}");
    assert_eq!(quiet.stderr, "error: the search failed: that was all\n");
    let quiet = WIDE.pba(folder.path(), &[("PBA_SERVER", &url)], &[&watch[..], &["-q"]].concat(), "");
    assert_eq!(quiet.lines(), ["error: the search failed: that was all"], "{quiet:?}");
}

#[test]
fn quiet_leaves_results_and_errors() {
    let Some(trainer) = trainer() else { return };
    let server = Server::with_trainer(&trainer);
    let start = [
        "search",
        "start",
        "--watch",
        "--model",
        "tiny",
        "--population",
        "4",
        "--epochs",
        "4",
        "--device",
        "cpu",
    ];
    let sizes =
        ["--train-size", "128", "--val-size", "128", "--batch-size", "64", "--perturbation-interval", "2"];
    let quiet = server.pba(&[&start[..], &sizes, &["--name", "mine", "-q"]].concat());
    assert_eq!(quiet.stderr, "");
    let lines = quiet.ok();
    let lines: Vec<&str> = lines.lines().collect();
    assert!(lines[0] == "search mine" && lines[1].starts_with("done in"), "{lines:?}");
    assert!(
        lines.iter().all(|line| !line.starts_with("epoch") && !line.starts_with("trains on")),
        "{lines:?}"
    );
    let streamed = server.pba(&["stream", "--split", "test", "--quiet"]);
    assert_eq!(streamed.stderr, "");
    assert!(streamed.ok().contains("2000 images"));
}

#[test]
fn verbose_tells_what_is_asked_and_never_the_token() {
    let server = Server::start(&[]);
    let plain = server.pba(&["dataset", "list"]);
    assert_eq!(plain.stderr, "");
    let folder = tempfile::tempdir().unwrap();
    let list = |flags: &[&str]| {
        let url = server.url();
        let arguments = [&["dataset", "list", "--server", &url], flags].concat();
        let mut command = binary::command(folder.path(), &arguments);
        Pba::from(command.env("PBA_TOKEN", "s3cret").output().unwrap())
    };
    for flags in [&["-v"][..], &["--verbose"], &["-vv"], &["-vvv"], &["-v", "--json"]] {
        let told = list(flags);
        assert!(told.stderr.contains("GET /v1/datasets to http://127.0.0.1:"), "{told:?}");
        assert!(told.stderr.contains("200") && !told.stderr.contains("s3cret"), "{told:?}");
        let is_json = flags.contains(&"--json");
        let is_object =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line.is_object());
        assert_eq!(told.stderr.lines().all(is_object), is_json, "{told:?}");
    }
    let (once, twice) = (list(&["-v"]).stderr.lines().count(), list(&["-vv"]).stderr.lines().count());
    assert!(twice > once, "{twice} lines, and {once}");
    list(&["-q", "-v"]).refused(2, &["--quiet", "cannot be used with", "--verbose"]);
    // A server says more, too, and less.
    let data = pba_tests::server::data_folder();
    let mut serve = Process::run(Server::command(data.path(), &["--quiet"]));
    assert!(serve.line().unwrap().starts_with("listening on http://"));
    serve.signal("TERM");
    assert!(serve.wait().success());
    assert_eq!(serve.stderr(), "");
}
