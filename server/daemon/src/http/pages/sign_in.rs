//! The page of `/v1/session`: who is signed in, or the form that asks for a token.
//!
//! Clients without a token are shown it, to whom the server gives no other file. So its style is a part of it, and a
//! nonce in its policy lets that in and nothing else.

use askama::Template;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use pba_wire::Role;

use crate::access::secret;
use crate::error::Error;
use crate::http::pages::assets::STYLE_SHEET;

/// Who is shown the page.
pub(in crate::http) enum Visitor<'a> {
    /// The holder of a token.
    SignedIn { name: &'a str, role: Role },
    /// A client that needs none.
    NeedsNoToken,
    /// All others: why the token that they sent is refused, if they sent one, and where the form leads back to.
    Unknown { note: &'a str, next: &'a str },
}

impl Visitor<'_> {
    fn is_unknown(&self) -> bool {
        matches!(self, Visitor::Unknown { .. })
    }
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    nonce: &'a str,
    style: &'static str,
    visitor: Visitor<'a>,
}

/// Makes the page.
///
/// # Errors
/// When the system has no random numbers.
pub(in crate::http) fn page(status: StatusCode, visitor: Visitor<'_>) -> Result<Response, Error> {
    let nonce = secret::random_digits().map_err(Error::internal)?;
    let page = SignInPage { nonce: &nonce, style: STYLE_SHEET, visitor };
    let text = page.render().map_err(Error::internal)?;
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; \
         base-uri 'none'"
    );
    let headers: [(HeaderName, String); 2] =
        [(CONTENT_TYPE, "text/html; charset=utf-8".to_owned()), (CONTENT_SECURITY_POLICY, policy)];
    Ok((status, headers, text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out_of_the_page() {
        let visitor = Visitor::Unknown { note: "<script>", next: "/\"'><script>&" };
        let text = SignInPage { nonce: "n", style: STYLE_SHEET, visitor }.render().unwrap();
        assert!(text.contains("value=\"/&#34;&#39;&#62;&#60;script&#62;&#38;\""), "{text}");
        assert!(text.contains("role=\"alert\">&#60;script&#62;</p>") && !text.contains("<script"), "{text}");
        // Nor does the style, which is not escaped.
        assert!(!STYLE_SHEET.contains("</"));
    }
}
