//! Who waits for whom: `GET /v1/streams`, `pba streams` and the metrics of waiting.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pba_client::{Client, EpochRequest, Query as _};
use pba_tests::terminal::Terminal;
use pba_tests::{Download, Server, wait_for};
use pba_wire::streams::{Stream, StreamList, Transport, Waits};

/// Batches of some megabytes, which one worker makes in a while, and enough of them for minutes.
const REQUEST: &str = "base=random_resized_crop:224,flip&schedule=randaugment:2:9&batch_size=16";
/// What a throttled client does with a batch.
const PAUSE: Duration = Duration::from_millis(400);

fn list(server: &Server) -> Vec<Stream> {
    let answer = server.get("/v1/streams");
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice::<StreamList>(&answer.body).unwrap().streams
}

/// Reads an epoch until told to stop, with a pause after each batch.
fn read(url: &str, epoch: u32, pause: Duration, stop: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let request = EpochRequest::from_query(REQUEST).unwrap();
        let mut stream = Client::new([url]).unwrap().epoch("shapes", epoch, request).await.unwrap();
        while !stop.load(Ordering::Relaxed) && stream.next().await.unwrap().is_some() {
            tokio::time::sleep(pause).await;
        }
    });
}

/// Of one fast client and two throttled ones, streams and metrics say who waits.
#[track_caller]
fn one_fast_beside_two_throttled(server: &Server, url: &str, transport: Transport) {
    const FAST: u32 = 0;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (epoch, pause) in [(FAST, Duration::ZERO), (1, PAUSE), (2, PAUSE)] {
            let stop = &stop;
            scope.spawn(move || read(url, epoch, pause, stop));
        }
        // Stops the clients also if something below fails.
        let _stops = Stops(&stop);
        let streams = wait_for("each stream to say who waits", || {
            let streams = list(server);
            let says = |stream: &Stream| match stream.epoch {
                FAST => stream.waits == Waits::Client && stream.client_wait_ratio > 0.5,
                _ => stream.waits == Waits::Server && stream.backpressure_ratio > 0.5,
            };
            (streams.len() == 3 && streams.iter().all(says)).then_some(streams)
        });
        for stream in &streams {
            assert_eq!(stream.transport, transport);
            assert_eq!((stream.dataset.as_str(), stream.batches, stream.rows), ("shapes", 625, 10_000));
            assert_eq!((stream.batch_size, stream.shard.as_str()), (16, "0/1"));
            assert_eq!(stream.rows_sent, 16 * stream.batches_sent);
            assert!(stream.bytes_sent >= (stream.batches_sent - 1) * 16 * 3 * 224 * 224);
            assert!(stream.client_wait_seconds + stream.backpressure_seconds <= stream.seconds);
            assert!(stream.images_per_second > 0.0, "{stream:?}");
        }
        let (fast, slow): (Vec<_>, Vec<_>) = streams.iter().partition(|stream| stream.epoch == FAST);
        for slow in slow {
            assert!(fast[0].images_per_second > slow.images_per_second, "{fast:?} {slow:?}");
        }
        let side = |metrics: &pba_tests::metrics::Metrics, side: &str| {
            metrics.get(&format!("pba_streams_waiting{{dataset=\"shapes\",side=\"{side}\"}}"))
        };
        wait_for("the gauges to say the same", || {
            let metrics = server.metrics();
            ((side(&metrics, "client"), side(&metrics, "server")) == (1.0, 2.0)).then_some(())
        });
        // What waits now is counted now.
        for counter in ["pba_client_wait_seconds_total", "pba_backpressure_seconds_total"] {
            let before = server.metrics().sum(counter);
            assert!(before > 0.0, "{counter}");
            wait_for("a second of waiting", || (server.metrics().sum(counter) > before + 1.0).then_some(()));
        }
        let table = server.pba(&["streams"]).ok();
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(rows.len(), 3, "{table}");
        assert_eq!(rows.iter().filter(|row| row.contains("\tserver\t")).count(), 2, "{table}");
        let json = server.pba(&["streams", "--json"]).json();
        assert_eq!(json["streams"].as_array().map(Vec::len), Some(3));
    });
    wait_for("the streams to end", || list(server).is_empty().then_some(()));
    let metrics = server.metrics();
    for side in ["client", "server"] {
        assert_eq!(metrics.get(&format!("pba_streams_waiting{{dataset=\"shapes\",side=\"{side}\"}}")), 0.0);
    }
}

/// Tells clients to stop when it is dropped.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn over_tcp() {
    let server = Server::start(&["--threads", "1"]);
    one_fast_beside_two_throttled(&server, &server.url(), Transport::Tcp);
}

#[test]
#[cfg(target_os = "linux")]
fn through_shared_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s").display().to_string();
    let server = Server::start(&["--threads", "1", "--socket", &path]);
    one_fast_beside_two_throttled(&server, &format!("unix:{path}"), Transport::SharedMemory);
}

#[test]
fn a_stream_is_described_as_it_was_requested() {
    let server = Server::start(&[]);
    assert_eq!(list(&server), []);
    assert_eq!(server.pba(&["streams"]).ok(), "");
    let target = "/v1/datasets/shapes/epochs/150/batches?schedule=cifar10-pba&epochs=300&shard=1/2&batch_size=2000&seed=7";
    let headers = [("x-request-id", "my-run.7"), ("user-agent", "trainer/1")];
    let first = Download::open_narrow_with(server.address(), target, &headers).unwrap();
    let second = Download::open_narrow(server.address(), "/v1/datasets/shapes/epochs/0/batches").unwrap();
    let streams = list(&server);
    let [one, other] = &streams[..] else { panic!("{streams:?}") };
    assert_eq!((one.request_id.as_str(), one.user_agent.as_deref()), ("my-run.7", Some("trainer/1")));
    assert_eq!((one.epoch, one.epochs, one.shard.as_str()), (150, Some(300), "1/2"));
    assert_eq!((one.schedule.as_str(), one.batches, one.rows), ("cifar10-pba", 3, 5000));
    assert_eq!((one.transport, &one.token), (Transport::Tcp, &None));
    assert!(one.client.starts_with("127.0.0.1:"), "{}", one.client);
    assert_eq!((other.schedule.as_str(), other.epochs, &other.user_agent), ("none", None, &None));
    // Two of one request id are told apart.
    let third = Download::open_narrow_with(server.address(), target, &headers).unwrap();
    let streams = list(&server);
    let ids: Vec<(u64, bool)> =
        streams.iter().map(|stream| (stream.id, stream.request_id == "my-run.7")).collect();
    let first_id = ids[0].0;
    assert_eq!(ids, [(first_id, true), (first_id + 1, false), (first_id + 2, true)]);
    drop(third);
    // Who waits is seen in a terminal of any width, and what is not seen is named.
    let folder = tempfile::tempdir().unwrap();
    for (columns, left_out) in
        [(40, "CLIENT WAITS"), (60, "IMAGES/S"), (79, "REQUEST"), (80, "REQUEST"), (200, "")]
    {
        let terminal = Terminal { columns, rows: 20 };
        let shown = terminal.pba(folder.path(), &[("PBA_SERVER", &server.url())], &["streams"], "");
        let lines = shown.lines();
        assert!(lines[0].contains("  WAITS"), "{columns}: {lines:?}");
        assert_eq!(lines[0].contains("CLIENT WAITS"), columns > 40, "{columns}: {lines:?}");
        assert!(lines[0].contains("SERVER WAITS"), "{columns}: {lines:?}");
        assert_eq!(
            lines.last().unwrap().contains("left out: "),
            !left_out.is_empty(),
            "{columns}: {lines:?}"
        );
        assert!(lines.last().unwrap().contains(left_out), "{columns}: {lines:?}");
    }
    // A client that stalls is seen while it does.
    let stalled = wait_for("the server to wait", || {
        let stalled = list(&server).into_iter().find(|stream| stream.request_id == "my-run.7")?;
        (stalled.waits == Waits::Server).then_some(stalled.backpressure_seconds)
    });
    let waited = || server.metric("pba_backpressure_seconds_total{dataset=\"shapes\"}");
    let before = waited();
    wait_for("the wait to be counted", || (waited() > before + stalled / 100.0).then_some(()));
    drop((first, second));
    wait_for("the streams to end", || list(&server).is_empty().then_some(()));
}

/// A policy that a request has itself is known by its digest.
#[test]
fn a_stream_of_a_policy_names_its_digest() {
    let server = Server::start(&[]);
    let policy = vec!["1"; 60].join(",");
    let target = format!("/v1/datasets/shapes/epochs/0/batches?policy={policy}");
    let stream = Download::open_narrow(server.address(), &target).unwrap();
    let streams = list(&server);
    let [one] = &streams[..] else { panic!("{streams:?}") };
    let is_digest = one.schedule.len() == 64 && one.schedule.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_digest, "{}", one.schedule);
    drop(stream);
}

/// What is asked without a batch is no stream.
#[test]
fn who_asks_for_the_head_or_the_schema_has_no_stream() {
    let server = Server::start(&[]);
    let target = "/v1/datasets/shapes/epochs/0/batches";
    let headers = |download: &pba_tests::Download| {
        let kept = ["content-type", "pba-schema", "content-length"];
        let kept = download.headers.iter().filter(|(name, _)| kept.contains(&name.as_str()));
        kept.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let whole = Download::open(server.address(), "GET", target, &[], b"").unwrap();
    let of_whole = headers(&whole);
    assert_eq!(of_whole.len(), 2, "{of_whole:?}");
    assert_eq!(whole.finish().status, 200);
    let head = Download::open(server.address(), "HEAD", target, &[], b"").unwrap();
    assert_eq!((head.status, headers(&head)), (200, of_whole));
    drop(head);
    let refused = Download::open(server.address(), "HEAD", &format!("{target}?seed=x"), &[], b"").unwrap();
    assert_eq!(refused.status, 400);
    let schema = server.get(&format!("{target}?start=79"));
    assert!(schema.status == 200 && schema.complete && !schema.body.is_empty());
    let outcomes = |outcome: &str| {
        server.metric(&format!("pba_stream_outcomes_total{{dataset=\"shapes\",outcome=\"{outcome}\"}}"))
    };
    wait_for("the stream to end", || (server.metric("pba_streams_active") == 0.0).then_some(()));
    assert_eq!(["completed", "left", "cut", "refused"].map(outcomes), [1.0, 0.0, 0.0, 0.0]);
    assert_eq!(server.metric("pba_batches_sent_total"), 79.0);
}
