//! The address of a server, and advice when it does not answer.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;

use reqwest::{Method, Url};
use rustls::CertificateError;

use crate::error::ClientError;

/// A request, as errors name it.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub method: &'a Method,
    pub path: &'a str,
}

impl Request<'_> {
    pub fn get(path: &str) -> Request<'_> {
        Request { method: &Method::GET, path }
    }
}

/// Escapes a name for use as one segment of a path.
pub fn segment(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => escaped.push(byte.into()),
            _ => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}

/// The address of a server.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// The URL that paths are appended to. For a Unix socket, a host that is never resolved, because HTTP
    /// requires one.
    pub base: Url,
    /// The Unix socket, if it is one.
    pub socket: Option<String>,
}

impl Address {
    /// Reads `http://HOST[:PORT][/PREFIX]`, the same with `https://`, or `unix:PATH`. Without a scheme,
    /// `http://` is assumed.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(text: &str) -> Result<Address, ClientError> {
        let wrong = |reason: String| ClientError::Url { url: text.to_owned(), reason };
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(wrong("it names no path".to_owned()));
            }
            let base = "http://localhost".parse().expect("it is a URL");
            return Ok(Address { base, socket: Some(path.to_owned()) });
        }
        // The part between the scheme and the path.
        let authority =
            text.split_once("://").map_or(text, |(_, rest)| rest).split('/').next().unwrap_or(text);
        if text.contains('@') {
            // Not shown: it may hold a password, with a slash in it.
            let url = "a URL with a user or a password".to_owned();
            let reason = "it holds more than host, port and path; pass a token separately".to_owned();
            return Err(ClientError::Url { url, reason });
        }
        if text.starts_with(['/', '.', '~']) || text.ends_with(".sock") && !text.contains("://") {
            return Err(wrong(format!("for a Unix socket write unix:{text}")));
        }
        let is_shown = |letter: char| letter.is_alphanumeric() || letter.is_ascii_graphic();
        if !text.chars().all(is_shown) {
            return Err(wrong("it holds a space or a control character".to_owned()));
        }
        if text.contains('\\') {
            return Err(wrong("it holds a backslash".to_owned()));
        }
        if !text.is_empty() && text.chars().all(|letter| letter.is_ascii_digit()) {
            return Err(wrong(format!("it is a number; is 127.0.0.1:{text} meant?")));
        }
        let scheme = authority.split([':', ';']).next().unwrap_or_default();
        if !text.contains("://") && ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
            return Err(wrong(format!("{scheme} is not followed by ://")));
        }
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let base: Url = whole.parse().map_err(|error| wrong(format!("{error}")))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(wrong(format!("this client does not speak {}", base.scheme())));
        }
        if base.query().or(base.fragment()).is_some() {
            return Err(wrong("it holds more than host, port and path".to_owned()));
        }
        // What the parser of URLs makes something else of.
        if authority.is_empty() {
            return Err(wrong("it names no host".to_owned()));
        }
        if authority.ends_with(':') {
            return Err(wrong("it names no port after the colon".to_owned()));
        }
        Ok(Address { base, socket: None })
    }

    /// The URL of a path on this server.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }

    /// The host that requests name, and the same with its port.
    pub fn host(&self) -> [String; 2] {
        let host = self.base.host_str().unwrap_or_default().to_owned();
        let authority = self.base.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        [host, authority]
    }

    /// Why a server could not be reached, and what may help.
    pub fn unreachable(&self, error: &(dyn Error + 'static)) -> ClientError {
        ClientError::Unreachable { url: self.to_string(), reason: self.reason(error) }
    }

    /// Why a server that could be reached did not answer completely, and what may help.
    pub fn unanswered(&self, request: Request<'_>, error: &(dyn Error + 'static)) -> ClientError {
        self.otherwise(request, self.reason(error))
    }

    /// Why what came of a server is not the answer to a request.
    pub fn otherwise(&self, request: Request<'_>, reason: String) -> ClientError {
        let request = format!("{} {}", request.method, request.path);
        ClientError::Unanswered { url: self.to_string(), request, reason }
    }

    fn reason(&self, error: &(dyn Error + 'static)) -> String {
        let reason = cause(error);
        self.hint(error).map(|hint| format!("{reason}; {hint}")).unwrap_or(reason)
    }

    fn hint(&self, error: &(dyn Error + 'static)) -> Option<String> {
        if let Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) = find(error) {
            return Some("set a private certificate authority with `ca` (--ca, PBA_CA)".to_owned());
        }
        if let Some(rustls::Error::InvalidCertificate(CertificateError::BadSignature)) = find(error) {
            let other = "an authority of the same name has signed it, but not this one";
            return Some(format!("{other}; set the right one with `ca` (--ca, PBA_CA)"));
        }
        if cause(error).contains("CaUsedAsEndEntity") {
            let made = "the server uses the certificate of an authority as its own";
            return Some(format!("{made}; create one with basicConstraints=CA:FALSE"));
        }
        if let Some(rustls::Error::InvalidMessage(_)) = find(error) {
            return Some("does the server use http://?".to_owned());
        }
        // What a server of TLS answers does not begin as HTTP does.
        let is_no_http = |error: &hyper::Error| error.to_string() == "invalid HTTP version parsed";
        if self.base.scheme() == "http" && find(error).is_some_and(is_no_http) {
            return Some("does the server use https://?".to_owned());
        }
        let kind = find::<std::io::Error>(error)?.kind();
        if !matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::NotFound) {
            return None;
        }
        let is_running = "is a server running there?";
        if let Some(path) = &self.socket {
            return Some(format!("{is_running} Start one with: pba serve --socket {path}"));
        }
        // A proxy in front of a server, as for TLS or a prefix, is not started by the command.
        let is_bare = self.base.scheme() == "http" && self.base.path() == "/";
        let host = self.base.host_str()?;
        let is_served_by_default = is_bare && ["localhost", "127.0.0.1"].contains(&host);
        let port = self.base.port_or_known_default()?;
        Some(match (is_served_by_default, port) {
            (false, _) => is_running.to_owned(),
            (true, 8080) => format!("{is_running} Start one with: pba serve"),
            (true, port) => format!("{is_running} Start one with: pba serve --listen 127.0.0.1:{port}"),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(path) => write!(f, "unix:{path}"),
            None => f.write_str(self.base.as_str().trim_end_matches('/')),
        }
    }
}

/// Every cause of an error, the outermost first, including the source of a [`std::io::Error`].
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        inside.map(|inside| inside as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).filter_map(|error| error.downcast_ref()).last()
}

/// The innermost cause is the most specific: `connection refused` rather than `error sending request`.
pub(crate) fn cause(error: &(dyn Error + 'static)) -> String {
    causes(error).last().expect("an error is its own first cause").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(segment("../a b?"), "..%2Fa%20b%3F");
    }

    #[test]
    fn urls_are_read_and_shown() {
        for (text, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("localhost:8080/prefix/", "http://localhost:8080/prefix"),
            ("https://pba.example", "https://pba.example"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("http://host/a.sock", "http://host/a.sock"),
            ("unix:/run/pba.sock", "unix:/run/pba.sock"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_with_what_is() {
        for (text, says) in [
            ("ftp://host", "does not speak ftp"),
            ("", "empty host"),
            ("http://", "empty host"),
            ("ftp:///prefix", "does not speak ftp"),
            ("HTTP:/host", "HTTP is not followed by ://"),
            ("http//host", "http is not followed by ://"),
            ("http;//host", "http is not followed by ://"),
            ("http://host\\x", "it holds a backslash"),
            ("http://host\u{200b}:80", "a space or a control character"),
            ("http://[::1]x:80", "invalid IPv6 address"),
            ("http:///prefix", "it names no host"),
            ("19201", "it is a number; is 127.0.0.1:19201 meant?"),
            ("http:/host", "http is not followed by ://"),
            ("htp:/host", "it names no port"),
            ("host:", "it names no port"),
            ("host/a b", "a space or a control character"),
            ("unix:", "it names no path"),
            ("/run/pba.sock", "write unix:/run/pba.sock"),
            ("pba.sock", "write unix:pba.sock"),
            ("http://host?x=1", "more than host, port and path"),
            ("http://user:secret@host", "more than host, port and path"),
            ("http://user:4/secret@host", "more than host, port and path"),
            ("localhost:eighty", "invalid port number"),
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("secret"), "{error}");
            assert!(error.contains("expected http://HOST:PORT, https://HOST:PORT or unix:PATH"), "{error}");
        }
    }
}
