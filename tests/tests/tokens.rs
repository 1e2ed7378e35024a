//! Tokens: how they are made, used, bounded and revoked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pba_client::{Client, ClientError, ClientOptions, EpochRequest, Query};
use pba_tests::guarded::{Guarded, LONG, SHORT, bearer, token, unknown};
use pba_tests::server::{Process, data_folder};
use pba_tests::{Download, Epoch, PATIENCE, Pba, Server, binary, pba, wait_for};
use pba_wire::Role;
use serde_json::json;

#[test]
fn new_tokens_are_printed_once_with_a_table_of_their_hash() {
    let printed = pba(&["token", "new", "--role", "admin", "--name", "ops"]).ok();
    let (secret, table) = printed.split_once('\n').unwrap();
    assert_eq!((secret.len(), &secret[..4]), (68, "pba_"));
    assert!(!table.contains(secret), "{table}");
    // As it is pasted.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pba.toml"), table).unwrap();
    let check = |flags: &[&str]| {
        binary::command(folder.path(), &[&["serve", "--check"], flags].concat()).output().unwrap()
    };
    let checked = Pba::from(check(&["--listen", "0.0.0.0:8080"])).json();
    assert_eq!(checked["tokens"], json!([{"name": "ops", "role": "admin"}]));
    let hash = table.split("sha256 = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(!checked.to_string().contains(hash));
    let server = Process::run(Server::command(folder.path(), &[]));
    let url = server.line().unwrap().replace("listening on ", "");
    let refused = pba(&["dataset", "list", "--server", &url]);
    refused.refused(1, &["401"]);
    pba(&["dataset", "list", "--server", &url, "--token", secret]).ok();
    drop(server);

    pba(&["token", "new", "--role", "boss", "--name", "a"])
        .refused(2, &["'boss'", "reader, researcher, admin"]);
    pba(&["token", "new", "--role", "reader", "--name", "a b"]).refused(1, &["\"a b\" is not a name"]);
    pba(&["token", "new", "--role", "reader"]).refused(2, &["--name"]);
    pba(&["serve", "--check", "--listen", "0.0.0.0:8080"])
        .refused(1, &["0.0.0.0:8080", "pba token new", "--insecure"]);
    // A token in the place of its hash, and anything else that is wrong, is refused without being shown.
    for wrong in [
        table.replace(hash, secret),
        table.replace(&format!("{hash}\""), secret),
        format!("token = \"{secret}\""),
    ] {
        std::fs::write(folder.path().join("pba.toml"), &wrong).unwrap();
        let refused = Pba::from(check(&[]));
        assert!(refused.code == Some(1) && !refused.stderr.contains(&secret[4..]), "{}", refused.stderr);
    }
}

async fn read(guarded: &Guarded, token: Option<&str>) -> Result<usize, ClientError> {
    let options = ClientOptions { token: token.map(str::to_owned), ..ClientOptions::default() };
    let client = Client::with_options([guarded.server.url()], &options)?;
    let request = EpochRequest::from_query("split=test&shard=0/50").unwrap();
    let mut stream = client.epoch("shapes", 0, request).await?;
    let mut rows = 0;
    while let Some(batch) = stream.next().await? {
        rows += batch.num_rows();
    }
    Ok(rows)
}

#[tokio::test]
async fn the_rust_client_sends_its_token() {
    let guarded = Guarded::start(&[]);
    assert_eq!(read(&guarded, Some(&guarded.tokens[&Role::Reader])).await.unwrap(), 40);
    for wrong in [None, Some("pba_wrong")] {
        let begun = Instant::now();
        let refused = read(&guarded, wrong).await.unwrap_err();
        assert!(matches!(&refused, ClientError::Refused(problem) if problem.status == 401), "{refused}");
        assert!(!refused.to_string().contains("pba_wrong") && begun.elapsed() < PATIENCE, "{refused}");
    }
}

#[test]
fn every_command_works_with_a_token() {
    let script = pba_tests::search::Script::idles();
    let guarded = Guarded::start(&["--trainer", script.path()]);
    let reader = guarded.tokens[&Role::Reader].as_str();
    let researcher = guarded.tokens[&Role::Researcher].as_str();
    let start =
        ["search", "start", "--name", "mine", "--model", "tiny", "--population", "4", "--epochs", "4"];
    for arguments in [
        &["dataset", "list"][..],
        &["dataset", "show", "shapes"],
        &["dataset", "preview", "shapes"],
        &["schedule", "list"],
        &["schedule", "show", "cifar10-pba"],
        &["schedule", "plot", "cifar10-pba"],
        &["search", "list"],
        &["evaluate", "list"],
        &["compare", "list"],
        &["stream", "--split", "test"],
    ] {
        guarded.pba(Some(reader), arguments).ok();
        guarded.pba(None, arguments).refused(1, &["401", "--token"]);
        guarded.pba(Some("pba_wrong"), arguments).refused(1, &["401", "none of this server's"]);
    }
    guarded.pba(Some(reader), &start).refused(1, &["403", "needs the role researcher"]);
    guarded.pba(Some(researcher), &start).ok();
    guarded.pba(Some(researcher), &["search", "show", "mine"]).ok();
    guarded.pba(Some(researcher), &["search", "cancel", "mine"]).ok();
    // Server-sent events, to their end.
    let events = guarded.ask_as(Role::Reader, "GET", "/v1/searches/mine/events", b"");
    assert!(events.status == 200 && events.text().contains("event: state"), "{}", events.text());
    let folder = tempfile::tempdir().unwrap();
    let exported = folder.path().join("s.json");
    let exported = exported.to_str().unwrap();
    guarded.pba(Some(reader), &["schedule", "export", "cifar10-pba", "--out", exported]).ok();
    guarded.pba(Some(reader), &["schedule", "import", exported, "--name", "other"]).refused(1, &["403"]);
    guarded.pba(Some(researcher), &["schedule", "import", exported, "--name", "other"]).ok();
    guarded.pba(Some(researcher), &["schedule", "remove", "other"]).ok();
}

#[test]
fn the_demo_needs_one_of_the_tokens() {
    let data = data_folder();
    let file = data.path().join("tokens.toml");
    let (secret, table) = token(Role::Reader, "demo");
    std::fs::write(&file, table).unwrap();
    let folder = data.path().to_str().unwrap();
    let arguments = [
        "demo",
        "--once",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        folder,
        "--tokens-file",
        file.to_str().unwrap(),
    ];
    let run = |token: Option<&str>| -> Pba {
        let mut command = binary::command(data.path(), &arguments);
        command.envs(token.map(|token| ("PBA_TOKEN", token)));
        command.output().unwrap().into()
    };
    run(None).refused(1, &["tokens are configured", "PBA_TOKEN"]);
    assert!(run(Some(&secret)).ok().contains("contact sheet"));
}

#[test]
fn a_token_may_have_as_many_streams_as_it_says() {
    let data = data_folder();
    let file = data.path().join("tokens.toml");
    let ((limited, one), (free, other)) = (token(Role::Reader, "one"), token(Role::Reader, "other"));
    std::fs::write(&file, one + "streams_max = 2\n" + &other).unwrap();
    let server = Server::start_on(data, &["--tokens-file", file.to_str().unwrap()]);
    let open = |token: &str| {
        Download::open(server.address(), "GET", LONG, &[("authorization", &bearer(token))], b"").unwrap()
    };
    let running = [open(&limited), open(&limited)];
    let refused = open(&limited).finish();
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert!(refused.problem().detail.contains("\"one\" has 2 streams"), "{}", refused.text());
    assert_eq!(open(&free).status, 200);
    drop(running);
    wait_for("a place", || (open(&limited).status == 200).then_some(()));
}

#[test]
fn a_token_is_revoked_under_load_and_running_streams_go_on() {
    let guarded = Guarded::start(&["--threads", "1"]);
    let (kept, revoked) = (&guarded.tokens[&Role::Admin], &guarded.tokens[&Role::Reader]);
    let open = |token: &str, target: &str| {
        Download::open(guarded.server.address(), "GET", target, &[("authorization", &bearer(token))], b"")
            .unwrap()
    };
    let streams = (0..4).map(|_| {
        let mut stream = open(revoked, LONG);
        let beginning = stream.sip(1000);
        (beginning, stream)
    });
    let streams: Vec<_> = streams.collect();
    let all = std::fs::read_to_string(&guarded.file).unwrap();
    let without = guarded.tables[&Role::Researcher].clone() + &guarded.tables[&Role::Admin];
    let of_another = token(Role::Reader, "another").1;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = (0..3).map(|_| {
            scope.spawn(|| {
                // Once it is refused, it stays so; whoever else asks is served all the time.
                let mut statuses = Vec::new();
                while !done.load(Ordering::SeqCst) {
                    statuses.push(open(revoked, SHORT).finish().status);
                    assert_eq!(open(kept, SHORT).finish().status, 200);
                }
                statuses
            })
        });
        let asking: Vec<_> = asking.collect();
        assert_eq!(open(revoked, SHORT).finish().status, 200);
        std::fs::write(&guarded.file, without.clone() + &of_another).unwrap();
        wait_for("the refusal", || (open(revoked, SHORT).finish().status == 401).then_some(()));
        done.store(true, Ordering::SeqCst);
        for asking in asking {
            let statuses = asking.join().unwrap();
            assert!(
                statuses.is_sorted() && statuses.iter().all(|status| [200, 401].contains(status)),
                "{statuses:?}"
            );
        }
    });
    for (beginning, stream) in streams {
        let answer = stream.finish();
        assert!(answer.complete, "a running stream was cut");
        let whole = [&beginning, &answer.body[..]].concat();
        assert_eq!(Epoch::decode(whole).indices().len(), 10_000);
    }
    let log = guarded.server.process.stderr();
    assert_eq!(log.matches("the tokens were read again").count(), 1);
    assert!(log.contains(r#"added="another (reader)" revoked="reader" changed="""#), "{log}");

    // A file that is wrong, is cut, or is gone changes nothing, and is told of once.
    let failed = || {
        let answer = open(kept, "/metrics").finish();
        pba_tests::metrics::Metrics::parse(&answer.text()).get("pba_token_reloads_total{outcome=\"failed\"}")
    };
    let (pasted, _) = token(Role::Reader, "pasted");
    let broken = [
        Some(without.clone() + "[[tokens]]\nname = \"x\"\nrole = \"reader\"\nsha256 = \"" + &pasted + "\"\n"),
        Some(String::new()),
        Some(without.clone() + "[[tok"),
        None,
    ];
    for (count, text) in (1..).zip(broken) {
        match &text {
            Some(text) => std::fs::write(&guarded.file, text).unwrap(),
            None => std::fs::remove_file(&guarded.file).unwrap(),
        }
        wait_for("the failure", || (failed() == f64::from(count)).then_some(()));
        assert_eq!((open(kept, SHORT).finish().status, open(revoked, SHORT).finish().status), (200, 401));
    }
    assert!(!guarded.server.process.stderr().contains(&pasted[4..]));
    // A link that is swapped, as Kubernetes does; then nobody is let in any more.
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("tokens");
    std::fs::write(&target, &all).unwrap();
    std::os::unix::fs::symlink(&target, &guarded.file).unwrap();
    wait_for("its return", || (open(revoked, SHORT).finish().status == 200).then_some(()));
    std::fs::write(&target, "tokens = []").unwrap();
    wait_for("the end of all", || (open(kept, SHORT).finish().status == 401).then_some(()));
    unknown(&open(revoked, "/v1/datasets").finish());
}

#[test]
fn a_token_that_is_raised_or_replaced_is_told_of() {
    let guarded = Guarded::start(&[]);
    let status = |token: &str, target: &str| {
        guarded.ask("GET", target, &[("authorization", &bearer(token))], b"").status
    };
    let (raised, table) = token(Role::Admin, "reader");
    let others =
        guarded.tables[&Role::Researcher].clone() + "streams_max = 7\n" + &guarded.tables[&Role::Admin];
    std::fs::write(&guarded.file, others + &table).unwrap();
    wait_for("the new token", || (status(&raised, "/v1/audit") == 200).then_some(()));
    assert_eq!(status(&guarded.tokens[&Role::Reader], SHORT), 401);
    let told = "added=\"\" revoked=\"\" changed=\"reader: reader -> admin, new token; researcher: streams_max none -> 7\"";
    let log = wait_for("its line", || {
        let log = guarded.server.process.stderr();
        log.contains("the tokens were read again").then_some(log)
    });
    assert!(log.contains(told), "{log}");
    let hash = table.split("sha256 = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(!log.contains(hash) && !log.contains(&raised[4..]), "{log}");
}

/// As many tokens as are allowed.
#[test]
fn a_large_file_of_tokens_is_read_again() {
    let guarded = Guarded::start(&[]);
    let mut tables = guarded.tables.values().cloned().collect::<String>();
    for number in 3..9_999 {
        let hash = format!("{number:064x}");
        tables += &format!("[[tokens]]\nname = \"t{number}\"\nrole = \"reader\"\nsha256 = \"{hash}\"\n");
    }
    let (last, table) = token(Role::Reader, "last");
    std::fs::write(&guarded.file, tables + &table).unwrap();
    let asked = |token: &str| guarded.ask("GET", SHORT, &[("authorization", &bearer(token))], b"").status;
    wait_for("the last token", || (asked(&last) == 200).then_some(()));
    assert_eq!(asked(&guarded.tokens[&Role::Reader]), 200);
    // Each is told of, in lines that are not cut.
    wait_for("the last line of the log", || {
        guarded.server.process.stderr().contains("313 of 313").then_some(())
    });
    let log = guarded.server.process.stderr();
    assert!(log.contains("t3 (reader)") && log.contains("t9998 (reader)") && !log.contains("..."), "{log}");
    assert_eq!(guarded.metric("pba_log_lines_lost_total"), 0.0);
}
