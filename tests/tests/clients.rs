//! Clients that go away, dawdle, crowd or send half: no other client notices, and nothing stays.

use std::io::{Read, Write};
use std::time::Duration;

use pba_tests::{Download, Epoch, Server, http, wait_for, wait_until_still};

const TRAIN: &str = "/v1/datasets/shapes/epochs/0/batches?schedule=cifar10-pba";
const IMAGES: &str = "pba_images_augmented_total{dataset=\"shapes\"}";
const ACTIVE: &str = "pba_streams_active";
const RESIDENT: &str = "process_resident_memory_bytes";

#[test]
fn clients_that_go_away() {
    let server = Server::start(&[]);
    // Before the first byte, in the schema, in a batch's header, in its pixels, between batches.
    for bytes in [0, 100, 1500, 50_000, 393_000, 3_000_000] {
        for reset in [false, true] {
            let mut download = Download::open_narrow(server.address(), TRAIN).unwrap();
            download.sip(bytes);
            assert_eq!(server.metric(ACTIVE), 1.0);
            if reset {
                download.reset()
            } else {
                drop(download)
            }
            wait_for("the stream to end", || (server.metric(ACTIVE) == 0.0).then_some(()));
        }
    }
    // Before the answer: the request alone was sent.
    for _ in 0..20 {
        let mut socket = http::connect(server.address()).unwrap();
        socket.write_all(format!("GET {TRAIN} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).unwrap();
    }
    server.assert_healthy();
    assert_eq!(server.metric("pba_request_errors_total{kind=\"broken-stream\"}"), 0.0, "it is their right");
}

#[test]
fn hundreds_of_clients_that_come_and_go_leave_no_memory_behind() {
    let server = Server::start(&[]);
    let come_and_go = |count: usize| {
        for number in 0..count {
            let mut download = server.download(TRAIN);
            download.sip(number % 7 * 100_000);
        }
        wait_for("the streams to end", || (server.metric(ACTIVE) == 0.0).then_some(()));
        wait_for("the jobs to end", || (server.metric("pba_queue_depth") == 0.0).then_some(()));
        server.metric(RESIDENT)
    };
    // The whole dataset is mapped once, and the pools fill.
    server.epoch("shapes/epochs/0/batches?schedule=cifar10-pba");
    let before = come_and_go(100);
    let after = come_and_go(400);
    let grown = after - before;
    // 400 batches that stayed would be 157 MB; the allocator itself keeps some.
    assert!(grown < 32e6, "grown by {:.1} MB from {:.1} MB", grown / 1e6, before / 1e6);
    server.assert_healthy();
}

#[test]
fn a_slow_client_holds_a_few_batches_and_delays_nobody() {
    const BATCH: usize = 500;
    const AHEAD: usize = 3;
    let server = Server::start(&["--threads", "1"]);
    let target = format!("{TRAIN}&batch_size={BATCH}");
    let mut slow = Download::open_narrow(server.address(), &target).unwrap();
    let mut others = 0;
    // What the server's kernel takes for it, at most, counts as sent.
    let sysctl = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").unwrap_or_default();
    let kernel = sysctl.split_whitespace().last().and_then(|max| max.parse().ok()).unwrap_or(4 << 20);
    let batch_bytes = BATCH * (3072 + 16);
    // Ahead, one in the hands of the connection, and what lies in the kernel.
    let held = AHEAD + 2 + usize::div_ceil(kernel, batch_bytes);
    assert!(held * BATCH < 9_000, "the epoch must be longer than what is held, or the test shows nothing");
    for round in 0..3 {
        let stalled =
            wait_until_still("the slow stream", Duration::from_millis(100), || server.metric(IMAGES));
        let bound = (held + round) * BATCH + others;
        assert!(stalled <= bound as f64, "{stalled} images made, at most {bound} may be");
        // Another client gets everything, at once.
        let epoch = server.epoch("shapes/epochs/0/batches?schedule=cifar10-pba");
        assert_eq!(epoch.indices().len(), 10_000);
        others += 10_000;
        // One more batch, in small sips.
        for _ in 0..batch_bytes / 4096 {
            slow.sip(4096);
        }
    }
    assert_eq!(server.metric(ACTIVE), 1.0);
    assert!(server.metrics().sum("pba_backpressure_seconds_total") > 0.1, "the server waited for the client");
    let answer = slow.finish();
    assert!(answer.complete);
    server.assert_healthy();
}

#[test]
fn more_streams_than_allowed() {
    let server = Server::start(&["--streams-max", "2"]);
    let running = [(); 2].map(|()| Download::open_narrow(server.address(), TRAIN).unwrap());
    for _ in 0..5 {
        let refused = server.get(TRAIN);
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
        assert!(refused.problem().detail.contains("all 2 streams"));
    }
    assert_eq!(server.metric("pba_request_errors_total{kind=\"full\"}"), 5.0);
    // Wrong requests are told what is wrong with them, full or not; other pages answer.
    assert_eq!(server.get(&format!("{TRAIN}&batch_size=0")).status, 400);
    assert_eq!(server.get("/readyz").status, 200);
    assert_eq!(server.get("/v1/datasets/shapes/epochs/0/preview.png?n=4").status, 200);
    for download in running {
        let answer = download.finish();
        assert!(answer.complete, "a stream was harmed by those that were refused");
        assert_eq!(Epoch::decode(answer.body).indices().len(), 10_000);
    }
    wait_for("a place", || (server.get(TRAIN).status == 200).then_some(()));
    server.assert_healthy();
}

#[test]
fn request_heads_that_never_end() {
    let server = Server::start(&[]);
    let mut sockets = Vec::new();
    for number in 0..100 {
        let mut socket = http::connect(server.address()).unwrap();
        let beginnings = ["GET / HTTP/1.1\r\nhost: localhost\r\nx-", "G", "GET /livez HTTP/1.1\r\n", ""];
        socket.write_all(beginnings[number % 4].as_bytes()).unwrap();
        sockets.push(socket);
    }
    // The others are served meanwhile.
    assert_eq!(server.epoch("shapes/epochs/0/batches").indices().len(), 10_000);
    for mut socket in sockets {
        // Closed by the server, in its own time; a timeout here would be an error.
        let mut rest = Vec::new();
        match socket.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
    server.assert_healthy();
}

#[test]
fn thousands_of_quick_connections() {
    let server = Server::start(&[]);
    std::thread::scope(|scope| {
        for kind in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for number in 0..750 {
                    let mut socket = http::connect(server.address()).expect("the server accepts");
                    let request = match (kind, number % 3) {
                        (0, _) => "",
                        (_, 0) => "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
                        (_, 1) => {
                            "GET /v1/datasets/shapes/epochs/0/batches HTTP/1.1\r\nhost: localhost\r\n\r\n"
                        }
                        _ => "NONSENSE\r\n\r\n",
                    };
                    // It may have been refused already.
                    let _ = socket.write_all(request.as_bytes());
                }
            });
        }
    });
    server.assert_healthy();
}

#[test]
fn connections_that_idle_are_closed() {
    let server = Server::start(&[]);
    let mut idle = http::connect(server.address()).unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // Ends when the server closes; a timeout here would be an error.
    idle.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    server.assert_healthy();
}

#[test]
fn a_body_that_never_ends_harms_nobody() {
    let server = Server::start(&["--threads", "1"]);
    let sockets: Vec<_> = (0..50)
        .map(|_| {
            let mut socket = http::connect(server.address()).unwrap();
            let head = "PUT /v1/schedules/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n{";
            socket.write_all(head.as_bytes()).unwrap();
            socket
        })
        .collect();
    assert_eq!(server.epoch("shapes/epochs/0/batches").indices().len(), 10_000);
    drop(sockets);
    server.assert_healthy();
}

#[test]
fn a_crowd_of_previews_does_not_hold_up_a_stream() {
    let server = Server::start(&["--threads", "2"]);
    let preview = "/v1/datasets/shapes/epochs/0/preview.png?n=1024";
    let mut crowd: Vec<_> = (0..40).map(|_| http::connect(server.address()).unwrap()).collect();
    for socket in &mut crowd {
        socket.write_all(format!("GET {preview} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).unwrap();
    }
    let answered =
        "pba_requests_total{route=\"/v1/datasets/{dataset}/epochs/{epoch}/preview.png\",status=\"200\"}";
    wait_for("the first preview", || (server.metric(answered) > 0.0).then_some(()));
    let before = server.metric(answered);
    server.epoch("shapes/epochs/0/batches?split=test&shard=0/50");
    let meanwhile = server.metric(answered) - before;
    assert!(meanwhile <= 10.0, "a batch had to wait for {meanwhile} previews");
    // Previews that are no longer waited for are not drawn.
    drop(crowd);
    server.assert_healthy();
    assert!(server.metric(answered) < 40.0, "previews were drawn for clients that are gone");
}
