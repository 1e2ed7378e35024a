//! The further address for metrics and probes.

use pba_tests::server::{Process, data_folder};
use pba_tests::{Download, Server, http, pba, wait_for};

/// A server of plain HTTP with such an address.
fn start() -> (Process, std::sync::Arc<tempfile::TempDir>, std::net::SocketAddr, std::net::SocketAddr) {
    let data = data_folder();
    let process = Server::spawn(data.path(), &["--metrics-listen", "127.0.0.1:0"]);
    let listens = process.line().unwrap();
    let listens = listens.strip_prefix("listening on http://").unwrap().parse().unwrap();
    let metrics = process.line().unwrap();
    let metrics = metrics.strip_prefix("metrics on http://").and_then(|rest| rest.strip_suffix("/metrics"));
    (process, data, listens, metrics.unwrap().parse().unwrap())
}

#[test]
fn it_answers_what_is_asked_of_it_and_nothing_else() {
    let (_process, _data, address, metrics) = start();
    let ask = |method: &str, target: &str, headers: &[(&str, &str)]| {
        Download::open(metrics, method, target, headers, b"").unwrap().finish()
    };
    wait_for("the datasets", || (ask("GET", "/readyz", &[]).status == 200).then_some(()));
    // Under any name, and whatever page asks: they are numbers.
    for host in ["10.0.0.7:9090", "pba-metrics.monitoring.svc.cluster.local", "evil.example"] {
        let page = ("origin", "http://grafana.example");
        for probe in ["/metrics", "/livez", "/readyz"] {
            assert_eq!(ask("GET", probe, &[("host", host), page]).status, 200, "{probe} of {host}");
        }
    }
    let text = ask("GET", "/metrics", &[]).text();
    assert!(text.contains("pba_requests_total{route=\"/metrics\",status=\"200\"}"), "{text}");
    assert_eq!(ask("HEAD", "/metrics", &[]).status, 200);
    assert_eq!(ask("POST", "/metrics", &[]).status, 405);
    assert_eq!(ask("GET", "/metrics?x=1", &[]).status, 400);
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/v1/datasets"),
        ("GET", "/v1/datasets/shapes/epochs/0/batches"),
        ("GET", "/openapi.json"),
        ("PUT", "/v1/schedules/x"),
        ("POST", "/v1/searches"),
        ("GET", "/metrics/"),
        ("GET", "//metrics"),
    ] {
        let refused = ask(method, target, &[]);
        assert_eq!(refused.status, 404, "{method} {target}");
        let detail = refused.problem().detail;
        assert!(detail.contains("answers /livez, /readyz, /metrics only"), "{detail}");
    }
    // The other port still minds for whom a request is.
    let elsewhere = Download::open(address, "GET", "/metrics", &[("host", "evil.example")], b"").unwrap();
    assert_eq!(elsewhere.status, 403);
}

#[test]
fn it_has_connections_of_its_own() {
    let (_process, _data, address, metrics) = start();
    let get = |target: &str| Download::open(metrics, "GET", target, &[], b"").ok();
    let silent: Vec<_> = (0..80).map(|_| http::connect(metrics).unwrap()).collect();
    // However many hang on it, the server itself is not touched, and what watches it is answered within seconds.
    assert_eq!(Download::open(address, "GET", "/livez", &[], b"").unwrap().status, 200);
    wait_for("an answer", || (get("/livez")?.status == 200).then_some(()));
    drop(silent);
    wait_for("a place", || (get("/v1/datasets")?.status == 404).then_some(()));
}

#[test]
fn wrong_addresses_are_refused() {
    pba(&["serve", "--metrics-listen", "9090"]).refused(1, &["metrics_listen: \"9090\" is not an address"]);
    let (_process, _data, address, _) = start();
    let taken = ["serve", "--listen", "127.0.0.1:0", "--metrics-listen", &address.to_string()];
    pba(&taken).refused(1, &["cannot listen on", "use --metrics-listen 127.0.0.1:0"]);
    // It may be reached from elsewhere, unlike the server itself.
    let checked = pba(&["serve", "--check", "--metrics-listen", "0.0.0.0:9090"]).json();
    assert_eq!(checked["metrics_listen"], "0.0.0.0:9090");
}
