//! What every answer tells browsers to leave alone.
//!
//! There is no `Strict-Transport-Security`: it would bind all ports of the host's name, among them those of other
//! programs, and those of this one that speak plain HTTP.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Of all that is no page: should a browser show it as one, it loads nothing and runs nothing.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";
/// Of plots, which bring their styles along: as pictures in a page, and on their own.
const OWN_STYLES: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// Adds the headers that an answer does not have. Pages bring a policy of their own.
pub(crate) fn add(headers: &mut HeaderMap) {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let (is_page, is_plot) = (kind.starts_with(b"text/html"), kind.starts_with(b"image/svg+xml"));
    let mut add = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    add(X_CONTENT_TYPE_OPTIONS, "nosniff");
    add(REFERRER_POLICY, "same-origin");
    add(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    add(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    add(CONTENT_SECURITY_POLICY, if is_plot { OWN_STYLES } else { NOTHING });
    if is_page {
        add(X_FRAME_OPTIONS, "DENY");
    }
    // What it is depends on who asks, and when.
    add(CACHE_CONTROL, "no-store");
}
