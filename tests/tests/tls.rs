//! TLS, of the server's own and by a proxy that asks for a token: who is not trusted is told so, and a stream continues
//! over it as over any other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use pba_client::{Client, ClientError, ClientOptions, EpochRequest, Query};
use pba_tests::proxy::Cut;
use pba_tests::tls::{Authority, TlsProxy, TlsServer};
use pba_tests::{CuttingProxy, Download, Epoch, Pba, Server, binary, epoch, http, pba, wait_for};

const TOKEN: &str = "pba_s3cret";
const BATCHES: &str = "shapes/epochs/3/batches?schedule=cifar10-pba&split=test";

fn request() -> EpochRequest {
    EpochRequest::from_query("schedule=cifar10-pba&split=test").unwrap()
}

fn options(proxy: &TlsProxy) -> ClientOptions {
    ClientOptions { token: Some(TOKEN.to_owned()), ca: Some(proxy.authority()), ..ClientOptions::default() }
}

#[tokio::test]
async fn a_stream_continues_over_tls() {
    let server = Server::start(&[]);
    let expected = server.epoch(BATCHES);
    let proxy = TlsProxy::start(server.address(), TOKEN);
    let client = Client::with_options([proxy.url()], &options(&proxy)).unwrap();
    // In the middle of the second batch, in the head, and in the first batch of what is left.
    proxy.plan([600_000, 50, 200_000]);
    let mut stream = client.epoch("shapes", 3, request()).await.unwrap();
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await.unwrap() {
        batches.push(batch);
    }
    assert_eq!(stream.stats().resumes, 3);
    assert_eq!(epoch::digest(&batches), expected.digest());
}

#[tokio::test]
async fn who_is_not_known_is_told_what_to_name() {
    let server = Server::start(&[]);
    let proxy = TlsProxy::start(server.address(), TOKEN);
    let open = async |url: String, options: ClientOptions| {
        let client = Client::with_options([url], &options)?;
        client.epoch("shapes", 3, request()).await.map(|_| ())
    };

    let refused = open(proxy.url(), ClientOptions { token: None, ..options(&proxy) }).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(problem) if problem.status == 401), "{refused}");

    let untrusted = open(proxy.url(), ClientOptions { ca: None, ..options(&proxy) }).await.unwrap_err();
    assert!(untrusted.to_string().contains("--ca"), "{untrusted}");

    let in_the_clear = open(proxy.url().replace("https:", "http:"), options(&proxy)).await.unwrap_err();
    assert!(in_the_clear.to_string().contains("; does the server use https://?"), "{in_the_clear}");

    let other_name = proxy.url().replace("localhost", "127.0.0.1");
    let misnamed = open(other_name, options(&proxy)).await.unwrap_err();
    let text = misnamed.to_string();
    assert!(text.contains("not valid for name") && !text.contains("--ca"), "{text}");
}

#[test]
fn the_command_line_takes_token_and_authority() {
    let server = Server::start(&[]);
    let proxy = TlsProxy::start(server.address(), TOKEN);
    let authority = proxy.authority().to_str().unwrap().to_owned();
    let (url, folder) = (proxy.url(), tempfile::tempdir().unwrap());
    let by_environment = binary::command(folder.path(), &["dataset", "list", "--server", &url])
        .envs([("PBA_TOKEN", TOKEN), ("PBA_CA", &authority)])
        .output()
        .unwrap();
    assert!(Pba::from(by_environment).ok().contains("shapes"));
    let stream = ["stream", &url, "--split", "test", "--ca", &authority, "--token", TOKEN];
    assert!(pba(&stream).ok().contains("2000 images"));
    pba(&["dataset", "list", "--server", &url, "--ca", &authority]).refused(1, &["401", "--token"]);
    pba(&["dataset", "list", "--server", &url, "--ca", "/no/such.pem"]).refused(1, &["/no/such.pem"]);
}

const EPOCH: &str = "/v1/datasets/shapes/epochs/3/batches?schedule=cifar10-pba&split=test";

fn trusting(server: &TlsServer) -> ClientOptions {
    ClientOptions { ca: Some(server.authority.path()), ..ClientOptions::default() }
}

/// The digest of an epoch that a client reads to its end, and how often it was continued.
async fn read(url: &str, options: &ClientOptions) -> (String, u64) {
    let client = Client::with_options([url.to_owned()], options).unwrap();
    let mut stream = client.epoch("shapes", 3, request()).await.unwrap();
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await.unwrap() {
        batches.push(batch);
    }
    (epoch::digest(&batches), stream.stats().resumes as u64)
}

#[tokio::test]
async fn the_port_speaks_tls() {
    let expected = Server::start(&[]).epoch(BATCHES).digest();
    let server = TlsServer::start(&[]);
    for url in [server.url(), format!("https://{}", server.address())] {
        assert_eq!(read(&url, &trusting(&server)).await, (expected.clone(), 0));
    }
    let authority = server.authority.path().display().to_string();
    let ca = ["--ca", &authority];
    let streamed = pba(&[&["stream", &server.url(), "--split", "test"][..], &ca].concat()).ok();
    assert!(streamed.contains("2000 images"), "{streamed}");
    assert!(
        pba(&[&["dataset", "list", "--server", &server.url()][..], &ca].concat()).ok().contains("shapes")
    );
    assert!(server.metric("pba_tls_handshakes_total{outcome=\"done\"}") >= 4.0);
    assert_eq!(server.metric("pba_tls_handshakes_total{outcome=\"failed\"}"), 0.0);
    assert!(server.metric("pba_tls_certificate_expiry_timestamp_seconds") > 60e9);
    // An answer that ends is an end for TLS as well.
    let mut stream = server.connect();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("a connection is closed with a close_notify");
    assert!(answer.ends_with("ok\n"), "{answer}");
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told_why() {
    let open = async |url: String, options: ClientOptions| {
        let client = Client::with_options([url], &options).unwrap();
        client.epoch("shapes", 3, request()).await.map(|_| ()).unwrap_err().to_string()
    };
    let server = TlsServer::start(&[]);
    let stranger = Authority::new();
    // The other authority has the same name.
    for (ca, says) in [(None, "UnknownIssuer"), (Some(stranger.path()), "BadSignature")] {
        let text = open(server.url(), ClientOptions { ca, ..ClientOptions::default() }).await;
        assert!(text.contains(says) && text.contains("--ca"), "{text}");
    }
    // The client has left before the server learns of it.
    wait_for("the server to count both", || {
        (server.metric("pba_tls_handshakes_total{outcome=\"failed\"}") >= 2.0).then_some(())
    });

    let authority = Authority::new();
    let pair = authority.sign(&["pictures.example"]);
    let misnamed = TlsServer::start_as(authority, &pair, &[]);
    let text = open(misnamed.url(), trusting(&misnamed)).await;
    assert!(text.contains("not valid for name \"localhost\"") && !text.contains("--ca"), "{text}");

    let authority = Authority::new();
    let pair = authority.sign_until(&["localhost"], 2020);
    let expired = TlsServer::start_as(authority, &pair, &[]);
    let text = open(expired.url(), trusting(&expired)).await;
    assert!(text.contains("expired"), "{text}");
    let authority = expired.authority.path().display().to_string();
    pba(&["dataset", "list", "--server", &expired.url(), "--ca", &authority]).refused(1, &["expired"]);
    assert!(
        expired.process.stderr().contains("it expired on Wed, 01 Jan 2020"),
        "{}",
        expired.process.stderr()
    );
    assert_eq!(expired.metric("pba_tls_certificate_expiry_timestamp_seconds"), 1_577_836_800.0);
}

#[tokio::test]
async fn who_speaks_plain_http_to_the_port_is_told() {
    let server = TlsServer::start(&[]);
    let ask = |method: &str, target: &str, headers: &[(&str, &str)]| {
        Download::open(server.address(), method, target, headers, b"").unwrap().finish()
    };
    let host = format!("pba.example.org:{}", server.address().port());
    let answer = ask("GET", "/v1/datasets?x=1", &[("host", &host)]);
    assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
    let problem = answer.problem();
    assert_eq!(problem.kind, "urn:pba:problem:plain-http", "{problem:?}");
    assert!(problem.detail.contains(&format!("ask https://{host}/v1/datasets.")), "{}", problem.detail);
    assert_eq!(ask("HEAD", "/livez", &[]).status, 400);
    assert_eq!(ask("PUT", "/v1/schedules/x", &[]).status, 400);
    // A client of ours says so too.
    let client = Client::new([server.url().replace("https:", "http:")]).unwrap();
    let text = client.epoch("shapes", 3, request()).await.map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("this port speaks TLS") && text.contains("https://localhost:"), "{text}");
    pba(&["dataset", "list", "--server", &format!("http://{}", server.address())])
        .refused(1, &["this port speaks TLS", &format!("https://{}/", server.address())]);
    // What is no HTTP either.
    assert!(http::raw(server.address(), b"hello\r\n\r\n").starts_with(b"HTTP/1.1 400 "));
    assert!(server.metric("pba_tls_handshakes_total{outcome=\"plain_text\"}") >= 6.0);
    assert_eq!(server.metric("pba_tls_handshakes_total{outcome=\"failed\"}"), 0.0);
}

#[tokio::test]
async fn who_speaks_tls_to_a_port_of_plain_http_is_told() {
    let server = Server::start(&[]);
    let client = Client::new([server.url().replace("http:", "https:")]).unwrap();
    let text = client.epoch("shapes", 3, request()).await.map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("; does the server use http://?"), "{text}");
    server.assert_healthy();
}

/// Reads what the server says until it closes.
fn end_of(mut socket: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // It may end with a reset.
    let _ = socket.read_to_end(&mut said);
    said
}

#[test]
fn who_says_nothing_holds_no_place() {
    let server = TlsServer::start(&["--connections-max", "4"]);
    // Nothing at all; and the beginning of a handshake, and no more. One client may have three of the places.
    let taken = wait_for("a refusal", || {
        let taken = [0, 6, 0].map(|count| {
            let mut socket = http::connect(server.address()).unwrap();
            socket.write_all(&[0x16, 3, 1, 2, 0, 1][..count]).unwrap();
            socket
        });
        let answer = server.download("/v1/schedules").finish();
        (answer.status == 503).then(|| {
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert!(answer.problem().detail.contains("this client has 3 connections"), "{}", answer.text());
            taken
        })
    });
    assert_eq!(server.download("/livez").finish().status, 200, "a probe is answered in any case");
    for socket in taken {
        assert_eq!(end_of(socket), b"");
    }
    wait_for("a place", || (server.download("/v1/schedules").finish().status == 200).then_some(()));
    // Those that had begun and did not go on.
    assert!(server.metric("pba_tls_handshakes_total{outcome=\"failed\"}") >= 1.0);
}

#[tokio::test]
async fn a_connection_that_breaks_is_continued() {
    let expected = Server::start(&[]).epoch(BATCHES).digest();
    let server = TlsServer::start(&[]);
    let proxy = CuttingProxy::start(server.address());
    // In a batch, some of them with a reset; and then in the handshake, in the head, in the schema and in the next batch.
    let cut = |after, reset| Cut { after, reset };
    let url = proxy.url().replace("http:", "https:");
    for cuts in [[600_000, 300, 1600], [2_000_000, 700_000, 3000]] {
        proxy.plan(cuts.map(|after| cut(after, after > 1_000_000)));
        let (digest, _) = read(&url, &trusting(&server)).await;
        assert_eq!(digest, expected, "{cuts:?}");
    }
    assert!(proxy.connections() >= 8);
    proxy.plan([cut(1_000_000, false), cut(500_000, true)]);
    assert_eq!(read(&url, &trusting(&server)).await, (expected, 2));
}

#[test]
fn sigterm_drains_over_tls() {
    let mut server = TlsServer::start(&[]);
    let _idle = server.connect();
    let _silent = http::connect(server.address()).unwrap();
    let mut running = server.download("/v1/datasets/shapes/epochs/0/batches?schedule=cifar10-pba");
    let begun = running.sip(100_000);
    server.process.signal("TERM");
    wait_for("the server to drain", || (server.probe("/readyz").status == 503).then_some(()));
    let refused = server.download(EPOCH).finish();
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(server.probe("/livez").status, 200);
    let answer = running.finish();
    assert!(answer.complete, "a stream that ran when SIGTERM came was cut");
    assert_eq!(Epoch::decode([begun, answer.body].concat()).indices().len(), 10_000);
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn a_stream_that_is_cut_looks_cut_over_tls() {
    let mut server = TlsServer::start(&["--drain-seconds", "0"]);
    let mut running = server.download("/v1/datasets/shapes/epochs/0/batches?schedule=cifar10-pba");
    running.sip(100_000);
    server.process.signal("TERM");
    assert_eq!(server.process.wait().code(), Some(0), "{}", server.process.stderr());
    let answer = running.finish();
    assert!(!answer.complete, "a cut stream looks complete");
    assert!(server.process.stderr().contains("streams cut"));
}

/// As over TCP: a client that takes bytes all the time, and never a batch in time.
#[test]
fn who_takes_a_batch_byte_by_byte_over_tls_is_cut_off() {
    let server = TlsServer::start(&["--stall-seconds", "3"]);
    let mut sipping = server.download("/v1/datasets/shapes/epochs/0/batches?batch_size=8192");
    assert_eq!(server.metric("pba_streams_active"), 1.0);
    wait_for("the end of the stream", || {
        sipping.sip(1024);
        std::thread::sleep(Duration::from_millis(200));
        (server.metric("pba_streams_active") == 0.0).then_some(())
    });
    assert!(!sipping.finish().complete);
}
