//! Servers behind TLS and a token: both are needed, and a stream continues over them as over any other.

use pba_client::{Client, ClientError, ClientOptions, EpochRequest, Query};
use pba_tests::tls::TlsProxy;
use pba_tests::{Pba, Server, binary, epoch, pba};

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
