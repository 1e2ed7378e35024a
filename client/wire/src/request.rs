//! Headers by which a request can be followed through logs.

/// The header of a request's id. A client may choose one ([`is_request_id`]); else the server does. Every answer
/// has it.
pub const ID_HEADER: &str = "x-request-id";

/// The header by which W3C Trace Context passes on which trace a request is part of.
pub const TRACE_HEADER: &str = "traceparent";

/// Longest id that is accepted.
const ID_BYTES_MAX: usize = 128;

/// Whether a text can be the id of a request: 1 to 128 visible ASCII characters.
pub fn is_request_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The trace id of a `traceparent` header: 32 hexadecimal digits, not all of them 0. None if the header is not as W3C
/// Trace Context wants it; it is to be ignored then.
pub fn trace_id(header: &str) -> Option<&str> {
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = header.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = [version, trace, parent, flags].map(str::len);
    let is_known = lengths == [2, 32, 16, 2] && [version, trace, parent, flags].into_iter().all(is_hex);
    // Later versions may have more parts, and version ff is none.
    let has_more = parts.next().is_some();
    let is_valid = is_known && version != "ff" && !(version == "00" && has_more);
    let is_set = |id: &str| id.bytes().any(|byte| byte != b'0');
    (is_valid && is_set(trace) && is_set(parent)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_visible() {
        let long = "x".repeat(129);
        for (text, expected) in
            [("a", true), ("{\"~", true), (&long[..128], true), ("", false), (&long, false)]
        {
            assert_eq!(is_request_id(text), expected, "{text}");
        }
        for text in ["a b", "a\n", "ä", "\x7f"] {
            assert!(!is_request_id(text), "{text:?}");
        }
    }

    #[test]
    fn trace_ids_are_read_from_valid_headers_only() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let check = |header: String, is_valid: bool| {
            assert_eq!(trace_id(&header), is_valid.then_some(trace), "{header}");
        };
        check(format!("00-{trace}-{parent}-01"), true);
        check(format!("cc-{trace}-{parent}-01-what-will-be"), true);
        check(format!("00-{trace}-{parent}-01-more"), false);
        check(format!("ff-{trace}-{parent}-01"), false);
        check(format!("00-{trace}-{}-01", "0".repeat(16)), false);
        check(format!("00-{}-{parent}-01", "0".repeat(32)), false);
        check(format!("00-{}-{parent}-01", trace.to_uppercase()), false);
        check(format!("00-{trace}-{parent}"), false);
        check(String::new(), false);
    }
}
