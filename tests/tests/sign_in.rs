//! Browsers sign in with a token.

use pba_tests::Server;
use pba_tests::guarded::{Guarded, SHORT, unknown};
use pba_wire::Role;

#[test]
fn a_browser_signs_in_without_javascript() {
    let guarded = Guarded::start(&[]);
    let token = &guarded.tokens[&Role::Researcher];
    let accept = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let origin = format!("http://{}", guarded.server.address());
    let host = guarded.server.address().to_string();
    let page = guarded.ask("GET", "/v1/schedules?x='&y", &[accept], b"");
    assert_eq!((page.status, page.header("www-authenticate")), (401, Some("Bearer realm=\"pba\"")));
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let text = page.text();
    assert!(text.contains("value=\"/v1/schedules?x=&#39;&#38;y\""), "{text}");
    let page = guarded.ask("GET", "/v1/schedules/cifar10-pba/plot.svg", &[accept], b"").text();
    for says in [
        "<form method=\"post\" action=\"/v1/session\">",
        "name=\"next\" value=\"/v1/schedules/cifar10-pba/plot.svg\"",
        "name=\"token\" type=\"password\"",
    ] {
        assert!(page.contains(says), "{page}");
    }
    // Programs are told what they understand.
    unknown(&guarded.ask("GET", "/v1/schedules", &[("accept", "*/*")], b""));

    let form = ("content-type", "application/x-www-form-urlencoded");
    let sent = [form, accept, ("host", &host), ("origin", &origin)];
    let wrong = guarded.ask("POST", "/v1/session", &sent, b"token=pba_wrong&next=%2Fmetrics");
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, None));
    assert!(wrong.text().contains("role=\"alert\"") && wrong.text().contains("value=\"/metrics\""));
    let fields = format!("token={token}&next=%2Fv1%2Fsearches%3Fx%3D1");
    let right = guarded.ask("POST", "/v1/session", &sent, fields.as_bytes());
    assert_eq!((right.status, right.header("location")), (303, Some("/v1/searches?x=1")));
    let set = right.header("set-cookie").unwrap();
    assert_eq!(set, format!("pba_token={token}; Path=/; HttpOnly; SameSite=Strict"));
    let cookie = ("cookie", set.split(';').next().unwrap());
    for next in ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"] {
        let fields = format!("token={token}&next={next}");
        let led = guarded.ask("POST", "/v1/session", &sent, fields.as_bytes());
        assert_eq!((led.status, led.header("location")), (303, Some("/")), "{next}");
    }
    // TLS ends before this server.
    let proxied = [form, ("host", "localhost"), ("origin", "https://localhost")];
    let secure = guarded.ask("POST", "/v1/session", &proxied, format!("token={token}").as_bytes());
    assert!(secure.header("set-cookie").unwrap().ends_with("; Secure"), "{secure:?}");
    // Neither another page's form nor another kind of body signs anybody in.
    let foreign = [form, ("host", &*host), ("origin", "https://evil.example")];
    assert_eq!(guarded.ask("POST", "/v1/session", &foreign, fields.as_bytes()).status, 403);
    assert_eq!(guarded.ask("POST", "/v1/session", &[], fields.as_bytes()).status, 415);
    let long = [fields.as_bytes(), &[b'x'; 9000]].concat();
    assert_eq!(guarded.ask("POST", "/v1/session", &sent, &long).status, 413);

    // The cookie is the token, with its role, and a stranger's page has nothing of it.
    assert_eq!(guarded.ask("GET", "/", &[cookie, accept], b"").status, 200);
    assert_eq!(guarded.ask("GET", SHORT, &[cookie], b"").status, 200);
    assert_eq!(guarded.ask("GET", "/v1/audit", &[cookie], b"").status, 403);
    let spec = br#"{"dataset": "nothing"}"#;
    assert_eq!(guarded.ask("POST", "/v1/searches", &[cookie], spec).status, 404);
    let by_page = |origin: &str| {
        guarded.ask("POST", "/v1/searches", &[cookie, ("host", &host), ("origin", origin)], spec)
    };
    assert_eq!((by_page(&origin).status, by_page("https://evil.example").status), (404, 403));
    assert!(
        guarded
            .ask("GET", "/v1/session", &[cookie], b"")
            .text()
            .contains("Signed in as researcher (researcher)")
    );
    let out = guarded.ask("POST", "/v1/session/end", &[cookie, ("host", &host), ("origin", &origin)], b"");
    assert_eq!((out.status, out.header("location")), (303, Some("/")));
    assert!(out.header("set-cookie").unwrap().starts_with("pba_token=; "), "{out:?}");
    assert!(out.header("set-cookie").unwrap().ends_with("Max-Age=0"));

    // What a server without tokens says of it.
    let server = Server::start(&[]);
    assert!(server.get("/v1/session").text().contains("asks for no token"));
}
