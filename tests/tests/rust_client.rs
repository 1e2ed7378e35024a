//! The Rust client, whose streams are cut, and whose servers are away, busy, changed or none at all.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use pba_client::{Client, ClientError, ClientOptions, EpochRequest, Query as _};
use pba_tests::proxy::{self, Cut};
use pba_tests::{CuttingProxy, Download, Server, epoch, pba, wait_for};
use reqwest::Method;
use tokio::time::timeout;

const TRAIN: &str = "/v1/datasets/shapes/epochs/0/batches?schedule=cifar10-pba";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// 100 images of the test split in 10 batches, all augmented.
fn small() -> EpochRequest {
    EpochRequest::from_query(
        "split=test&shuffle=true&schedule=cifar10-pba&shard=3/20&batch_size=10&base=pad_crop:4,flip,cutout:16",
    )
    .unwrap()
}

const SMALL_EPOCH: u32 = 150;

fn small_target() -> String {
    format!("shapes/epochs/{SMALL_EPOCH}/batches?{}", small().to_query())
}

/// Reads the small epoch through our client: the batches, and how often it resumed.
fn read(urls: &[String]) -> Result<(Vec<RecordBatch>, u32), ClientError> {
    runtime().block_on(async {
        let mut stream = Client::new(urls)?.epoch("shapes", SMALL_EPOCH, small()).await?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await? {
            batches.push(batch);
        }
        Ok((batches, stream.stats().resumes))
    })
}

#[test]
fn resuming_at_each_batch() {
    let server = Server::start(&[]);
    let whole = server.epoch(&small_target());
    for start in 0..=whole.batches.len() {
        let rest = server.epoch(&format!("{}&start={start}", small_target()));
        assert_eq!(epoch::digest(&rest.batches), epoch::digest(&whole.batches[start..]), "start={start}");
        assert_eq!(rest.metadata["pba.dataset"], whole.metadata["pba.dataset"]);
    }
    // The last one had nothing to resume.
    assert_eq!(server.metric("pba_resumes_total"), whole.batches.len() as f64 - 1.0);
}

#[test]
fn a_stream_cut_at_any_byte_is_continued() {
    let server = Server::start(&[]);
    let whole = server.epoch(&small_target());
    let proxy = CuttingProxy::start(server.address());
    let urls = [proxy.url(), proxy.url()];
    // In the answer's head, the schema, the first batch's header, all over the pixels, and at the end.
    let end = whole.bytes.len() as u64 + 700;
    let positions = (0..2500).step_by(41).chain((2500..end).step_by(3989)).chain(end - 700..end);
    let positions: Vec<u64> = positions.collect();
    for (number, &after) in positions.iter().enumerate() {
        // The last hundreds of bytes matter one by one, but not that much.
        if after > end - 700 && number % 9 > 0 {
            continue;
        }
        proxy.plan([Cut { after, reset: number % 2 == 1 }]);
        let (batches, _) = read(&urls).unwrap_or_else(|error| panic!("cut after {after} bytes: {error}"));
        assert_eq!(batches.len(), whole.batches.len(), "cut after {after} bytes");
        assert_eq!(epoch::digest(&batches), whole.digest(), "cut after {after} bytes");
    }
    server.assert_healthy();
}

#[test]
fn a_stream_cut_again_and_again_is_continued() {
    let server = Server::start(&[]);
    let whole = server.epoch(&small_target());
    let proxy = CuttingProxy::start(server.address());
    // Each connection brings one batch and a half.
    proxy.plan((0..20).map(|number| Cut { after: 46_000 + 1200, reset: number % 2 == 0 }));
    let (batches, resumes) = read(&[proxy.url()]).unwrap();
    assert_eq!(epoch::digest(&batches), whole.digest());
    assert_eq!(resumes, 9, "{} connections", proxy.connections());
}

/// One replica gives up after six attempts; two are tried as often each.
#[test]
fn more_replicas_are_no_less_patience() {
    let server = Server::start(&[]);
    let whole = server.epoch(&small_target());
    let proxy = CuttingProxy::start(server.address());
    let cuts = [100_000].into_iter().chain([0; 8]);
    proxy.plan(cuts.map(|after| Cut { after, reset: false }));
    let (batches, resumes) = read(&[proxy.url(), proxy.url()]).unwrap();
    assert_eq!((epoch::digest(&batches), resumes), (whole.digest(), 9));
}

#[test]
fn a_stream_that_cannot_go_on_says_so() {
    let server = Server::start(&[]);
    let proxy = CuttingProxy::start(server.address());
    proxy.plan(
        std::iter::once(Cut { after: 100_000, reset: false })
            .chain((0..20).map(|_| Cut { after: 0, reset: false })),
    );
    let Err(error) = read(&[proxy.url()]) else { panic!("it cannot have come whole") };
    let ClientError::Cut { received, expected, attempts, .. } = &error else { panic!("{error}") };
    assert_eq!((*expected, *attempts), (10, 6));
    assert!((1..10).contains(received));
    assert!(error.to_string().contains("of 10 batches"), "{error}");
    server.assert_healthy();
    // As often as a client is told.
    for retries in [0, 2, 7] {
        let cuts = [100_000].into_iter().chain([0; 99]);
        proxy.plan(cuts.map(|after| Cut { after, reset: false }));
        let options = ClientOptions { retries, ..ClientOptions::default() };
        let before = proxy.connections();
        let error = runtime().block_on(async {
            let client = Client::with_options([proxy.url()], &options).unwrap();
            let mut stream = client.epoch("shapes", SMALL_EPOCH, small()).await.unwrap();
            loop {
                match stream.next().await {
                    Ok(batch) => assert!(batch.is_some(), "it cannot have come whole"),
                    Err(error) => break error,
                }
            }
        });
        assert!(matches!(error, ClientError::Cut { attempts, .. } if attempts == retries), "{error}");
        assert_eq!(proxy.connections() - before, 1 + retries as usize);
    }
}

#[test]
fn a_replica_killed_in_the_middle_of_an_epoch() {
    let replicas = [Server::start(&[]), Server::start(&[])];
    let whole = replicas[0].epoch("shapes/epochs/150/batches?schedule=cifar10-pba").digest();
    let urls = [replicas[0].url(), replicas[1].url()];
    let [mut first, second] = replicas;
    let batches = runtime().block_on(async {
        let request = EpochRequest { schedule: Some("cifar10-pba".to_owned()), ..EpochRequest::default() };
        let mut stream = Client::new(&urls).unwrap().epoch("shapes", 150, request).await.unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await.unwrap() {
            batches.push(batch);
            if batches.len() == 3 {
                first.process.signal("KILL");
                first.process.wait();
            }
        }
        assert_eq!(stream.stats().resumes, 1);
        batches
    });
    assert_eq!(epoch::digest(&batches), whole);
    assert_eq!(second.metric("pba_resumes_total"), 1.0);
    // A new epoch begins on the server that is there.
    let (batches, _) = read(&urls).unwrap();
    assert_eq!(epoch::digest(&batches), second.epoch(&small_target()).digest());
    second.assert_healthy();
}

#[test]
fn a_full_or_draining_replica_is_passed_over() {
    let full = Server::start(&["--streams-max", "1"]);
    let _taken = Download::open_narrow(full.address(), TRAIN).unwrap();
    let draining = Server::start(&[]);
    let _running = Download::open_narrow(draining.address(), TRAIN).unwrap();
    draining.process.signal("TERM");
    wait_for("the replica to drain", || (draining.get("/readyz").status == 503).then_some(()));
    let free = Server::start(&[]);
    let (batches, _) = read(&[full.url(), draining.url(), free.url()]).unwrap();
    assert_eq!(epoch::digest(&batches), free.epoch(&small_target()).digest());
}

#[test]
fn a_replica_with_other_data_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("mine/test.parquet");
    let serve = |images: u32| {
        pba_tests::parquet_files::write(&path, &pba_tests::parquet_files::images(images));
        Server::start(&["--dataset", &format!("mine={}", data.path().join("mine").display())])
    };
    let (first, second) = (serve(2000), serve(1999));
    let proxy = CuttingProxy::start(first.address());
    proxy.plan([Cut { after: 2_000_000, reset: false }]);
    let request = EpochRequest::from_query("split=test&batch_size=100").unwrap();
    let error = runtime().block_on(async {
        let urls = [proxy.url(), second.url()];
        let mut stream = Client::new(&urls).unwrap().epoch("mine", 0, request).await.unwrap();
        loop {
            match stream.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("two datasets were mixed"),
                Err(error) => break error,
            }
        }
    });
    assert!(matches!(&error, ClientError::Changed { key, .. } if key == "pba.dataset"), "{error}");
}

#[test]
fn a_continuation_that_was_given_up_is_still_checked() {
    let server = Server::start(&[]);
    // The continuation has other images, and its schema is late.
    let other = proxy::rewriting(server.address(), "schedule=cifar10-pba", "schedule=svhn-pba");
    let late = CuttingProxy::start(other.strip_prefix("http://").unwrap().parse().unwrap());
    late.plan([Cut { after: 700, reset: false }]);
    late.hang();
    let first = CuttingProxy::start(server.address());
    first.plan([Cut { after: 2_000_000, reset: false }]);
    let query = "split=test&batch_size=100&schedule=cifar10-pba";
    let request = EpochRequest::from_query(query).unwrap();
    let batches = runtime().block_on(async {
        let urls = [first.url(), late.url()];
        let mut stream = Client::new(&urls).unwrap().epoch("shapes", 3, request).await.unwrap();
        let mut batches = Vec::new();
        loop {
            match timeout(Duration::from_millis(500), stream.next()).await {
                Err(_) if late.connections() > 0 => late.go_on(),
                Err(_) => {}
                Ok(batch) => match batch.unwrap() {
                    Some(batch) => batches.push(batch),
                    None => break batches,
                },
            }
        }
    });
    let whole = server.epoch(&format!("shapes/epochs/3/batches?{query}"));
    assert_eq!(epoch::digest(&batches), whole.digest(), "two epochs were mixed");
}

/// From the beginning, or from the cut on.
#[test]
fn other_batches_than_were_asked_for_are_not_taken() {
    let server = Server::start(&[]);
    let query = "split=test&batch_size=100&seed=7";
    let expected = server.epoch(&format!("shapes/epochs/3/batches?{query}")).digest();
    let request = EpochRequest::from_query(query).unwrap();
    for (part, other) in [
        ("/epochs/3/", "/epochs/4/"),
        ("seed=7", "seed=8"),
        ("start=", "epochs="),
        ("split=test", "split=train"),
        ("batch_size=100", "batch_size=99"),
        ("/batches?", "/batches?base=random_resized_crop:8&"),
    ] {
        let second = proxy::rewriting(server.address(), part, other);
        let first = CuttingProxy::start(server.address());
        first.plan([Cut { after: 2_000_000, reset: false }]);
        let (batches, resumes) = runtime().block_on(async {
            let client = Client::new([first.url(), second.clone()]).unwrap();
            let mut stream = client.epoch("shapes", 3, request.clone()).await.unwrap();
            let mut batches = Vec::new();
            while let Some(batch) = stream.next().await.unwrap() {
                batches.push(batch);
            }
            (batches, stream.stats().resumes)
        });
        assert_eq!((epoch::digest(&batches), resumes), (expected.clone(), 2), "{other}");
        if part != "start=" {
            let options = ClientOptions { retries: 0, ..ClientOptions::default() };
            let client = Client::with_options([second], &options).unwrap();
            let error = runtime().block_on(client.epoch("shapes", 3, request.clone())).map(drop).unwrap_err();
            assert!(error.to_string().contains("the answer is to another request"), "{other}: {error}");
        }
    }
}

#[test]
fn a_server_that_falls_silent_is_left() {
    let server = Server::start(&[]);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let stopping = CuttingProxy::start(server.address());
    stopping.plan([Cut { after: 100_000, reset: false }]);
    stopping.hang();
    let options = ClientOptions { stall: Duration::from_millis(500), ..ClientOptions::default() };
    let (batches, resumes) = runtime().block_on(async {
        let urls = [silent, stopping.url(), server.url()];
        let client = Client::with_options(urls, &options).unwrap();
        let mut stream = client.epoch("shapes", SMALL_EPOCH, small()).await.unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await.unwrap() {
            batches.push(batch);
        }
        (batches, stream.stats().resumes)
    });
    assert_eq!((epoch::digest(&batches), resumes), (server.epoch(&small_target()).digest(), 1));
}

/// Answers every request with the same. Ends with the test process.
fn answering(head: &'static str, body: &'static [u8]) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let count = client.read(&mut request).unwrap_or_default();
            let mut answer = [head.as_bytes(), body].concat();
            if head.contains("application/problem+json") {
                answer = proxy::signed(&request[..count], &answer);
            }
            let _ = client.write_all(&answer);
        }
    });
    url
}

#[test]
fn what_is_no_answer_of_a_server_is_refused() {
    let page = answering("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n", b"hello");
    let stream = answering(
        "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.apache.arrow.stream\r\nconnection: close\r\n\r\n",
        b"\xff\xff\xff\xff\x10\0\0\0\x0c\0\0\0\xff\xff\xff\x7f\xff\xff\xff\x7f\xff\xff\xff\x7f",
    );
    for (url, says) in [(page.clone(), "not an Arrow stream"), (stream, "not what the server promised")] {
        let opened = runtime().block_on(Client::new([url]).unwrap().epoch("shapes", 3, small()));
        let error = opened.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let says = ["the answer has no pba-request: it is not a PBA server"];
    pba(&["dataset", "list", "--server", &page]).refused(1, &says);
    pba(&["schedule", "delete", "x", "--server", &page]).refused(1, &says);
    pba(&["search", "watch", "x", "--server", &page]).refused(1, &["not a stream of events"]);
    pba(&["dataset", "preview", "shapes", "--server", &page]).refused(1, &says);
}

/// Answers every request with a problem.
fn refusing(status: u16, detail: &str) -> String {
    let body = format!(r#"{{"type":"urn:pba:problem:t","title":"t","status":{status},"detail":"{detail}"}}"#);
    let head = format!(
        "HTTP/1.1 {status} No\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    answering(head.leak(), body.leak().as_bytes())
}

/// At the beginning, after a cut, and for what is no stream.
#[test]
fn a_replica_that_has_not_what_others_have_is_passed_over() {
    let server = Server::start(&[]);
    let without = [
        refusing(404, "no dataset"),
        refusing(422, "it is broken"),
        refusing(507, "full"),
        refusing(500, "oh"),
    ];
    let proxy = CuttingProxy::start(server.address());
    proxy.plan([Cut { after: 100_000, reset: false }, Cut { after: 0, reset: false }]);
    let urls: Vec<String> = without.iter().cloned().chain([proxy.url()]).collect();
    let (batches, resumes) = read(&urls).unwrap();
    assert_eq!((epoch::digest(&batches), resumes), (server.epoch(&small_target()).digest(), 10));
    let client = Client::new(urls).unwrap();
    let listed = runtime().block_on(client.request(Method::GET, "/v1/schedules", None)).unwrap();
    assert!(String::from_utf8(listed).unwrap().contains("cifar10-pba"));
}

#[test]
fn what_no_replica_has_is_refused_by_name() {
    let server = Server::start(&[]);
    let without = [refusing(404, "no dataset"), refusing(422, "it is broken")];
    let told = format!("{}: no dataset; {}: it is broken", without[0], without[1]);
    for after in [0, 100_000] {
        // It has begun elsewhere, and that has lost it since.
        let proxy = CuttingProxy::start(server.address());
        proxy.plan(
            std::iter::once(Cut { after, reset: false })
                .chain((0..99).map(|_| Cut { after: 0, reset: false })),
        );
        let urls = without.iter().cloned().chain((after > 0).then(|| proxy.url()));
        let error = read(&urls.collect::<Vec<_>>()).map(|_| ()).unwrap_err();
        match &error {
            ClientError::Refused(problem) if after == 0 => {
                assert_eq!((problem.status, &problem.detail), (404, &told))
            }
            // That one may come back.
            ClientError::Cut { reason, .. } if after > 0 => assert!(reason.contains(&told), "{reason}"),
            _ => panic!("{error:?}"),
        }
    }
    // That the request is wrong, all would say.
    let other = CuttingProxy::start(server.address());
    let error = read(&[refusing(400, "no such batch size"), other.url()]).map(|_| ()).unwrap_err();
    assert!(
        matches!(&error, ClientError::Refused(problem) if problem.detail == "no such batch size"),
        "{error}"
    );
    assert_eq!(other.connections(), 0);
}

/// Answers every request with a problem of status 503.
fn unavailable(retry_after: u32, kind: &str) -> String {
    let body = format!(r#"{{"type":"{kind}","title":"t","status":503,"detail":"come again"}}"#);
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\
         retry-after: {retry_after}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    answering(head.leak(), body.leak().as_bytes())
}

#[test]
fn an_import_is_waited_for_at_the_pace_of_the_server_and_nothing_else() {
    let importing = unavailable(3, pba_wire::problem::IMPORTING);
    let proxy = CuttingProxy::start(importing.strip_prefix("http://").unwrap().parse().unwrap());
    let waiting = Client::new([NOBODY.to_owned(), proxy.url()]).unwrap();
    let others = Client::new([unavailable(9999, "urn:pba:problem:full")]).unwrap();
    let (waiting, refused) = runtime().block_on(async {
        let waiting = timeout(Duration::from_secs(8), waiting.epoch("shapes", 3, small()));
        tokio::join!(waiting, others.epoch("shapes", 3, small()))
    });
    assert!(waiting.is_err(), "the import has not ended");
    assert!((2..=3).contains(&proxy.connections()), "{} requests", proxy.connections());
    assert!(matches!(refused, Err(ClientError::Refused(problem)) if problem.detail == "come again"));
}

#[test]
fn a_cut_stream_outlasts_an_import() {
    let server = Server::start(&[]);
    let proxy = CuttingProxy::start(server.address());
    // More cuts than the attempts at a replica.
    let cuts = [100_000].into_iter().chain([0; 8]);
    proxy.plan(cuts.map(|after| Cut { after, reset: false }));
    let (start, importing) = (Instant::now(), unavailable(0, pba_wire::problem::IMPORTING));
    let (batches, resumes) = read(&[proxy.url(), importing]).unwrap();
    assert_eq!((epoch::digest(&batches), resumes), (server.epoch(&small_target()).digest(), 9));
    assert!(start.elapsed() > Duration::from_secs(8), "it asks at most once a second");
}

/// Answers every request as a proxy does whose server is away.
fn bad_gateway() -> String {
    answering(
        "HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: 28\r\n\r\n",
        b"<html>502 Bad Gateway</html>",
    )
}

#[test]
fn a_change_that_reached_a_server_is_not_sent_to_another() {
    let server = Server::start(&[]);
    let schedule = pba_schedules::library::all().remove(0);
    let body = pba_schedules::formats::json::write(&schedule).into_bytes();
    let cut = answering("HTTP/1.1 201 Created\r\ncontent-length: 100\r\nconnection: close\r\n\r\n", b"{");
    for first in [cut, answering("", b"")] {
        let client = Client::new([first.clone(), server.url()]).unwrap();
        let put = client.request(Method::PUT, "/v1/schedules/again", Some(body.clone()));
        let error = runtime().block_on(put).unwrap_err();
        assert!(matches!(&error, ClientError::Unanswered { url, .. } if *url == first), "{error:?}");
        let says = format!("{first} did not answer PUT /v1/schedules/again, so it may or may not have been");
        assert!(error.to_string().starts_with(&says), "{error}");
        assert!(!server.pba(&["schedule", "list"]).ok().contains("again"));
        // A client that only reads asks the next one.
        let listed = runtime().block_on(client.request(Method::GET, "/v1/schedules", None)).unwrap();
        assert!(String::from_utf8(listed).unwrap().contains("cifar10-pba"));
    }
    // One that was never reached has not made it.
    let client = Client::new([NOBODY.to_owned(), server.url()]).unwrap();
    let put = client.request(Method::PUT, "/v1/schedules/again", Some(body));
    runtime().block_on(put).unwrap();
    assert!(server.pba(&["schedule", "list"]).ok().contains("again"));
}

/// A URL where no server listens.
const NOBODY: &str = "http://127.0.0.1:1";

#[test]
fn replicas_that_are_away_are_all_named() {
    let silent = answering("", b"");
    let client = Client::new([NOBODY, &silent, "http://127.0.0.1:2"]).unwrap();
    let listed = runtime().block_on(client.request(Method::GET, "/v1/schedules", None)).unwrap_err();
    let opened = runtime().block_on(client.epoch("shapes", 3, small())).map(|_| ()).unwrap_err();
    for error in [listed.to_string(), opened.to_string()] {
        let told: Vec<&str> = error.split("; ").filter(|told| told.contains("http://")).collect();
        assert!(told[0].starts_with("cannot reach http://127.0.0.1:1: "), "{error}");
        assert!(told[1].starts_with(&format!("{silent} did not answer GET /v1/")), "{error}");
        assert!(told[2].starts_with("cannot reach http://127.0.0.1:2: "), "{error}");
    }
}

#[test]
fn a_proxy_whose_server_is_away_is_passed_over() {
    let server = Server::start(&[]);
    let proxy = CuttingProxy::start(server.address());
    proxy.plan([Cut { after: 100_000, reset: true }]);
    let (batches, resumes) = read(&[proxy.url(), bad_gateway(), server.url()]).unwrap();
    assert_eq!(epoch::digest(&batches), server.epoch(&small_target()).digest());
    assert_eq!(resumes, 2);
    let Err(error) = read(&[bad_gateway()]) else { panic!("no server answers") };
    assert!(error.to_string().contains("502"), "{error}");
}
