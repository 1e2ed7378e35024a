//! No client takes a wrong sample for a right one: whatever the wire does to a stream or a request, and however
//! two replicas differ.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use pba_client::{Client, ClientError, ClientOptions, EpochRequest, Query};
use pba_tests::epoch::{digest, messages};
use pba_tests::{Download, Server, proxy};
use pba_wire::checksum;

const REQUEST: &str = "split=test&batch_size=50&schedule=cifar10-pba&seed=7&base=pad_crop:4,flip";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn request() -> EpochRequest {
    EpochRequest::from_query(REQUEST).unwrap()
}

/// All batches of an epoch from some replicas.
fn read(urls: &[String], options: &ClientOptions) -> Result<Vec<RecordBatch>, ClientError> {
    runtime().block_on(async {
        let client = Client::with_options(urls, options)?;
        let mut stream = client.epoch("shapes", 150, request()).await?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await? {
            batches.push(batch);
        }
        Ok(batches)
    })
}

#[test]
fn a_flipped_bit_anywhere_changes_no_sample() {
    let server = Server::start(&[]);
    let expected = server.epoch(&format!("shapes/epochs/150/batches?{REQUEST}")).digest();
    let bytes = server.epoch(&format!("shapes/epochs/150/batches?{REQUEST}")).bytes.len() as u64;
    // Close together in the heads, far apart in the bodies.
    let bits = (0..400).map(|n| n * 37).chain((1..60).map(|n| n * bytes * 8 / 60 + n));
    let mut failures = Vec::new();
    for bit in bits {
        let url = proxy::flipping(server.address(), [bit]);
        let options = ClientOptions { stall: std::time::Duration::from_secs(2), ..ClientOptions::default() };
        match read(&[url], &options) {
            Ok(batches) => assert_eq!(digest(&batches), expected, "bit {bit}"),
            Err(error) => failures.push(format!("bit {bit}: {error}")),
        }
    }
    // What was damaged is fetched again, heads and all.
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn unchecked_bytes_are_believed() {
    // That the checksum is what notices: the same damage passes without.
    let server = Server::start(&[]);
    let expected = server.epoch(&format!("shapes/epochs/150/batches?{REQUEST}")).digest();
    let url = || proxy::flipping(server.address(), [8 * 80_000]);
    let unchecked = ClientOptions { checksums: Some(false), ..ClientOptions::default() };
    assert_ne!(digest(&read(&[url()], &unchecked).unwrap()), expected);
    assert_eq!(digest(&read(&[url()], &ClientOptions::default()).unwrap()), expected);
}

/// Answers every request with a stream, and says that it is what `query` asks for, with this schema.
fn answering(query: &str, schema: &[u8], stream: &[u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = checksum::of_request("GET", &format!("/v1/datasets/shapes/epochs/150/batches?{query}"));
    let schema = checksum::of_schema(schema, asked).unwrap();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.apache.arrow.stream\r\npba-request: {asked}\r\n\
         pba-schema: {schema}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        stream.len()
    );
    let answer = [head.as_bytes(), stream].concat();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(&answer);
        }
    });
    url
}

/// Whole messages, each of which is as a server sent it: of the same stream at another place, or of another
/// shard's at the same place.
#[test]
fn a_message_that_belongs_elsewhere_is_noticed() {
    let server = Server::start(&[]);
    let shard = |index: u32| {
        let request = EpochRequest { shard: (index, 2), ..request() }.to_query();
        (server.epoch(&format!("shapes/epochs/150/batches?{request}")), request)
    };
    let [(whole, query), (other, other_query)] = [shard(0), shard(1)];
    let read = |url: String, options: &ClientOptions| {
        let urls = [url, server.url()];
        let request = EpochRequest::from_query(&query).unwrap();
        runtime().block_on(async {
            let client = Client::with_options(urls, options)?;
            let mut stream = client.epoch("shapes", 150, request).await?;
            let mut batches = Vec::new();
            while let Some(batch) = stream.next().await? {
                batches.push(batch);
            }
            Ok::<_, ClientError>((digest(&batches), stream.stats().resumes))
        })
    };
    let (right, others) = (messages(&whole.bytes), messages(&other.bytes));
    let (first, last) = (1, right.len() - 2);
    let mut cases = vec![("all of it", others.clone()), ("its schema", right.clone())];
    cases[1].1[0] = others[0];
    for at in [first, first + 1, last] {
        for (what, message) in [("of another shard", others[at]), ("that comes twice", right[at - 1])] {
            let mut messages = right.clone();
            messages[at] = message;
            cases.push((what, messages));
        }
    }
    // The first one has none before it.
    cases.retain(|(what, messages)| *what != "that comes twice" || messages[first] != right[0]);
    let mut exchanged = right.clone();
    exchanged.swap(first, first + 1);
    cases.push(("exchanged with the next", exchanged));
    let unchecked = ClientOptions { checksums: Some(false), ..ClientOptions::default() };
    for (what, messages) in cases {
        let url = answering(&query, right[0], &messages.concat());
        let (read_digest, _) = read(url.clone(), &ClientOptions::default()).unwrap();
        assert_eq!(read_digest, whole.digest(), "{what}");
        // That the checksum is what notices. A schema by itself changes no sample.
        if what != "its schema" {
            assert_ne!(read(url, &unchecked).unwrap(), (whole.digest(), 0), "{what}");
        }
    }
    let all = answering(&other_query, others[0], &other.bytes);
    assert_eq!(read(all, &ClientOptions::default()).unwrap().0, whole.digest(), "it says so itself");
}

#[test]
fn a_request_that_was_changed_on_its_way_is_noticed() {
    let server = Server::start(&[]);
    for (part, other) in [
        ("batch_size=50", "batch_size=58"),
        ("schedule=cifar10-pba", "schedule=svhn-pba"),
        ("pad_crop%3A4", "pad_crop%3A5"),
        ("split=test", "split=train"),
        ("seed=7", "seed=6"),
        ("epochs/150", "epochs/151"),
    ] {
        let url = proxy::rewriting(server.address(), part, other);
        let error = read(&[url], &ClientOptions::default()).unwrap_err();
        let is_noticed = matches!(error, ClientError::Changed { .. })
            || error.to_string().contains("the answer is to another request");
        assert!(is_noticed, "{other}: {error}");
    }
}

/// The same of a request that the server refuses as it arrived: what was asked is asked of the next one.
#[test]
fn a_refusal_of_another_request_is_not_believed() {
    let server = Server::start(&[]);
    let expected = server.epoch(&format!("shapes/epochs/150/batches?{REQUEST}")).digest();
    for (part, other) in [("batch_size=50", "batch_size=0x"), ("batches?", "batchez?"), ("GET", "PUT")] {
        let url = proxy::rewriting(server.address(), part, other);
        // Of each connection, the first request is rewritten only.
        let options = ClientOptions { retries: 0, ..ClientOptions::default() };
        let error = read(std::slice::from_ref(&url), &options).unwrap_err().to_string();
        assert!(error.contains("the answer is to another request"), "{other}: {error}");
        let batches = read(&[url, server.url()], &options).unwrap();
        assert_eq!(digest(&batches), expected, "{other}");
    }
}

/// Nor is a change taken for the one that was asked for, or a document.
#[test]
fn an_answer_to_another_request_is_not_believed() {
    let server = Server::start(&[]);
    let mut schedule = pba_schedules::library::all().swap_remove(0);
    for name in ["aa", "bb"] {
        schedule = schedule.renamed(name).unwrap();
        let body = pba_schedules::formats::json::write(&schedule);
        assert_eq!(server.send("PUT", &format!("/v1/schedules/{name}"), body.as_bytes()).status, 201);
    }
    let url = proxy::rewriting(server.address(), "schedules/aa", "schedules/bb");
    let says = ["the request was changed on its way: its pba-request is", "nothing was done"];
    pba_tests::pba(&["schedule", "delete", "aa", "--yes", "--server", &url]).refused(1, &says);
    // Of what was changed on its way, nothing is done.
    let listed = server.pba(&["schedule", "list"]).ok();
    assert!(listed.contains("aa") && listed.contains("bb"), "{listed}");
    let body = pba_schedules::formats::json::write(&schedule.renamed("cc").unwrap());
    for (method, name, header) in
        [("DELETE", "aa", "pba-request"), ("PUT", "cc", "pba-request"), ("PUT", "cc", "pba-body")]
    {
        let target = format!("/v1/schedules/{name}");
        let headers = [(header, "0123456789abcdef")];
        let answer =
            Download::open(server.address(), method, &target, &headers, body.as_bytes()).unwrap().finish();
        let problem = answer.problem();
        assert_eq!((answer.status, &*problem.kind), (400, "urn:pba:problem:altered"), "{problem:?}");
        assert!(problem.detail.contains("0123456789abcdef"), "{problem:?}");
    }
    assert_eq!(server.pba(&["schedule", "list"]).ok(), listed);
    let url = proxy::rewriting(server.address(), "schedules/cifar10-pba", "schedules/svhn-pba");
    pba_tests::pba(&["schedule", "export", "cifar10-pba", "--server", &url]).refused(1, &says);
    let url = proxy::rewriting(server.address(), "searches/aa/events", "searches/bb/events");
    let says = ["the answer is to another request"];
    pba_tests::pba(&["search", "watch", "aa", "--server", &url]).refused(1, &says);
}

/// Of the same address, as where a proxy mixes up the answers on a connection.
#[test]
fn an_answer_to_another_body_is_not_believed() {
    let server = Server::start(&[]);
    let [one, other] = [0, 1].map(|at| {
        let schedule = pba_schedules::library::all().swap_remove(at).renamed("again").unwrap();
        pba_schedules::formats::json::write(&schedule)
    });
    let head = format!(
        "PUT /v1/schedules/again HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        one.len()
    );
    let answer = server.raw_open(&[head.as_bytes(), one.as_bytes()]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::new([format!("http://{}", listener.local_addr().unwrap())]).unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.read(&mut [0; 64 << 10]);
            let _ = client.write_all(&answer);
        }
    });
    let put = |body: &str| {
        let body = Some(body.as_bytes().to_vec());
        runtime().block_on(client.request(reqwest::Method::PUT, "/v1/schedules/again", body))
    };
    put(&one).unwrap();
    let error = put(&other).unwrap_err().to_string();
    assert!(
        error.contains("may or may not have been done") && error.contains("is to another body"),
        "{error}"
    );
}

/// Whatever bit is flipped of an answer that is no stream: it is as it was sent, or it is none.
#[test]
fn a_document_is_as_it_was_sent() {
    let server = Server::start(&[]);
    for (path, is_refusal) in [("/v1/datasets", false), ("/v1/schedules/no", true)] {
        let ask = |url: String| {
            let stall = std::time::Duration::from_secs(1);
            let options = ClientOptions { stall, ..ClientOptions::default() };
            let client = Client::with_options([url], &options).unwrap();
            runtime().block_on(client.request(reqwest::Method::GET, path, None))
        };
        let expected = ask(server.url());
        assert_eq!(expected.is_err(), is_refusal);
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let bytes = server.raw_open(&[request.as_bytes()]);
        let mut as_sent = 0;
        for bit in (0..bytes.len() as u64 * 8).step_by(29) {
            match (ask(proxy::flipping(server.address(), [bit])), &expected) {
                (Ok(found), Ok(expected)) if found == *expected => as_sent += 1,
                (Err(ClientError::Refused(found)), Err(ClientError::Refused(expected)))
                    if found == *expected =>
                {
                    as_sent += 1;
                }
                (Ok(found), _) => panic!("bit {bit}: {}", String::from_utf8_lossy(&found)),
                (Err(ClientError::Refused(problem)), _) => panic!("bit {bit}: {problem}"),
                (Err(_), _) => {}
            }
        }
        assert!(as_sent > 0, "{path}: most headers say nothing of what is asked");
    }
}

/// A server of a packed dataset, with a configuration file of its own.
fn replica(packed: &Path, base: &str) -> Server {
    let data = pba_tests::server::data_folder();
    let config = data.path().join("replica.toml");
    let text = format!("[datasets.mine]\npath = {packed:?}\nbase = \"{base}\"\n");
    std::fs::write(&config, text).unwrap();
    Server::start_on(Arc::clone(&data), &["--config", config.to_str().unwrap()])
}

/// Two servers of the same data whose configurations differ; and the one whose data it is.
fn differing_replicas() -> (Server, [Server; 2]) {
    let first = Server::start(&[]);
    let packed = first.data().path().join("datasets");
    let packed =
        std::fs::read_dir(packed).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    let packed = packed.expect("the built-in dataset is packed");
    let replicas = ["pad_crop:4,flip", "pad_crop:2,flip"].map(|base| replica(&packed, base));
    (first, replicas)
}

#[test]
fn the_next_epoch_is_by_the_same_recipe() {
    let (_first, [one, other]) = differing_replicas();
    let cutting = proxy::CuttingProxy::start(one.address());
    let client = Client::new([cutting.url(), other.url()]).unwrap();
    let open = |epoch: u32, request: EpochRequest| {
        runtime().block_on(client.clone().epoch("mine", epoch, request)).map(|_| ())
    };
    let request = |query: &str| EpochRequest::from_query(query).unwrap();
    open(3, request("")).unwrap();
    // The first one is away when the next epoch begins.
    let away = || cutting.plan([proxy::Cut { after: 0, reset: true }]);
    for query in ["", "batch_size=10", "shard=1/2", "start=5&step=3"] {
        away();
        let error = open(4, request(query)).unwrap_err();
        assert!(
            matches!(&error, ClientError::Changed { key, .. } if key == "pba.recipe"),
            "{query}: {error}"
        );
        open(4, request(query)).unwrap();
    }
    // What was never asked for is not compared, nor by another client.
    away();
    open(4, request("seed=1")).unwrap();
    away();
    let another = Client::new([cutting.url(), other.url()]).unwrap();
    runtime().block_on(another.epoch("mine", 4, request(""))).unwrap();
}

#[test]
fn replicas_with_other_configurations_are_not_mixed() {
    let (_first, replicas) = differing_replicas();
    let fields = |server: &Server| {
        let metadata = server.epoch("mine/epochs/3/batches?schedule=none").metadata;
        ["pba.dataset", "pba.schedule", "pba.recipe"].map(|key| metadata[key].clone())
    };
    let [one, other] = [fields(&replicas[0]), fields(&replicas[1])];
    assert_eq!(one[..2], other[..2]);
    assert_ne!(one[2], other[2], "the recipe covers the base");

    let cutting = proxy::CuttingProxy::start(replicas[0].address());
    cutting.plan([proxy::Cut { after: 2_000_000, reset: false }]);
    let urls = [cutting.url(), replicas[1].url()];
    let error = runtime().block_on(async {
        let client = Client::new(&urls).unwrap();
        let mut stream = client.epoch("mine", 3, EpochRequest::default()).await.unwrap();
        loop {
            match stream.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("two replicas were mixed"),
                Err(error) => break error,
            }
        }
    });
    assert!(matches!(&error, ClientError::Changed { key, .. } if key == "pba.recipe"), "{error}");
}

/// Golden digests and the version that streams tell of their pixels change together.
#[test]
fn other_pixels_have_another_version() {
    let is_golden =
        |line: &&str| line.contains("/epochs/") || line.trim().len() > 64 && line.ends_with("\",");
    let golden: String = include_str!("golden.rs").lines().filter(is_golden).collect();
    let digest = pba_schedules::Digest::of(golden).to_string();
    let known = [(1, "97b1914ab7c389e10ee1e1d2c2737284e3069f347bf023e74730d32a2ab8a8cf")];
    assert!(
        known.contains(&(pba_augment::PIXELS_VERSION, digest.as_str())),
        "golden digests have changed ({digest}): raise PIXELS_VERSION, and add a line here"
    );
}
