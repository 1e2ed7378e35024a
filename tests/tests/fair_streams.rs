//! Workers are shared out among clients, whatever each asks for.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpStream};

use pba_tests::{Download, Epoch, Server, http, wait_for};

/// 10,000 images in one batch, all augmented.
const HUGE: &str = "/v1/datasets/shapes/epochs/199/batches?schedule=cifar10-pba&batch_size=65536";
/// 40 images.
const SMALL: &str = "/v1/datasets/shapes/epochs/199/batches?schedule=cifar10-pba&split=test&shard=0/50";

/// Another client than this process is by default.
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

fn images(server: &Server) -> f64 {
    server.metric("pba_images_augmented_total{dataset=\"shapes\"}")
}

/// Asks for a stream, and waits for nothing of it.
fn ask(server: &Server, target: &str) -> TcpStream {
    let mut socket = http::connect(server.address()).unwrap();
    write!(socket, "GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    socket
}

/// Reads a stream of 40 images to its end.
#[track_caller]
fn small(server: &Server, source: IpAddr) {
    let answer = Download::open_narrow_from(source, server.address(), SMALL).unwrap().finish();
    assert!(answer.complete);
    assert_eq!(Epoch::decode(answer.body).indices().len(), 40);
}

#[test]
fn huge_batches_delay_nobody() {
    // Batches that take a while on any machine, four of them, which are done at about the same time.
    const ROWS: f64 = 500.0;
    let huge = "/v1/datasets/shapes/epochs/0/batches?schedule=randaugment:8:9&base=random_resized_crop:224,flip\
                &batch_size=500";
    let server = Server::start(&["--threads", "1", "--batches-ahead", "1"]);
    for source in [OTHER, Ipv4Addr::LOCALHOST.into()] {
        let before = images(&server);
        // An answer comes with its first batch, which is not waited for.
        let unread: Vec<TcpStream> = (0..4).map(|_| ask(&server, huge)).collect();
        wait_for("the streams", || (server.metric("pba_streams_active") == 4.0).then_some(()));
        small(&server, source);
        let made = images(&server) - before;
        assert!(made < ROWS, "40 images came after one of the huge batches, with {made}");
        drop(unread);
        server.assert_healthy();
    }
}

#[test]
fn nobody_works_for_a_client_that_is_gone() {
    // Batches that take a while on any machine.
    const ROWS: usize = 1500;
    let server = Server::start(&["--threads", "1"]);
    let target = format!("{HUGE}&base=random_resized_crop:224,flip").replace("65536", &ROWS.to_string());
    let huge = ask(&server, &target);
    wait_for("the stream", || (server.metric("pba_streams_active") == 1.0).then_some(()));
    drop(huge);
    // Which waits for the end of what was asked for, and then asks for 40 images.
    server.assert_healthy();
    let made = images(&server);
    assert!(made < ROWS as f64, "{made} images were made, most of them for no client");
}

#[test]
fn one_client_has_its_share_of_the_streams() {
    let server = Server::start(&["--streams-per-client-max", "2"]);
    let open = |source| Download::open_narrow_from(source, server.address(), HUGE).unwrap();
    let first = open(OTHER);
    let second = open(OTHER);
    for _ in 0..3 {
        let refused = open(OTHER);
        assert_eq!(refused.status, 429);
        let refused = refused.finish();
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert!(refused.problem().detail.contains("streams_per_client_max"), "{}", refused.text());
    }
    assert_eq!(server.metric("pba_refused_total{reason=\"streams_per_client\"}"), 3.0);
    small(&server, Ipv4Addr::LOCALHOST.into());
    drop(first);
    wait_for("a place", || (open(OTHER).status == 200).then_some(()));
    drop(second);
    server.assert_healthy();
}

#[test]
fn a_large_preview_delays_no_other_client() {
    let server = Server::start(&["--threads", "1"]);
    // It keeps the one worker busy for seconds.
    let preview = "GET /v1/datasets/shapes/epochs/199/preview.png?n=1024&schedule=cifar10-pba\
                   &base=random_resized_crop:224,flip HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut waits = http::connect(server.address()).unwrap();
    waits.write_all(preview.as_bytes()).unwrap();
    let share = "pba_memory_share_bytes{share=\"answers\"}";
    wait_for("the preview to begin", || (server.metric(share) > 0.0).then_some(()));
    small(&server, OTHER);
    let answered =
        "pba_requests_total{route=\"/v1/datasets/{dataset}/epochs/{epoch}/preview.png\",status=\"200\"}";
    assert_eq!(server.metric(answered), 0.0, "40 images had to wait for the whole preview");
    drop(waits);
    server.assert_healthy();
    assert_eq!(server.metric(answered), 0.0, "the preview was drawn for a client that is gone");
    assert_eq!(server.metric(share), 0.0);
}

/// An image of one colour, whose pixels are many and whose bytes are few.
fn large_png() -> Vec<u8> {
    let side = 4096;
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, side, side);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![77; (side * side * 3) as usize]).unwrap();
    writer.finish().unwrap();
    png
}

/// Asks for so much of one image that it takes a worker several seconds; nothing is read.
fn ask_for_much(server: &Server, png: &[u8]) -> std::net::TcpStream {
    let ops = vec!["Rotate:7"; 30].join(",");
    let mut socket = http::connect(server.address()).unwrap();
    let head = format!(
        "POST /v1/apply?ops={ops} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        png.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(png).unwrap();
    socket
}

#[test]
fn whoever_leaves_does_not_leave_work_behind() {
    let server = Server::start(&["--threads", "2"]);
    let png = large_png();
    let busy = |server: &Server| server.metric("pba_worker_busy_seconds_total");
    // How long one takes on this machine.
    let stays = ask_for_much(&server, &png);
    let answered = "pba_requests_total{route=\"/v1/apply\",status=\"200\"}";
    wait_for("an image", || (server.metric(answered) == 1.0).then_some(()));
    drop(stays);
    let whole = busy(&server);
    // Each leaves when a worker has begun with it.
    for _ in 0..20 {
        let leaves = ask_for_much(&server, &png);
        let received = "pba_memory_share_bytes{share=\"answers\"}";
        wait_for("its turn", || (server.metric(received) > 0.0).then_some(()));
        drop(leaves);
        wait_for("its end", || (server.metric(received) == 0.0).then_some(()));
    }
    let left = busy(&server) - whole;
    assert!(left < 10.0 * whole, "20 that were not waited for took {left} s, and one that was {whole} s");
    server.assert_healthy();
}

#[test]
fn a_server_that_is_told_to_end_leaves_what_takes_long() {
    let mut server = Server::start(&["--threads", "1", "--drain-seconds", "0"]);
    let png = large_png();
    // Many times what a worker does in the seconds that are left.
    let waiting: Vec<_> = (0..30).map(|_| ask_for_much(&server, &png)).collect();
    wait_for("the first to begin", || {
        (server.metric("pba_memory_share_bytes{share=\"answers\"}") > 0.0).then_some(())
    });
    server.process.signal("TERM");
    assert_eq!(server.process.wait().code(), Some(0));
    drop(waiting);
}
