//! What every answer tells browsers to leave alone.

use pba_tests::{Answer, Server};

const EVERYWHERE: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

#[track_caller]
fn check(answer: &Answer, what: &str) {
    for (name, value) in EVERYWHERE {
        assert_eq!(answer.header(name), Some(value), "{name} of {what}");
    }
    assert_eq!(answer.header("strict-transport-security"), None, "it would bind other ports of the host");
    for name in ["content-security-policy", "cache-control", "content-type"] {
        assert!(answer.headers.iter().filter(|(known, _)| known == name).count() <= 1, "{name} of {what}");
    }
    assert!(answer.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"), "{what}");
}

#[test]
fn every_answer_has_them() {
    let server = Server::start(&["--connections-max", "4"]);
    for (method, target) in [
        ("GET", "/v1/datasets"),
        ("HEAD", "/v1/datasets"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
        ("GET", "/v1/schedules/nothing"),
        ("POST", "/livez"),
        ("GET", "/v1/datasets/shapes/epochs/0/batches?split=test&shard=0/50"),
        ("GET", "/v1/datasets/shapes/epochs/0/preview.png?n=1"),
    ] {
        let answer = server.send(method, target, b"");
        check(&answer, target);
        assert_eq!(answer.header("content-security-policy"), Some(NOTHING), "{target}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{target}");
        assert_eq!(answer.header("x-frame-options"), None, "{target}");
    }
    let page = server.get("/");
    check(&page, "the page");
    assert_eq!(
        (page.header("x-frame-options"), page.header("cache-control")),
        (Some("DENY"), Some("no-store"))
    );
    // A plot brings its styles along, wherever it is shown.
    let plot = server.get("/v1/schedules/svhn-pba/plot.svg");
    check(&plot, "a plot");
    assert!(plot.header("content-security-policy").unwrap().contains("style-src 'unsafe-inline'"));
    // What has a time of its own keeps it.
    let icon = server.get("/favicon.ico");
    check(&icon, "the icon");
    assert_eq!(icon.header("cache-control"), Some("public, max-age=86400"));
    // One for which there is no connection.
    let silent: Vec<_> = (0..4).map(|_| pba_tests::http::connect(server.address()).unwrap()).collect();
    let refused = pba_tests::wait_for("a refusal", || {
        let answer = server.get("/v1/schedules");
        (answer.status == 503).then_some(answer)
    });
    check(&refused, "a refusal");
    drop(silent);
}
