//! What the Rust client outlasts: answers that no PBA server sends, and outages in the middle of a run.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use arrow_array::RecordBatch;
use pba_client::{Client, ClientError, ClientOptions, EpochRequest, Query as _};
use pba_tests::epoch::digest;
use pba_tests::proxy::{self, Cut};
use pba_tests::{CuttingProxy, Server};

const REQUEST: &str = "split=test&batch_size=10&shard=3/20&schedule=cifar10-pba";
const STREAM: &str = "application/vnd.apache.arrow.stream";
const PROBLEM: &str = "application/problem+json";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn client(urls: &[String], retries: u32) -> Client {
    Client::with_options(urls, &ClientOptions { retries, ..ClientOptions::default() }).unwrap()
}

/// The digest of an epoch's batches.
fn read(client: &Client, epoch: u32) -> Result<String, ClientError> {
    runtime().block_on(async {
        let mut stream = client.epoch("shapes", epoch, EpochRequest::from_query(REQUEST).unwrap()).await?;
        let mut batches: Vec<RecordBatch> = Vec::new();
        while let Some(batch) = stream.next().await? {
            batches.push(batch);
        }
        Ok(digest(&batches))
    })
}

fn whole(server: &Server, epoch: u32) -> String {
    server.epoch(&format!("shapes/epochs/{epoch}/batches?{REQUEST}")).digest()
}

/// Gives the first connections these answers, and passes all later ones on to a server. Ends with the test process.
fn answering_first(answers: Vec<Vec<u8>>, server: &Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, server) = (format!("http://{}", listener.local_addr().unwrap()), server.address());
    std::thread::spawn(move || {
        for answer in answers {
            let Ok((mut client, _)) = listener.accept() else { return };
            let mut request = [0; 4096];
            let count = client.read(&mut request).unwrap_or_default();
            let is_refusal = answer.windows(PROBLEM.len()).any(|part| part == PROBLEM.as_bytes());
            let answer = if is_refusal { proxy::signed(&request[..count], &answer) } else { answer };
            let _ = client.write_all(&answer);
        }
        proxy::forwarding(listener, server);
    });
    url
}

fn answer(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}");
    format!("{head}\r\nconnection: close\r\n\r\n{body}").into_bytes()
}

fn problem(kind: &str, status: u16) -> String {
    format!(r#"{{"type":"{kind}","title":"t","status":{status},"detail":"no dataset"}}"#)
}

/// Answers that no PBA server sends: of other programs, and of a server but damaged on their way.
fn foreign() -> Vec<Vec<u8>> {
    let refusal = problem("urn:pba:problem:not-found", 404);
    vec![
        answer("200 OK", "text/html", "<h1>hello"),
        answer("404 Not Found", "text/html", "<h1>no such page"),
        answer("404 Not Found", PROBLEM, &problem("about:blank", 404)),
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec(),
        answer("404 Not Found", PROBLEM, &refusal.replace("status", "rtatus")),
        answer("405 Not Found", PROBLEM, &refusal),
        answer("403 Not Found", PROBLEM, &refusal),
        answer("404 Not Found", "application/qroblem+json", &refusal),
        answer("300 OK", STREAM, ""),
        answer("200 OK", STREAM, ""),
    ]
}

#[test]
fn what_no_server_sends_is_a_cut() {
    let server = Server::start(&[]);
    let expected = whole(&server, 150);
    for answer in foreign() {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        // When an epoch is opened, twice; and after a cut.
        let opened = vec![answering_first(vec![answer.clone(), answer.clone()], &server)];
        let cutting = CuttingProxy::start(server.address());
        cutting.plan([Cut { after: 100_000, reset: false }, Cut { after: 0, reset: false }]);
        let cut = vec![cutting.url(), answering_first(vec![answer; 2], &server)];
        for urls in [opened, cut] {
            let found = read(&client(&urls, 6), 150).unwrap_or_else(|error| panic!("{shown}: {error}"));
            assert_eq!(found, expected, "{shown}");
        }
    }
}

#[test]
fn what_other_programs_answer_everywhere_is_told_of_each() {
    let server = Server::start(&[]);
    let page = |text: &str| answering_first(vec![answer("404 Not Found", "text/html", text); 99], &server);
    let urls = [page("one page"), page("another page")];
    let error = read(&client(&urls, 2), 150).unwrap_err().to_string();
    for (url, text) in urls.iter().zip(["one page", "another page"]) {
        assert!(error.contains(&format!("{url}/v1/datasets")) && error.contains(text), "{error}");
    }
}

/// It is asked once: the next answer would be another one.
#[test]
fn a_refusal_is_asked_for_once() {
    let server = Server::start(&[]);
    for status in [400, 404, 422] {
        let refusal = problem("urn:pba:problem:x", status);
        let url = answering_first(vec![answer(&format!("{status} No"), PROBLEM, &refusal)], &server);
        let error = read(&client(&[url], 6), 150).unwrap_err();
        assert!(matches!(&error, ClientError::Refused(problem) if problem.status == status), "{error}");
    }
}

/// Kills a server between two epochs of a client; half a second later, another one answers at its address.
fn outage(mut server: Server, another: &Server, client: &Client) -> Result<String, ClientError> {
    read(client, 0)?;
    let (address, another) = (server.address(), another.address());
    server.process.signal("KILL");
    server.process.wait();
    let back = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        proxy::forwarding(TcpListener::bind(address).unwrap(), another);
    });
    let found = read(client, 1);
    back.join().unwrap();
    found
}

#[test]
fn an_outage_between_two_epochs_is_outlasted() {
    let (server, another) = (Server::start(&[]), Server::start(&[]));
    let client = client(&[server.url()], 8);
    assert_eq!(outage(server, &another, &client).unwrap(), whole(&another, 1));
}

/// One that never had the dataset says nothing of the others.
#[test]
fn a_refusal_beside_servers_that_are_away_is_not_the_last_word() {
    let (server, another) = (Server::start(&[]), Server::start(&[]));
    let refusal = answer("404 Not Found", PROBLEM, &problem("urn:pba:problem:not-found", 404));
    let without = answering_first(vec![refusal; 99], &another);
    let urls = [server.url(), without.clone()];
    assert_eq!(outage(server, &another, &client(&urls, 8)).unwrap(), whole(&another, 1));

    let mut server = Server::start(&[]);
    let urls = [server.url(), without];
    let client = client(&urls, 2);
    read(&client, 0).unwrap();
    server.process.signal("KILL");
    server.process.wait();
    let error = read(&client, 1).unwrap_err().to_string();
    assert!(error.contains(&format!("cannot reach {}", urls[0])), "{error}");
    assert!(error.contains(&format!("{}: no dataset", urls[1])), "{error}");
}

#[test]
fn a_header_that_is_missing_is_named() {
    let server = Server::start(&[]);
    let stream = server.epoch(&format!("shapes/epochs/150/batches?{REQUEST}")).bytes;
    let head = answer("200 OK", STREAM, "");
    let head = String::from_utf8(head).unwrap().replace("content-length: 0\r\n", "");
    let url = answering_first(vec![[head.as_bytes(), &stream].concat(); 9], &server);
    let error = read(&client(std::slice::from_ref(&url), 1), 150).unwrap_err().to_string();
    let says = format!(
        "{url}: the answer has no pba-request: it is not a PBA server, or one of another version, or a"
    );
    assert!(error.contains(&says), "{error}");
}
