//! What clients make the server hold is bounded, and clients that are served go on at the bound.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::Path;

use pba_client::{Client, EpochRequest, Query};
use pba_tests::server::data_folder;
use pba_tests::{Download, Epoch, Server, http, parquet_files, wait_for};
use serde_json::json;

const IN_FLIGHT: &str = "pba_memory_in_flight_bytes";

fn target(query: &str) -> String {
    format!("/v1/datasets/shapes/epochs/0/batches?schedule=cifar10-pba&{query}")
}

/// A client of this machine.
fn client(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, number).into()
}

/// A field of what the kernel says of the server's memory, in bytes.
fn memory(server: &Server, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() * 1024.0
}

/// Memory of the server that is its own, in bytes.
fn resident(server: &Server) -> f64 {
    // Pages of datasets, which the kernel takes back when it needs them, are no part of it.
    memory(server, "RssAnon:") + memory(server, "RssShmem:")
}

/// Ends the server if it ever asks the kernel for so much memory more than it has now.
fn limit(server: &Server, bytes: f64) {
    let bytes = Some((memory(server, "VmData:") + bytes) as u64);
    let server = rustix::process::Pid::from_raw(server.process.id() as i32);
    let limit = rustix::process::Rlimit { current: bytes, maximum: bytes };
    rustix::process::prlimit(server, rustix::process::Resource::Data, limit).unwrap();
}

/// Begins a request with a body, and never ends it.
fn unfinished(server: &Server, length: usize, sent: usize) -> TcpStream {
    let mut socket = http::connect(server.address()).unwrap();
    let head = format!(
        "PUT /v1/schedules/x HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    // The server may refuse it, and close.
    let _ = socket.write_all(&vec![b' '; sent]);
    socket
}

#[test]
fn everybody_who_takes_all_that_there_is() {
    const MEMORY: f64 = (96 << 20) as f64;
    let bound = format!("{MEMORY}");
    let server = Server::start(&["--threads", "2", "--memory-bytes-max", &bound]);
    // One that is served before it becomes narrow.
    let mut modest =
        Download::open_narrow_from(client(9), server.address(), &target("batch_size=100")).unwrap();
    let sip = modest.sip(10_000);
    server.epoch("shapes/epochs/0/batches");
    let before = resident(&server);
    // Beside the memory in flight: a few threads' stacks and heaps, connections, and what lies between.
    limit(&server, MEMORY + 96e6);
    let mut worst = 0.0_f64;
    let mut look = || {
        let (taken, now) = (server.metric(IN_FLIGHT), resident(&server));
        assert!(taken <= MEMORY, "{taken} bytes are in flight");
        // What is not in flight: connections, and workers.
        assert!(now <= before + MEMORY + 32e6, "{now} bytes resident, {before} before");
        worst = worst.max(now - before);
    };
    // Streams of one huge batch, 30.9 MB, that are not read: some of one client, then of others.
    let huge = |number| {
        Download::open_narrow_from(client(number), server.address(), &target("batch_size=65536")).unwrap()
    };
    let mut unread = Vec::new();
    for (number, status) in [(2, 200), (2, 429), (3, 200), (3, 429), (4, 200), (5, 429), (6, 429)] {
        let stream = huge(number);
        assert_eq!(stream.status, status, "client {number}");
        match status {
            200 => unread.push(stream),
            _ => {
                let refused = stream.finish();
                assert_eq!(refused.problem().kind, "urn:pba:problem:memory");
                assert_eq!(refused.header("retry-after"), Some("1"));
                assert!(refused.problem().detail.contains("memory_bytes_max"), "{}", refused.text());
            }
        }
        look();
    }
    let of_client = "pba_refused_total{reason=\"memory_per_client\"}";
    assert!((1.0..=2.0).contains(&server.metric(of_client)), "{}", server.metric(of_client));
    // Bodies that never end.
    let bodies: Vec<_> = (0..60).map(|_| unfinished(&server, 4 << 20, 3 << 20)).collect();
    wait_for("a body to be refused", || {
        look();
        (server.metric("pba_refused_total{reason=\"memory_of_bodies\"}") > 0.0).then_some(())
    });
    // Sheets that are not read.
    let sheets: Vec<_> = (0..30)
        .map(|_| {
            look();
            Download::open_narrow_from(
                client(7),
                server.address(),
                "/v1/datasets/shapes/epochs/0/preview.png?n=64",
            )
            .unwrap()
        })
        .collect();
    look();
    assert_eq!(server.get("/livez").status, 200);
    assert_eq!(server.get("/metrics").status, 200);
    // Who was there before goes on to the end.
    let mut body = sip;
    let rest = modest.finish();
    assert!(rest.complete, "a stream was harmed by others");
    body.extend(rest.body);
    assert_eq!(Epoch::decode(body).indices().len(), 10_000);
    look();
    println!("{worst} bytes more than before, of {MEMORY}");
    drop((unread, bodies, sheets));
    wait_for("all of it to come back", || {
        (server.metric("pba_memory_share_bytes{share=\"bodies\"}") == 0.0
            && server.metric("pba_memory_share_bytes{share=\"answers\"}") == 0.0)
            .then_some(())
    });
    server.assert_healthy();
    assert_eq!(huge(2).status, 200);
}

#[test]
fn a_stream_with_memory_for_one_batch_goes_on_with_the_same_bytes() {
    let roomy = Server::start(&[]);
    let narrow = Server::start(&["--memory-bytes-max", "16777216", "--threads", "2"]);
    // 9.3 MB, more than half of all; the last one is short. The second is compressed, for which it is there three times.
    for (query, accept) in [
        ("batch_size=3000&schedule=cifar10-pba", "*/*"),
        ("batch_size=800&schedule=cifar10-pba", "application/vnd.apache.arrow.stream; codecs=\"zstd\""),
    ] {
        let target = format!("shapes/epochs/7/batches?{query}");
        let headers = [("accept", accept)];
        let expected = roomy.epoch_with(&target, &headers);
        for _ in 0..3 {
            assert!(narrow.epoch_with(&target, &headers).bytes == expected.bytes, "other bytes of {query}");
        }
    }
    narrow.assert_healthy();
}

#[test]
fn what_can_never_fit_is_refused_by_name() {
    let server = Server::start(&["--memory-bytes-max", "16777216"]);
    let refused = server.get(&target("batch_size=10000"));
    let problem = refused.problem();
    assert_eq!((refused.status, problem.parameter.as_deref()), (400, Some("batch_size")));
    assert!(problem.detail.contains("memory_bytes_max"), "{problem:?}");
    let refused = server.get("/v1/datasets/shapes/epochs/0/preview.png?n=1024");
    assert_eq!((refused.status, refused.problem().parameter.as_deref()), (400, Some("n")));
    let refused = server.send("PUT", "/v1/schedules/x", &vec![b' '; 3 << 20]);
    assert_eq!(refused.status, 413);
    // An image whose pixels take more than all answers may.
    let refused = server.send("POST", "/v1/apply?op=Invert", &parquet_files::png(512, 400, 1));
    let problem = refused.problem();
    assert_eq!((refused.status, problem.kind.as_str()), (413, "urn:pba:problem:too-large"), "{problem:?}");
    assert!(problem.detail.contains("16777216 (memory_bytes_max)"), "{problem:?}");
    server.assert_healthy();
}

/// A document whose provenance is a list of as many numbers.
fn document(name: &str, numbers: usize) -> String {
    let pairs = ["[0,0]"; 30].join(",");
    let ops = pba_schedules::Op::PAPER.map(|op| format!("{:?}", op.name())).join(",");
    let numbers = vec!["0"; numbers].join(",");
    format!(
        "{{\"format\":\"pba-schedule/1\",\"name\":{name:?},\"epochs\":3,\"ops\":[{ops}],\
         \"segments\":[{{\"epochs\":3,\"policy\":[{pairs}]}}],\"provenance\":{{\"a\":[{numbers}]}}}}"
    )
}

#[test]
fn what_is_small_as_text_takes_no_more_as_a_schedule() {
    let server = Server::start(&[]);
    // Each number would take 70 bytes if it were kept as a value: 36 MB of each schedule.
    limit(&server, 150e6);
    let put = |name: &str, text: &str| {
        server.send("PUT", &format!("/v1/schedules/{name}?epochs=9"), text.as_bytes())
    };
    let before = resident(&server);
    for number in 0..12 {
        let name = format!("s{number}");
        let document = document(&name, 500_000);
        let added = server.send("PUT", &format!("/v1/schedules/{name}"), document.as_bytes());
        assert_eq!(added.status, 201, "{}", added.text());
    }
    let kept = resident(&server) - before;
    assert!(kept < 60e6, "{kept} bytes are kept of 12 MB");
    // What is refused takes no more before it is.
    let large = put("large", &document("large", 6_000_000));
    assert_eq!(large.status, 413, "{}", large.text());
    assert!(large.problem().detail.contains("schedule_bytes_max"), "{}", large.text());
    let line = put("log", &format!("[{}0]", "0,".repeat(6_000_000)));
    assert_eq!(line.status, 400, "{}", line.text());
    assert!(line.problem().detail.contains("a list of 6000001 entries"), "{}", line.text());
    let again = server.get("/v1/schedules/s0");
    assert_eq!((again.status, again.body.len() > 1_000_000), (200, true));
    server.assert_healthy();
}

/// Searches that have failed, with long reasons: of 100 KB each.
fn write_searches(data: &Path, count: usize) {
    for number in 0..count {
        let name = format!("s{number}");
        let spec = json!({ "name": name, "dataset": "shapes", "model": "tiny" });
        let entry = json!({
            "spec": spec, "source": "shapes", "created": 1, "state": "failed", "seconds": 0.0,
            "error": "x".repeat(100_000),
        });
        let folder = data.join("searches").join(&name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("search.json"), entry.to_string()).unwrap();
    }
}

#[test]
fn a_list_that_is_too_long_is_refused_before_it_takes_memory() {
    let data = data_folder();
    write_searches(data.path(), 400);
    let server = Server::start_on(data, &["--memory-bytes-max", "64000000"]);
    let one = server.get("/v1/searches/s7");
    assert_eq!((one.status, one.body.len() > 100_000), (200, true), "{}", one.text());
    let before = memory(&server, "VmHWM:");
    let list = server.get("/v1/searches");
    assert_eq!(
        (list.status, list.problem().kind.as_str()),
        (413, "urn:pba:problem:too-large"),
        "{}",
        list.text()
    );
    assert!(list.problem().detail.contains("memory_bytes_max"), "{}", list.text());
    let taken = memory(&server, "VmHWM:") - before;
    assert!(taken < 8e6, "{taken} bytes were taken for an answer of 40 MB that is refused");
    server.assert_healthy();
}

#[test]
fn long_names_of_classes_count_for_each_stream() {
    // 6 MB of them, more than the kernel buffers for a client that takes nothing.
    let folder = tempfile::tempdir().unwrap();
    let class = |number: u32| folder.path().join(format!("train/{number:05}{}", "c".repeat(235)));
    (0..25_000).for_each(|number| std::fs::create_dir_all(class(number)).unwrap());
    std::fs::write(class(7).join("a.png"), parquet_files::png(32, 32, 1)).unwrap();
    let dataset = format!("mine={}", folder.path().display());
    let server = Server::start(&["--dataset", &dataset, "--memory-bytes-max", "64000000"]);
    let open = |number| {
        let target = "/v1/datasets/mine/epochs/0/batches?schedule=none";
        Download::open_narrow_from(client(number), server.address(), target).unwrap()
    };
    let mut unread = Vec::new();
    let refused = (2..22).find_map(|number| {
        let stream = open(number);
        match stream.status {
            200 => unread.push(stream),
            _ => return Some(stream.finish()),
        }
        None
    });
    let refused = refused.expect("20 streams with names of 6 MB each fit in 64 MB");
    assert_eq!((refused.status, refused.problem().kind.as_str()), (429, "urn:pba:problem:memory"));
    assert!(unread.len() > 3, "{} streams", unread.len());
    assert!(server.metric(IN_FLIGHT) > 6e6 * unread.len() as f64);
    drop(unread);
    wait_for("the streams to end", || (server.metric(IN_FLIGHT) < 1e6).then_some(()));
    let whole = server.get("/v1/datasets/mine/epochs/0/batches?schedule=none");
    assert!(whole.complete && whole.body.len() > 6_000_000);
    server.assert_healthy();
}

#[test]
fn shared_memory_that_a_client_keeps_stays_reserved() {
    let socket = tempfile::tempdir().unwrap();
    let path = socket.path().join("s").display().to_string();
    // Room for the memory of one such stream: 20 batches of 100 images.
    let server = Server::start(&["--socket", &path, "--shared-memory-bytes-max", "4000000"]);
    let request = || EpochRequest::from_query("split=test&schedule=cifar10-pba&batch_size=100").unwrap();
    let (running, kept) = ("pba_shared_memory_bytes", "pba_shared_memory_kept_bytes");
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let client = Client::new([format!("unix:{path}")]).unwrap();
        let mut first = client.epoch("shapes", 0, request()).await.unwrap();
        assert!(first.stats().shares_memory);
        let batch = first.next().await.unwrap().unwrap();
        drop(first);
        wait_for("the stream to end", || (server.metric(running) == 0.0).then_some(()));
        assert!(server.metric(kept) > 1e6, "the client has a batch of it");
        // It cannot be had twice.
        let second = client.epoch("shapes", 0, request()).await.unwrap();
        assert!(!second.stats().shares_memory);
        drop(second);
        drop(batch);
        wait_for("the memory to come back", || (server.metric(kept) == 0.0).then_some(()));
        assert!(client.epoch("shapes", 0, request()).await.unwrap().stats().shares_memory);
    });
    server.assert_healthy();
}

#[test]
fn batches_of_many_parts_through_shared_memory() {
    let socket = tempfile::tempdir().unwrap();
    let path = socket.path().join("s").display().to_string();
    let server = Server::start(&["--socket", &path, "--threads", "4"]);
    // Of 2,000 images; 1,100 and 900: several workers write into one slot, the second time not all of it.
    for size in [2000, 1100] {
        let query = format!("split=test&shuffle=true&schedule=cifar10-pba&batch_size={size}");
        let expected = server.epoch(&format!("shapes/epochs/150/batches?{query}")).digest();
        let batches =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let client = Client::new([format!("unix:{path}")]).unwrap();
                let request = EpochRequest::from_query(&query).unwrap();
                let mut stream = client.epoch("shapes", 150, request).await.unwrap();
                assert!(stream.stats().shares_memory);
                let mut batches = Vec::new();
                while let Some(batch) = stream.next().await.unwrap() {
                    batches.push(batch);
                }
                batches
            });
        assert_eq!(pba_tests::epoch::digest(&batches), expected);
    }
    server.assert_healthy();
}
