//! Spans, as an OpenTelemetry collector gets them.

use std::process::Command;

use pba_tests::collector::{Collector, attribute};
use pba_tests::log::with_message;
use pba_tests::server::{Process, data_folder};
use pba_tests::{Pba, Server, wait_for};

const STREAM: &str = "shapes/epochs/0/batches?schedule=none";
const ROUTE: &str = "GET /v1/datasets/{dataset}/epochs/{epoch}/batches";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Its spans are sent at once, and its log is JSON.
fn command(variables: &[(&str, &str)]) -> (Command, std::sync::Arc<tempfile::TempDir>) {
    let data = data_folder();
    let mut command = Server::command(data.path(), &[]);
    command
        .env("PBA_LOG_FORMAT", "json")
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .envs(variables.iter().copied());
    (command, data)
}

#[test]
fn each_request_has_a_span_in_the_trace_of_its_client() {
    let collector = Collector::start();
    let (command, data) = command(&[("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())]);
    let server = Server::run(command, data);
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let epoch = server.epoch_with(STREAM, &[("traceparent", &parent), ("x-request-id", "run-7")]);
    let of_stream =
        wait_for("the stream's span", || collector.spans().into_iter().find(|span| span.name == ROUTE));
    assert_eq!(
        (hex(&of_stream.trace_id), hex(&of_stream.parent_span_id)),
        (TRACE.into(), parent[36..52].into())
    );
    let bytes = epoch.bytes.len().to_string();
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("pba.request_id", "run-7"),
        ("pba.dataset", "shapes"),
        ("pba.outcome", "completed"),
        ("pba.batches_sent", "79"),
        ("pba.bytes", &bytes),
    ] {
        assert_eq!(attribute(&of_stream.attributes, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(collector.resource("service.name").as_deref(), Some("pba"));
    assert_eq!(collector.resource("service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));

    // A request without a trace begins one, by which the log knows it.
    server.epoch(STREAM);
    let line = with_message(&server.process, "stream ended", 2).remove(1);
    let trace = line["fields"]["trace"].as_str().unwrap();
    wait_for("the span of that trace", || {
        collector.spans().into_iter().find(|span| hex(&span.trace_id) == trace)
    });
    // What the client is told is wrong is no failure of the server.
    let refused = server.get("/v1/datasets/nothing");
    assert_eq!(refused.status, 404);
    let span = wait_for("the span of what was refused", || {
        let spans = collector.spans().into_iter();
        let mut refused = spans.filter(|span| {
            attribute(&span.attributes, "http.response.status_code").as_deref() == Some("404")
        });
        refused.next()
    });
    assert_eq!(span.status.map_or(0, |status| status.code), 0);
}

#[test]
fn the_last_spans_are_sent_when_the_server_ends() {
    let collector = Collector::start();
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()), ("OTEL_BSP_SCHEDULE_DELAY", "600000")];
    let (command, data) = command(&variables);
    let mut server = Server::run(command, data);
    server.epoch(STREAM);
    assert_eq!(collector.spans().iter().filter(|span| span.name == ROUTE).count(), 0);
    server.process.signal("TERM");
    server.process.wait();
    assert_eq!(collector.spans().iter().filter(|span| span.name == ROUTE).count(), 1);
}

#[test]
fn a_collector_that_is_not_there_harms_nothing_and_is_told() {
    let (command, data) = command(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")]);
    let server = Server::run(command, data);
    server.epoch(STREAM);
    wait_for("the log to tell", || {
        let log = server.process.stderr();
        log.lines().any(|line| line.contains("opentelemetry") && line.contains("Export")).then_some(())
    });
    server.assert_healthy();
}

#[test]
fn what_cannot_be_exported_to_is_refused() {
    let start = |name: &str, value: &str| {
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:9"), (name, value)];
        let (mut command, _data) = command(&variables);
        Pba::from(command.output().unwrap())
    };
    start("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .refused(1, &["OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"]);
    start("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nothing.pem").refused(1, &["/nothing.pem"]);
    // What switches it off wins.
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"), ("OTEL_SDK_DISABLED", "true")];
    let (command, _data) = command(&variables);
    let server = Process::run(command);
    assert!(server.line().is_some());
    assert!(!server.stderr().contains("spans are exported"));
}
