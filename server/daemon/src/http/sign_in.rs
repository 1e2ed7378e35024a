//! `/v1/session`: browsers sign in with a token, which a cookie keeps.
//!
//! A browser that asks for a page without a token is answered with the form ([`page`]), which works without JavaScript: it
//! posts the token, and the answer sets the cookie and leads back. The server keeps nothing of it, so replicas with the same
//! tokens take the same cookie, and a token that is revoked ends at once. `http::authentication` says what keeps the pages
//! of other servers from using the cookie.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE, LOCATION, ORIGIN, SET_COOKIE};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use pba_wire::{Problem, Role};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use utoipa::ToSchema;

use crate::access::Identity;
use crate::access::secret;
use crate::app::App;
use crate::error::Error;
use crate::http::authentication::{COOKIE_NAME, refused};
use crate::http::extract::Form;
use crate::http::pages::sign_in::{Visitor, page};
use crate::http::problem::UnsupportedMediaType;

/// What is encoded in its value: all that may not stand there, and more.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.');
/// Longest path that the form leads back to.
const NEXT_BYTES_MAX: usize = 2 << 10;
/// Where it leads without one.
const HOME: &str = "/";

/// The fields of the form.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the fields, which are read by name")]
pub(crate) struct SignIn {
    /// The token.
    token: String,
    /// A path of this server to lead back to.
    next: Option<String>,
}

/// Shows who is signed in, or the form.
#[utoipa::path(
    get,
    path = "/v1/session",
    tag = "session",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
)]
pub(crate) async fn show(Extension(identity): Extension<Identity>) -> Result<Response, Error> {
    let visitor = match (identity.name(), identity.role()) {
        (Some(name), Some(role)) => Visitor::SignedIn { name, role },
        _ if identity.may(Role::Reader) => Visitor::NeedsNoToken,
        _ => Visitor::Unknown { note: "", next: HOME },
    };
    page(StatusCode::OK, visitor)
}

/// Signs a browser in: sets the cookie if the token is right, and leads on.
#[utoipa::path(
    post,
    path = "/v1/session",
    tag = "session",
    request_body(content = SignIn, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "The token is right, and the cookie is set"),
        (
            status = 401,
            description = "The token is none of this server's",
            content((String = "text/html"), (Problem = "application/problem+json")),
        ),
        UnsupportedMediaType,
    ),
)]
pub(crate) async fn start(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, Error> {
    let token = form
        .field("token")
        .ok_or_else(|| Error::parameter("token", "", "not given", "a token of this server"))?;
    let next = form.field("next").filter(|next| is_own_path(next)).unwrap_or_else(|| HOME.to_owned());
    if !app.authenticator.is_needed() {
        return Ok((StatusCode::SEE_OTHER, [(LOCATION, next)]).into_response());
    }
    let Some(identity) = app.authenticator.holder(token.trim().as_bytes()) else {
        let error = refused("the token is none of this server's, or was revoked");
        return Ok(refusal(error, &headers, &next));
    };
    let value = utf8_percent_encode(token.trim(), ENCODED);
    let headers = [(LOCATION, next), (SET_COOKIE, cookie(&value.to_string(), &headers))];
    Ok((StatusCode::SEE_OTHER, Extension(identity), headers).into_response())
}

/// Signs a browser out: takes the cookie back.
#[utoipa::path(
    post,
    path = "/v1/session/end",
    tag = "session",
    responses((status = 303, description = "The cookie is taken back")),
)]
pub(crate) async fn end(headers: HeaderMap) -> Response {
    let cookie = cookie("", &headers) + "; Max-Age=0";
    (StatusCode::SEE_OTHER, [(LOCATION, HOME.to_owned()), (SET_COOKIE, cookie)]).into_response()
}

/// The cookie with a value: for this server only, and for no script. A browser that speaks TLS, with this server or with
/// what stands before it, says so in `Origin`, and sends the cookie over TLS only.
fn cookie(value: &str, headers: &HeaderMap) -> String {
    let is_tls = headers.get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let secure = if is_tls { "; Secure" } else { "" };
    format!("{COOKIE_NAME}={value}; Path=/; HttpOnly; SameSite=Strict{secure}")
}

/// Where to lead back to after the request that was refused.
pub(super) fn back_to(method: &Method, uri: &Uri) -> String {
    let target = uri.path_and_query().map_or(HOME, PathAndQuery::as_str);
    if *method == Method::GET && is_own_path(target) { target.to_owned() } else { HOME.to_owned() }
}

/// Whether a text is a path of this server, no browser reads it as another one's, and there is no token in it, which no page
/// shows.
fn is_own_path(text: &str) -> bool {
    text.len() <= NEXT_BYTES_MAX
        && text.starts_with('/')
        && !text.starts_with("//")
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && secret::redacted(text) == text
}

/// Whether a page is asked for, as browsers do.
fn wants_page(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|accepted| accepted.to_ascii_lowercase().contains("text/html"))
}

/// The refusal of a client that is not known: with the form, if a page is asked for.
pub(super) fn refusal(error: Error, headers: &HeaderMap, next: &str) -> Response {
    let detail = error.detail.clone();
    // The status, the challenge and the mark of the problem are the same.
    let (mut parts, body) = error.into_response().into_parts();
    if !wants_page(headers) {
        return Response::from_parts(parts, body);
    }
    parts.headers.remove(CONTENT_TYPE);
    let note = if headers.contains_key(ORIGIN) { detail.as_str() } else { "" };
    match page(parts.status, Visitor::Unknown { note, next }) {
        Ok(page) => {
            let (of_page, body) = page.into_parts();
            parts.headers.extend(of_page.headers);
            Response::from_parts(parts, body)
        }
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_leads_back_to_paths_of_this_server_only() {
        for path in ["/", "/v1/schedules/a%20b/plot.svg?x=1", "/x//y", "/?next=http://evil.example"] {
            assert!(is_own_path(path), "{path}");
        }
        let long = format!("/{}", "x".repeat(NEXT_BYTES_MAX));
        for path in [
            "",
            "x",
            "//evil.example",
            "/\\evil.example",
            "http://evil.example",
            "javascript:alert(1)",
            "/\n",
            "/ä",
            "/\t/evil.example",
            "/ x",
            &long,
            &format!("/x?token=pba_{}", "0".repeat(64)),
        ] {
            assert!(!is_own_path(path), "{path}");
        }
        let back = |method: &Method, uri: &str| back_to(method, &uri.parse().unwrap());
        assert_eq!(back(&Method::GET, "/metrics?x=1"), "/metrics?x=1");
        assert_eq!(back(&Method::GET, "//evil.example/x"), "/");
        assert_eq!(back(&Method::POST, "/v1/searches"), "/");
    }

    #[test]
    fn the_cookie_is_for_tls_only_where_the_browser_speaks_it() {
        let cookie = |origin: Option<&str>| {
            let headers = origin.map(|origin| (ORIGIN, origin.parse().unwrap()));
            cookie("x", &headers.into_iter().collect())
        };
        let plain = "pba_token=x; Path=/; HttpOnly; SameSite=Strict";
        assert_eq!(cookie(None), plain);
        assert_eq!(cookie(Some("http://localhost:8080")), plain);
        assert_eq!(cookie(Some("https://pba.example.org")), format!("{plain}; Secure"));
    }
}
