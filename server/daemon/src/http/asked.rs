//! The checksums of a request, if its client sends some, and of the answer: by the first this server tells that it got
//! what was sent, by the others the client tells that the answer is to what it asked, as it was sent.

use std::sync::{Arc, OnceLock};

use axum::body::{Body, HttpBody};
use axum::http::header::CACHE_CONTROL;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use axum::response::{IntoResponse, Response};
use pba_wire::checksum::{self, BODY_HEADER, REQUEST_HEADER, Sum};

use crate::error::{Cause, Error};

/// What was asked, as it reached this server.
#[derive(Clone)]
pub(crate) struct Asked {
    /// The checksum of the request, without its body.
    pub(crate) sum: Sum,
    /// That with its body, once that was read.
    whole: Arc<OnceLock<Sum>>,
    is_head: bool,
}

impl Asked {
    /// What a request asks.
    pub(crate) fn by<B>(request: &Request<B>) -> Asked {
        let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
        let sum = checksum::of_request(request.method().as_str(), target);
        Asked { sum, whole: Arc::default(), is_head: request.method() == Method::HEAD }
    }

    /// Refuses a request that is another one than its client sent, if that says which one it sent.
    ///
    /// # Errors
    /// With both checksums.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Error> {
        check(headers.get(REQUEST_HEADER), REQUEST_HEADER, self.sum)
    }

    /// The same of its body, now that it was read, whose checksum it came with, if with any.
    ///
    /// # Errors
    /// With both checksums.
    pub(crate) fn check_body(&self, said: Option<&HeaderValue>, body: &[u8]) -> Result<(), Error> {
        let sum = checksum::of_body(body, self.sum);
        check(said, BODY_HEADER, sum)?;
        self.whole.get_or_init(|| sum);
        Ok(())
    }

    /// The answer with the checksums of the request and, if it lies ready as a whole, of its body. An answer to HEAD has
    /// no body, so it does not tell that of GET's. Nothing on the way keeps it for later: the answer to the same request
    /// may be another one then.
    pub(crate) async fn signed(self, response: Response) -> Response {
        let is_whole = !self.is_head && response.body().size_hint().exact().is_some();
        let (mut parts, mut body) = response.into_parts();
        if is_whole {
            parts.headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        }
        let mut sign = |header, sum: Sum| {
            let value = HeaderValue::try_from(sum.to_string()).expect("digits are a header's value");
            parts.headers.insert(HeaderName::from_static(header), value);
        };
        sign(REQUEST_HEADER, self.sum);
        if is_whole {
            // It is one piece, which is not copied.
            let bytes = match axum::body::to_bytes(body, usize::MAX).await {
                Ok(bytes) => bytes,
                Err(error) => return Error::internal(error).into_response(),
            };
            sign(BODY_HEADER, checksum::of_body(&bytes, *self.whole.get().unwrap_or(&self.sum)));
            body = Body::from(bytes);
        }
        Response::from_parts(parts, body)
    }
}

fn check(said: Option<&HeaderValue>, header: &str, found: Sum) -> Result<(), Error> {
    let Some(said) = said.map(|value| String::from_utf8_lossy(value.as_bytes())) else { return Ok(()) };
    if *said == found.to_string() {
        return Ok(());
    }
    let detail = format!(
        "the request was changed on its way: its {header} is {said:?}, and that of what arrived is {found}; nothing \
         was done"
    );
    Err(Error { parameter: Some(header.to_owned()), ..Error::new(Cause::Altered, detail) })
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;

    use super::*;

    async fn signed(method: &str, body: Body) -> (Vec<(String, String)>, Bytes) {
        let request = Request::builder().method(method).uri("/v1/schedules/a%20b?x=1").body(()).unwrap();
        let answer = Asked::by(&request).signed(body.into_response()).await;
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        let headers = answer.headers().iter().map(header).collect();
        (headers, axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap())
    }

    #[tokio::test]
    async fn an_answer_is_to_the_body_that_was_read() {
        let asked = Asked::by(&Request::builder().uri("/v1/searches").body(()).unwrap());
        let answered = async |asked: &Asked| {
            let answer = asked.clone().signed(Body::from("{}").into_response()).await;
            answer.headers()[BODY_HEADER].to_str().unwrap().to_owned()
        };
        assert_eq!(answered(&asked).await, checksum::of_body(b"{}", asked.sum).to_string());
        asked.check_body(None, b"one").unwrap();
        let one = checksum::of_body(b"one", asked.sum);
        assert_eq!(answered(&asked).await, checksum::of_body(b"{}", one).to_string());
        asked.check_body(Some(&HeaderValue::try_from(one.to_string()).unwrap()), b"one").unwrap();
        let error =
            asked.check_body(Some(&HeaderValue::from_static("0000000000000000")), b"one").unwrap_err();
        assert_eq!((error.cause, error.parameter.as_deref()), (Cause::Altered, Some(BODY_HEADER)));
    }

    #[tokio::test]
    async fn an_answer_says_what_it_answers() {
        let asked = |method| checksum::of_request(method, "/v1/schedules/a%20b?x=1");
        let (headers, body) = signed("GET", Body::from("text")).await;
        let sums = [(REQUEST_HEADER, asked("GET")), (BODY_HEADER, checksum::of_body(b"text", asked("GET")))];
        let mut expected = sums.map(|(name, sum)| (name.to_owned(), sum.to_string())).to_vec();
        expected.insert(0, ("cache-control".to_owned(), "no-store".to_owned()));
        assert_eq!(headers, expected);
        assert_eq!(body, "text");

        let (headers, body) = signed("HEAD", Body::empty()).await;
        assert_eq!(headers, [(REQUEST_HEADER.to_owned(), asked("HEAD").to_string())]);
        assert!(body.is_empty());

        let pieces = futures_util::stream::iter([Ok::<_, std::convert::Infallible>("te"), Ok("xt")]);
        let (headers, body) = signed("GET", Body::from_stream(pieces)).await;
        assert_eq!(headers, [(REQUEST_HEADER.to_owned(), asked("GET").to_string())]);
        assert_eq!(body, "text");
    }
}
