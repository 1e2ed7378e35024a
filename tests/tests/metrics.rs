//! What operators see.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use pba_schedules::Op;
use pba_tests::{Download, Server, wait_for, wait_until_still};

/// Every metric of a server that streams, with its type.
const METRICS: &[(&str, &str)] = &[
    ("pba_images_augmented_total", "counter"),
    ("pba_batches_sent_total", "counter"),
    ("pba_stream_bytes_total", "counter"),
    ("pba_streams_active", "gauge"),
    ("pba_streams_waiting", "gauge"),
    ("pba_stream_outcomes_total", "counter"),
    ("pba_first_batch_seconds", "histogram"),
    ("pba_request_duration_seconds", "histogram"),
    ("pba_jobs", "gauge"),
    ("pba_stage_duration_seconds", "histogram"),
    ("pba_ops_applied_total", "counter"),
    ("pba_worker_busy_seconds_total", "counter"),
    ("pba_queue_depth", "gauge"),
    ("pba_client_wait_seconds_total", "counter"),
    ("pba_backpressure_seconds_total", "counter"),
    ("pba_resumes_total", "counter"),
    ("pba_connections_active", "gauge"),
    ("pba_connections_refused_total", "counter"),
    ("pba_log_lines_lost_total", "counter"),
    ("pba_panics_total", "counter"),
    ("pba_tls_handshakes_total", "counter"),
    ("pba_tls_reloads_total", "counter"),
    ("pba_requests_total", "counter"),
    ("pba_request_errors_total", "counter"),
    ("pba_cache_bytes", "gauge"),
    ("pba_build_info", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_open_fds", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_start_time_seconds", "gauge"),
];

/// Traffic that moves everything: streams, a resume, previews, errors of several kinds.
fn busy_server() -> Server {
    let server = Server::start(&[]);
    server.epoch("shapes/epochs/199/batches?schedule=cifar10-pba");
    server.epoch("shapes/epochs/150/batches?schedule=svhn-pba&split=test&start=4");
    for page in [
        "/",
        "/v1/schedules",
        "/v1/datasets",
        "/v1/datasets/shapes/epochs/0/preview.png?n=1",
        "/livez",
        "/readyz",
        "/v1/schedules/svhn-pba/plot.svg",
        "/nowhere",
        "/v1/schedules/nothing",
        "/v1/schedules?x=1",
    ] {
        server.get(page);
    }
    server.send("POST", "/metrics", b"");
    server.send("PUT", "/v1/schedules/wrong", b"{");
    server.metrics();
    server
}

#[test]
fn every_metric_is_there() {
    let metrics = busy_server().metrics();
    for (name, kind) in METRICS {
        let family = metrics.families.get(*name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(family.kind.as_deref(), Some(*kind), "{name}");
        assert!(!family.samples.is_empty(), "{name} has no series");
    }
    let stages = metrics.label_values("stage").into_iter().collect::<Vec<_>>();
    assert_eq!(stages, ["augment", "decode", "encode", "send"]);
    // Its labels are looked at in releases.rs.
    assert_eq!(metrics.sum("pba_build_info"), 1.0);
}

/// So that `rate()` sees the first event: counters and histograms are there before they count anything.
#[test]
fn everything_is_there_from_the_start() {
    let server = Server::start(&[]);
    let fresh = server.metrics();
    // Some appear with what they count only: statuses of refusals by route, and what a running search tells.
    let busy = {
        server.epoch("shapes/epochs/0/batches?split=test");
        server.get("/v1/datasets/shapes/epochs/0/batches?seed=x");
        drop(server.download("/v1/datasets/shapes/epochs/0/batches"));
        server.get("/v1/datasets/shapes/epochs/0/preview.png?n=1");
        server.get("/nowhere");
        wait_for("the stream to end", || {
            let left = "pba_stream_outcomes_total{dataset=\"shapes\",outcome=\"left\"}";
            (server.metric(left) == 1.0).then_some(())
        });
        server.metrics()
    };
    let refusals =
        "pba_requests_total{route=\"/v1/datasets/{dataset}/epochs/{epoch}/batches\",status=\"400\"}";
    let series = |metrics: &pba_tests::metrics::Metrics| -> Vec<String> {
        let samples = metrics.families.values().flat_map(|family| &family.samples);
        samples.map(|sample| format!("{} {:?}", sample.name, sample.labels)).collect()
    };
    let (before, after) = (series(&fresh), series(&busy));
    let new: Vec<&String> = after.iter().filter(|series| !before.contains(series)).collect();
    assert_eq!(new.len(), 1, "{new:#?}");
    assert_eq!((fresh.get(refusals), busy.get(refusals)), (0.0, 1.0));

    for (name, kind) in METRICS.iter().filter(|(_, kind)| *kind != "gauge") {
        assert!(fresh.families.contains_key(*name), "the {kind} {name} is missing at first");
    }
    for outcome in ["completed", "left", "cut", "refused"] {
        for dataset in ["shapes", "none"] {
            let labels = [("dataset", dataset), ("outcome", outcome)];
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let family = &fresh.families["pba_stream_outcomes_total"];
            let found = family.samples.iter().find(|sample| sample.labels == labels);
            assert_eq!(found.map(|sample| sample.value), Some(0.0), "{labels:?}");
        }
    }
    // As the routes and problems are documented.
    let document = server.get("/openapi.json").json();
    let routes = fresh.label_values("route");
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(routes.contains(path.as_str()), "{path}");
    }
    for kind in ["wrong-parameter", "full", "draining", "damaged", "broken-stream", "internal"] {
        assert!(fresh.label_values("kind").contains(kind), "{kind}");
    }
    for job in ["search", "evaluation", "comparison"] {
        for state in ["queued", "running", "done", "failed", "cancelled"] {
            assert!(after.contains(&format!(
                "pba_jobs {:?}",
                [("kind".to_owned(), job.to_owned()), ("state".to_owned(), state.to_owned())]
            )));
        }
    }
}

#[test]
fn the_text_has_good_manners() {
    let server = busy_server();
    let answer = server.get("/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let metrics = pba_tests::metrics::Metrics::parse(&answer.text());
    assert_eq!(metrics.lint(), [""; 0]);
    for name in metrics.families.keys() {
        assert!(name.starts_with("pba_") || name.starts_with("process_"), "{name} has another prefix");
    }
    match promtool(&answer.text()) {
        Some(said) => {
            println!("promtool ran beside our own lint");
            assert_eq!(said, "", "promtool check metrics has something to say");
        }
        None => println!("our own lint ran; promtool is not installed (Debian's prometheus package has it)"),
    }
}

/// What `promtool check metrics` says; none where it is not installed.
fn promtool(text: &str) -> Option<String> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Some(if output.status.success() || !said.is_empty() { said } else { output.status.to_string() })
}

#[test]
fn labels_are_bounded() {
    let server = busy_server();
    let before = server.metrics();
    let known = |label: &str| -> Vec<String> {
        server.metrics().label_values(label).into_iter().map(str::to_owned).collect()
    };
    let (routes, datasets, series) = (known("route"), known("dataset"), count(&before));
    // Whatever clients invent makes no new series.
    for number in 0..50 {
        for page in
            ["/x{}", "/v1/datasets/d{}", "/v1/schedules/s{}", "/v1/datasets/d{}/epochs/{}/batches?p{}=1"]
        {
            server.get(&page.replace("{}", &number.to_string()));
        }
        server.send(&format!("X{number}"), "/", b"");
    }
    assert_eq!(known("dataset"), datasets);
    for route in known("route") {
        assert!(!route.contains(|c: char| c.is_ascii_digit() && c != '1'), "{route} is no template");
    }
    // A few statuses more for known routes, and two templates that were not asked for before.
    assert!(count(&server.metrics()) < series + 12, "{} series, before {series}", count(&server.metrics()));
    assert!(known("route").len() <= routes.len() + 2);
    for (label, bound) in [("op", Op::ALL.len()), ("stage", 4), ("version", 1), ("outcome", 8), ("side", 2)] {
        assert!(known(label).len() <= bound, "{label}: {:?}", known(label));
    }
    assert!(known("status").iter().all(|status| status.len() == 3));
}

fn count(metrics: &pba_tests::metrics::Metrics) -> usize {
    metrics.families.values().map(|family| family.samples.len()).sum()
}

#[test]
fn streams_are_counted() {
    let server = Server::start(&[]);
    let start = server.metrics();
    let epoch = server.epoch("shapes/epochs/0/batches?split=test&batch_size=300&schedule=identity");
    let metrics = server.metrics();
    assert_eq!(metrics.get("pba_images_augmented_total{dataset=\"shapes\"}"), 2000.0);
    assert_eq!(metrics.get("pba_batches_sent_total"), 7.0);
    assert_eq!(metrics.get("pba_stream_bytes_total"), epoch.bytes.len() as f64);
    assert_eq!(metrics.sum("pba_ops_applied_total"), 0.0, "identity applies nothing");
    assert_eq!(metrics.get("pba_resumes_total"), 0.0);
    for stage in ["augment", "encode", "send"] {
        assert_eq!(
            metrics.get(&format!("pba_stage_duration_seconds_count{{stage=\"{stage}\"}}")),
            7.0,
            "{stage}"
        );
    }
    for counter in ["pba_worker_busy_seconds_total", "pba_client_wait_seconds_total{dataset=\"shapes\"}"] {
        assert!(metrics.get(counter) > start.get(counter), "{counter} stands still");
    }
    // At most every worker for the whole time since the start, and the client's wait likewise.
    assert!(metrics.sum("pba_client_wait_seconds_total") < 60.0);
    assert_eq!(metrics.get("pba_first_batch_seconds_count"), 1.0);
    let packed = server.get("/v1/datasets/shapes").json();
    let bytes: f64 =
        ["train", "test"].map(|split| packed["splits"][split]["bytes"].as_f64().unwrap()).iter().sum();
    assert_eq!(metrics.get("pba_cache_bytes"), bytes);

    server.epoch("shapes/epochs/0/batches?split=test&batch_size=300&start=2");
    assert_eq!(server.metric("pba_resumes_total"), 1.0);
    assert_eq!(server.metric("pba_batches_sent_total"), 12.0);
    server.get("/v1/datasets/shapes/epochs/0/preview.png?n=9");
    assert_eq!(server.metric("pba_batches_sent_total"), 12.0, "a preview is no stream");
}

#[test]
fn ops_are_counted() {
    let server = Server::start(&[]);
    // Every slot fires whenever it is drawn, and ShearX is the only op with a probability.
    let policy: Vec<&str> = (0..30).flat_map(|slot| [if slot % 15 == 0 { "10" } else { "0" }, "5"]).collect();
    server.epoch(&format!("shapes/epochs/0/batches?split=test&policy={}", policy.join(",")));
    let metrics = server.metrics();
    let first = Op::ALL[0].name();
    let fired = metrics.get(&format!("pba_ops_applied_total{{op=\"{first}\"}}"));
    assert!(fired > 0.0);
    assert_eq!(metrics.sum("pba_ops_applied_total"), fired, "another op than {first} fired");
    assert_eq!(metrics.label_values("op").len(), Op::ALL.len(), "every op has its series from the start");
}

#[test]
fn requests_and_errors_are_counted() {
    let server = Server::start(&[]);
    let batches = "/v1/datasets/{dataset}/epochs/{epoch}/batches";
    let path = "/v1/datasets/shapes/epochs/0/batches";
    server.get(&format!("{path}?split=test"));
    server.get(&format!("{path}?seed=x"));
    server.get(&format!("{path}?seed=y"));
    server.get(&format!("{path}?schedule=nothing"));
    server.get("/nowhere");
    server.send("DELETE", path, b"");
    let metrics = server.metrics();
    for (route, status, count) in [
        (batches, 200, 1.0),
        (batches, 400, 2.0),
        (batches, 404, 1.0),
        (batches, 405, 1.0),
        ("none", 404, 1.0),
    ] {
        let series = format!("pba_requests_total{{route=\"{route}\",status=\"{status}\"}}");
        assert_eq!(metrics.get(&series), count, "{series}");
    }
    let timed = format!("pba_request_duration_seconds_count{{route=\"{batches}\"}}");
    assert_eq!(metrics.get(&timed), 5.0);
    for (kind, count) in [("wrong-parameter", 2.0), ("not-found", 2.0), ("method-not-allowed", 1.0)] {
        assert_eq!(metrics.get(&format!("pba_request_errors_total{{kind=\"{kind}\"}}")), count, "{kind}");
    }
}

#[test]
fn a_client_that_stalls_and_leaves_was_waited_for() {
    let server = Server::start(&[]);
    let target = "/v1/datasets/shapes/epochs/0/batches?batch_size=2000";
    let stalled = Download::open_narrow(server.address(), target).unwrap();
    let images = || server.metric("pba_images_augmented_total{dataset=\"shapes\"}");
    let stall = Duration::from_millis(300);
    wait_until_still("the stalled stream", stall, images);
    drop(stalled);
    wait_for("the stream to end", || (server.metric("pba_streams_active") == 0.0).then_some(()));
    let waited = server.metric("pba_backpressure_seconds_total{dataset=\"shapes\"}");
    assert!(
        waited >= stall.as_secs_f64() / 2.0,
        "the server waited {waited} s for a client that stalled {stall:?}"
    );
}
