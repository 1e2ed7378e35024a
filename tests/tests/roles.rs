//! Roles: which route needs which, and what is told without any.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use pba_tests::guarded::{Guarded, SHORT, bearer, unknown};
use pba_tests::{PATIENCE, Server, repository, wait_for};
use pba_wire::Role;
use pba_wire::role::OPERATION_KEY;
use serde_json::Value;

/// The operations that a server with tokens or without has, as its document says: method, path, and the role that each
/// needs.
fn operations(document: &Value, has_tokens: bool) -> BTreeMap<(String, String), Option<Role>> {
    let mut operations = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let role = operation.get(OPERATION_KEY).map(|role| role.as_str().unwrap().parse().unwrap());
            let is_documented = operation["responses"].get("401").is_some();
            let asks = has_tokens && role.is_some();
            assert!(is_documented || !asks, "{method} {path} documents no 401");
            assert_eq!(operation.get("security").is_some(), asks, "{method} {path}");
            operations.insert((method.to_uppercase(), path.clone()), role);
        }
    }
    operations
}

#[test]
fn every_route_asks_for_its_role() {
    let guarded = Guarded::start(&[]);
    let document = guarded.ask_as(Role::Reader, "GET", "/openapi.json", b"").json();
    let operations = operations(&document, true);
    let open: Vec<&str> =
        operations.iter().filter(|(_, role)| role.is_none()).map(|((_, path), _)| &**path).collect();
    assert_eq!(open, ["/livez", "/readyz", "/v1/session", "/v1/session", "/v1/session/end"]);
    assert!(operations.len() > 35, "{operations:?}");
    let mut counts = [0; 4];
    for ((method, path), needed) in &operations {
        let parts = path.split('/').map(|part| match part {
            "{dataset}" => "shapes",
            "{epoch}" => "0",
            part if part.starts_with('{') => "nothing",
            part => part,
        });
        let target = parts.collect::<Vec<_>>().join("/");
        let target = if path.ends_with("/batches") { SHORT.to_owned() } else { target };
        let body: &[u8] = if method == "GET" { b"" } else { br#"{"dataset": "nothing"}"# };
        let ask = |role: Option<Role>| match role {
            Some(role) => guarded.ask_as(role, method, &target, body),
            None => guarded.ask(method, &target, &[], body),
        };
        let anonymous = ask(None);
        match needed {
            Some(_) => unknown(&anonymous),
            None => {
                assert!(![401, 403].contains(&anonymous.status), "{method} {target}: {}", anonymous.text())
            }
        }
        for role in Role::ALL {
            let answer = ask(Some(role));
            let who = format!("{method} {target} as {role}: {} {}", answer.status, answer.text());
            if needed.is_some_and(|needed| role < needed) {
                assert_eq!(answer.status, 403, "{who}");
                let problem = answer.problem();
                assert_eq!(problem.kind, "urn:pba:problem:role", "{who}");
                let needed = needed.unwrap();
                for says in [format!("needs the role {needed}"), format!("{:?} has {role}", role.name())] {
                    assert!(problem.detail.contains(&says), "{who}");
                }
            } else {
                assert!(![401, 403, 405, 500].contains(&answer.status), "{who}");
            }
        }
        counts[needed.map_or(0, |role| role as usize + 1)] += 1;
    }
    eprintln!("operations that need no token, a reader, a researcher, an admin: {counts:?}");
    assert!(counts.iter().all(|count| *count > 0));
}

#[test]
fn without_a_token_nothing_is_told_but_health() {
    let guarded = Guarded::start(&[]);
    let right = bearer(&guarded.tokens[&Role::Admin]);
    let mut wrong = right.clone();
    let last = wrong.pop().unwrap();
    wrong.push(if last == '0' { '1' } else { '0' });
    let (right, wrong) = (right.as_str(), wrong.as_str());
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
        ("GET", "/v1"),
        ("GET", "/v1/datasets?unknown=1"),
        ("GET", "/%ff"),
        ("PATCH", "/v1/datasets"),
        ("OPTIONS", "/v1/searches"),
        ("TRACE", "/"),
        ("POST", "/livez"),
        ("DELETE", "/v1/session"),
        ("GET", SHORT),
    ] {
        let ask = |headers: &[(&str, &str)]| guarded.ask(method, target, headers, b"");
        for headers in [
            &[][..],
            &[("authorization", wrong)],
            &[("authorization", "")],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer ")],
            &[("authorization", &right[7..])],
            &[("authorization", "Basic cGJhOnBiYQ==")],
            &[("authorization", right), ("authorization", right)],
            &[("cookie", "pba_token=pba_x")],
            &[("cookie", &format!("pba_token={}", &right[7..])), ("authorization", wrong)],
        ] {
            unknown(&ask(headers));
        }
        assert_ne!(ask(&[("authorization", right)]).status, 401, "{method} {target}");
    }
    assert_eq!(guarded.ask("HEAD", "/v1/datasets", &[], b"").status, 401);
    for (method, target) in [("GET", "/livez"), ("HEAD", "/livez"), ("GET", "/readyz")] {
        for headers in [&[][..], &[("authorization", wrong)]] {
            assert_eq!(guarded.ask(method, target, headers, b"").status, 200, "{method} {target}");
        }
    }
    assert!(guarded.metric("pba_request_errors_total{kind=\"unauthenticated\"}") >= 130.0);
    assert!(!guarded.server.process.stderr().contains("panicked"));
}

/// A code span of the README's table: the methods, unless they are those of the span before it, and a path, or what follows
/// the path before it.
fn readme_roles() -> BTreeMap<(String, String), Option<Role>> {
    let readme = std::fs::read_to_string(repository("README.md")).unwrap();
    let head = "| method and path | role | purpose |\n";
    let table = readme.split(head).nth(1).expect("the README has the table of routes");
    let mut roles = BTreeMap::new();
    for row in table.lines().skip(1).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let role = (cells[1] != "none").then(|| cells[1].parse().unwrap());
        let (mut methods, mut base) = ("", "");
        for span in cells[0].split('`').skip(1).step_by(2) {
            let path = match span.split_once(' ') {
                Some((given, path)) => {
                    methods = given;
                    path
                }
                None => span,
            };
            let path = path.split('?').next().unwrap();
            let path = match path.strip_prefix("...") {
                Some(rest) => format!("{base}{rest}"),
                None => {
                    base = path;
                    path.to_owned()
                }
            };
            for method in methods.split('/') {
                let before = roles.insert((method.to_owned(), unnamed(&path)), role);
                assert!(before.is_none(), "the README has {method} {path} twice");
            }
        }
    }
    roles
}

/// A path whose parameters have no name.
fn unnamed(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn the_readme_says_the_role_of_every_route() {
    let server = Server::start(&[]);
    let operations = operations(&server.get("/openapi.json").json(), false);
    let operations: BTreeMap<_, _> =
        operations.into_iter().map(|((method, path), role)| ((method, unnamed(&path)), role)).collect();
    let readme = readme_roles();
    let of =
        |map: &BTreeMap<(String, String), Option<Role>>| map.clone().into_iter().collect::<BTreeSet<_>>();
    let (served, told) = (of(&operations), of(&readme));
    assert_eq!(
        (served.difference(&told).collect::<Vec<_>>(), told.difference(&served).collect::<Vec<_>>()),
        (Vec::new(), Vec::new()),
        "the README's table of routes lacks the first, and has the second in vain"
    );
}

/// The status of a request through a Unix socket.
fn ask_local(socket: &Path, method: &str, target: &str, headers: &str) -> u16 {
    let mut stream = wait_for("the socket", || UnixStream::connect(socket).ok());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_socket_has_a_role_of_its_own() {
    for (flags, expected) in [
        (&[][..], [200, 404, 200]),
        (&["--socket-role", "admin"], [200, 404, 200]),
        (&["--socket-role", "researcher"], [200, 404, 403]),
        (&["--socket-role", "reader"], [200, 403, 403]),
        (&["--socket-role", "token"], [401, 401, 401]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("pba.sock");
        let guarded = Guarded::start(&[flags, &["--socket", socket.to_str().unwrap()]].concat());
        let asked = [("GET", "/v1/datasets"), ("DELETE", "/v1/schedules/nothing"), ("GET", "/v1/audit")];
        let ask = |headers: &str| asked.map(|(method, target)| ask_local(&socket, method, target, headers));
        assert_eq!(ask(""), expected, "{flags:?}");
        // Who sends a token has its role there, and a wrong one is wrong.
        let header = |token: &str| format!("authorization: Bearer {token}\r\n");
        assert_eq!(ask(&header(&guarded.tokens[&Role::Reader])), [200, 403, 403], "{flags:?}");
        assert_eq!(ask(&header("pba_wrong")), [401; 3], "{flags:?}");
        assert_eq!(ask_local(&socket, "GET", "/livez", ""), 200);
    }
    // Without tokens it is the only bound, and over TCP there is none.
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("pba.sock");
    let server = Server::start(&["--socket-role", "reader", "--socket", socket.to_str().unwrap()]);
    assert_eq!(ask_local(&socket, "DELETE", "/v1/schedules/nothing", ""), 403);
    assert_eq!(server.send("DELETE", "/v1/schedules/nothing", b"").status, 404);
}
