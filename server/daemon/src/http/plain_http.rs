//! What is asked in plain HTTP at a port that speaks TLS.

use axum::http::header::{AUTHORIZATION, CONNECTION, HOST};
use axum::http::{HeaderValue, Request};
use axum::response::{IntoResponse, Response};
use pba_types::{VALUE_SHOWN, shortened};

use crate::error::{Cause, Error};
use crate::hosts::host_and_port;
use crate::http::asked::Asked;

/// Refuses a request with the URL that it should have been sent to, and closes the connection. Without a host in the
/// request it is one of this machine, with the port of the server.
pub(crate) async fn refuse<B>(request: &Request<B>, port: u16) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or(request.uri().authority().map(|authority| authority.as_str()));
    let host = host.filter(|host| host_and_port(host).is_some()).unwrap_or("localhost");
    // A host without a port was asked at that of http, and is not the one of https.
    let port = match host_and_port(host) {
        Some((_, Some(_))) => String::new(),
        _ => format!(":{port}"),
    };
    let path = shortened(request.uri().path(), VALUE_SHOWN);
    let exposed = match request.headers().contains_key(AUTHORIZATION) {
        true => "; the token that came along has passed the network in the clear",
        false => "",
    };
    let detail = format!(
        "this port speaks TLS, and the request came in plain HTTP; ask https://{host}{port}{path}. Nothing was done{exposed}"
    );
    let asked = Asked::by(request);
    let mut response = asked.signed(Error::new(Cause::PlainHttp, detail).into_response()).await;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_url_is_said() {
        let cases = [
            ("/metrics?x", Some("pba.example.org:8443"), "https://pba.example.org:8443/metrics. "),
            ("/", Some("localhost"), "https://localhost:443/. "),
            ("/", None, "https://localhost:443/. "),
            ("/", Some("[::1]:80"), "https://[::1]:80/. "),
            ("/", Some("a b"), "https://localhost:443/. "),
            ("http://here:8080/x", None, "https://here:8080/x. "),
        ];
        for (target, host, says) in cases {
            let request =
                host.iter().fold(Request::builder().uri(target), |request, host| request.header(HOST, *host));
            let answer = refuse(&request.body(()).unwrap(), 443).await;
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()[CONNECTION]),
                (400, &HeaderValue::from_static("close"))
            );
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            let body = String::from_utf8_lossy(&body).into_owned();
            assert!(body.contains(says), "{target} of {host:?}: {body}");
        }
    }
}
