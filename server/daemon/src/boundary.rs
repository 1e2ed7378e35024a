//! For whom a request is, and on whose behalf it comes.
//!
//! A server on loopback can be reached by every program of its machine, and a browser is a program that runs
//! those of strangers. Any page can have it send simple requests anywhere (forms, pictures, `fetch` without
//! reading the answer), and a page whose own name is made to mean 127.0.0.1 (DNS rebinding) can read the
//! answers as well. Both give themselves away:
//!
//! - A page that was rebound sends its own name as `Host`. So the host must be one that this server has. An
//!   address in `Host` was not looked up anywhere, so its meaning cannot have been changed; on loopback the
//!   only addresses that lead here are those of loopback all the same. Of a server that others can reach,
//!   we cannot know all addresses and names: every address passes, and every name without a dot, as those of
//!   machines, containers and services are, because public DNS has none. All else is to be listed (`hosts`).
//!   Ports are not compared: tunnels and containers change them, and a page cannot gain anything by one.
//! - A page of another origin has the browser say so: in `Origin`, with everything but plain GET, and in
//!   `Sec-Fetch-Site`, with everything that it sends to loopback or by `https://`; without, a plain GET passes,
//!   whose answer the page cannot read. The origin must be the host that was asked, with its port, or be
//!   listed. Following a link to this server is everybody's right.
//!
//! A port that speaks TLS has pages of `https://` only: one of `http://` was not sent by this server, whatever its host
//! and port.
//!
//! Programs that are no browsers send neither. What comes through the Unix socket was sent by one who may open
//! a file here, which no page can; only a proxy in front of it has to be told apart, by `Origin`.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Method, Uri, Version};

use crate::error::{Cause, Error};
use crate::hosts::{Host, Hosts, host_and_port};
use crate::stream::shared_memory_stream::Local;

/// The hosts that this server is, and the pages that may ask it.
#[derive(Clone, Debug)]
pub(crate) struct Boundary {
    /// Without one, all comes through the Unix socket.
    listen: Option<IpAddr>,
    hosts: Hosts,
    /// Whether its port speaks TLS.
    speaks_tls: bool,
}

/// Marks a request that came to the address for metrics, which anyone may ask on anyone's behalf.
#[derive(Clone, Copy)]
pub(crate) struct MetricsPort;

impl Boundary {
    /// The boundary of a server that listens on an address or on none, and has further names.
    pub(crate) fn new(listen: Option<SocketAddr>, hosts: Hosts) -> Boundary {
        let listen = listen.map(|address| address.ip().to_canonical());
        Boundary { listen, hosts, speaks_tls: false }
    }

    /// The same of a server whose port speaks TLS, if it does.
    pub(crate) fn with_tls(self, speaks_tls: bool) -> Boundary {
        Boundary { speaks_tls, ..self }
    }

    /// Refuses what is meant for another host, and what another page had a browser send.
    ///
    /// # Errors
    /// When it is, or the request does not say for which host it is.
    pub(crate) fn check(&self, request: &Request) -> Result<(), Error> {
        if request.extensions().get::<MetricsPort>().is_some() {
            return Ok(());
        }
        let headers = request.headers();
        let is_local = request.extensions().get::<Local>().is_some();
        let named = self.host(headers, request.uri(), request.version(), is_local)?;
        let is_https = self.speaks_tls && !is_local;
        self.check_page(headers, request.method(), named, is_https)
    }

    /// The host that is asked, with its port.
    fn host(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        version: Version,
        is_local: bool,
    ) -> Result<Option<(Host, Option<u16>)>, Error> {
        let wrong = |value: &str, reason: &str| {
            Error::parameter("Host", value, reason, "one host, with a port or without")
        };
        let mut values = headers.get_all(HOST).iter();
        let (value, others) = (values.next(), values.count());
        if others > 0 {
            let value = value.map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
            return Err(wrong(&value, "given more than once"));
        }
        let text = value.map(|value| value.to_str().unwrap_or_default());
        let read = |text: &str| host_and_port(text).ok_or_else(|| wrong(text, "not a host"));
        let header = match text {
            // A path is no host, and its clients may say anything.
            text if is_local => text.and_then(host_and_port),
            Some(text) => Some(read(text)?),
            // Only old health checks and scripts speak HTTP/1.0, which has no hosts; no browser does.
            None if version < Version::HTTP_11 => None,
            None => return Err(wrong("", "not given")),
        };
        // A whole URL as the target overrides the header, so it must name a host of ours as well.
        let target = uri.authority().map(|authority| read(authority.as_str())).transpose()?;
        for (host, _) in [&header, &target].into_iter().flatten() {
            if !is_local && !self.serves(host) {
                let detail = format!(
                    "this server is not {:?}; it answers to {}. If it shall have this name, list it with --hosts or \
                     PBA_HOSTS, or as hosts in pba.toml",
                    host.to_string(),
                    self.names()
                );
                return Err(Error {
                    parameter: Some("Host".to_owned()),
                    value: Some(host.to_string()),
                    allowed: Some(self.names()),
                    ..Error::new(Cause::Forbidden, detail)
                });
            }
        }
        Ok(target.or(header))
    }

    /// Whether a host is this server.
    fn serves(&self, host: &Host) -> bool {
        let can_be_reached = self.can_be_reached();
        let known = match host {
            Host::Address(address) => {
                address.is_loopback() || Some(*address) == self.listen || can_be_reached
            }
            Host::Name(name) => {
                name == "localhost" || name.ends_with(".localhost") || (can_be_reached && !name.contains('.'))
            }
        };
        known || self.hosts.has(host)
    }

    /// Whether other machines can reach it.
    fn can_be_reached(&self) -> bool {
        self.listen.is_some_and(|address| !address.is_loopback())
    }

    /// The hosts that this server is, for people.
    fn names(&self) -> String {
        let known = match self.can_be_reached() {
            false => "localhost and addresses of loopback",
            true => "addresses, localhost and names without a dot",
        };
        if self.hosts.is_empty() { known.to_owned() } else { format!("{known}, {}", self.hosts) }
    }

    /// Refuses what a page of another origin had a browser send.
    fn check_page(
        &self,
        headers: &HeaderMap,
        method: &Method,
        asked: Option<(Host, Option<u16>)>,
        is_https: bool,
    ) -> Result<(), Error> {
        let says = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let refusal = |parameter: &str, value: &str, reason: &str| Error {
            parameter: Some(parameter.to_owned()),
            value: Some(value.to_owned()),
            allowed: Some("this server's own pages, and those of hosts".to_owned()),
            ..Error::new(
                Cause::Forbidden,
                format!(
                    "{parameter}: {value:?}: {reason}; a page that shall be allowed to is listed by its host, with \
                     --hosts or PBA_HOSTS, or as hosts in pba.toml"
                ),
            )
        };
        if let Some(origin) = says(ORIGIN.as_str()) {
            let page = origin.split_once("://").and_then(|(scheme, rest)| {
                let (host, port) = host_and_port(rest)?;
                Some((host, port.or(Some(default_port(scheme)?)), scheme.to_owned()))
            });
            let is_ours = headers.get_all(ORIGIN).iter().count() == 1
                && page.is_some_and(|(host, port, scheme)| {
                    self.hosts.has(&host)
                        || asked.is_some_and(|(asked, its_port)| {
                            asked == host
                                && (!is_https || scheme == "https")
                                && its_port.or(default_port(&scheme)) == port
                        })
                });
            return match is_ours {
                true => Ok(()),
                false => Err(refusal("Origin", &origin, "pages of another origin may not ask this server")),
            };
        }
        match says("sec-fetch-site").as_deref() {
            None | Some("same-origin" | "none") => Ok(()),
            Some(site) => {
                let is_link = [Method::GET, Method::HEAD].contains(method)
                    && says("sec-fetch-mode").as_deref() == Some("navigate")
                    && says("sec-fetch-dest").as_deref() == Some("document");
                let reason = "pages of another origin may only link to this server";
                if is_link { Ok(()) } else { Err(refusal("Sec-Fetch-Site", site, reason)) }
            }
        }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn boundary(listen: &str, hosts: &str) -> Boundary {
        let hosts = hosts.parse::<Hosts>().unwrap().checked().unwrap();
        Boundary::new(Some(format!("{listen}:8080").parse().unwrap()), hosts)
    }

    #[track_caller]
    fn check(boundary: &Boundary, method: &str, headers: &[(&str, &str)], allowed: bool) {
        let request = Request::builder().method(method).uri("/v1/searches");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let checked = boundary.check(&request.body(Body::empty()).unwrap());
        assert_eq!(checked.is_ok(), allowed, "{headers:?}: {checked:?}");
    }

    #[test]
    fn hosts_of_a_server_on_loopback() {
        let boundary = boundary("127.0.0.1", "pba.example.org,.cluster.local");
        for host in [
            "localhost",
            "localhost:1",
            "LocalHost.",
            "pba.localhost",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
            "pba.example.org",
            "PBA.example.org:443",
            "a.b.cluster.local",
        ] {
            check(&boundary, "GET", &[("host", host)], true);
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "box",
            "notlocalhost",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "x.pba.example.org",
            "cluster.local",
            "",
            ":8080",
            "localhost:",
            "localhost:x",
            "localhost:99999",
            "evil@localhost",
            "localhost@evil",
            "local host",
            "localhost,evil",
            "127.0.0.1/",
            "::1",
        ] {
            check(&boundary, "GET", &[("host", host)], false);
        }
        check(&boundary, "GET", &[], false);
        check(&boundary, "GET", &[("host", "localhost"), ("host", "localhost")], false);
    }

    #[test]
    fn hosts_of_a_server_that_others_can_reach() {
        for listen in ["0.0.0.0", "10.0.0.1", "[::]"] {
            let boundary = boundary(listen, "pba.default.svc");
            for host in
                ["10.0.0.1:8080", "0.0.0.0", "[fe80::1]", "pba", "gpu-box:80", "localhost", "pba.default.svc"]
            {
                check(&boundary, "GET", &[("host", host)], true);
            }
            for host in ["evil.example", "pba.default"] {
                check(&boundary, "GET", &[("host", host)], false);
            }
        }
    }

    #[test]
    fn pages_of_other_origins_only_link() {
        let boundary = boundary("127.0.0.1", "pba.example.org");
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let check = |headers: &[(&str, &str)], allowed| {
                check(&boundary, method, &[&[("host", "localhost:8080")], headers].concat(), allowed);
            };
            check(&[], true);
            check(&[("origin", "http://localhost:8080")], true);
            check(&[("origin", "https://pba.example.org")], true);
            check(&[("origin", "https://pba.example.org:8443"), ("sec-fetch-site", "cross-site")], true);
            check(&[("sec-fetch-site", "same-origin")], true);
            check(&[("sec-fetch-site", "none")], true);
            for origin in [
                "null",
                "",
                "http://evil.example",
                "http://localhost",
                "http://localhost:3000",
                "http://127.0.0.1:8080",
                "https://localhost",
                "file://",
                "http://localhost:8080/path",
                "http://localhost:8080@evil.example",
                "moz-extension://localhost:1",
            ] {
                check(&[("origin", origin)], false);
            }
            check(&[("origin", "http://localhost:8080"), ("origin", "http://evil.example")], false);
            for site in ["cross-site", "same-site", "new-word"] {
                check(&[("sec-fetch-site", site)], false);
                let navigation = [("sec-fetch-site", site), ("sec-fetch-mode", "navigate")];
                let to = |dest| [&navigation[..], &[("sec-fetch-dest", dest)]].concat();
                check(&to("document"), method == "GET");
                check(&to("iframe"), false);
            }
        }
        // Without ports both mean the scheme's.
        check(&boundary, "POST", &[("host", "localhost"), ("origin", "http://localhost:80")], true);
        check(&boundary, "POST", &[("host", "localhost:80"), ("origin", "http://localhost")], true);
    }

    #[test]
    fn a_port_of_tls_has_pages_of_https() {
        for (listen, allowed) in [(false, true), (true, false)] {
            let boundary = boundary("127.0.0.1", "pba.example.org").with_tls(listen);
            check(
                &boundary,
                "POST",
                &[("host", "localhost:8080"), ("origin", "https://localhost:8080")],
                true,
            );
            check(
                &boundary,
                "POST",
                &[("host", "localhost:8080"), ("origin", "http://localhost:8080")],
                allowed,
            );
            check(&boundary, "POST", &[("host", "localhost"), ("origin", "https://localhost:443")], true);
            check(&boundary, "POST", &[("host", "localhost:443"), ("origin", "https://localhost")], true);
            check(&boundary, "POST", &[("host", "localhost"), ("origin", "https://evil.example")], false);
            // What is listed may be behind a proxy.
            check(&boundary, "POST", &[("host", "localhost"), ("origin", "http://pba.example.org")], true);
        }
    }

    #[test]
    fn who_asks_for_metrics_may_be_anyone() {
        let boundary = boundary("127.0.0.1", "");
        let request = Request::builder().uri("/metrics").header("host", "10.0.0.7:9090");
        let request = request.extension(MetricsPort).body(Body::empty()).unwrap();
        assert!(boundary.check(&request).is_ok());
    }

    #[test]
    fn a_whole_url_is_checked_too() {
        let boundary = boundary("127.0.0.1", "");
        for (uri, allowed) in
            [("http://localhost/", true), ("http://evil.example/", false), ("http://a@localhost/", false)]
        {
            let request =
                Request::builder().uri(uri).header("host", "localhost").body(Body::empty()).unwrap();
            assert_eq!(boundary.check(&request).is_ok(), allowed, "{uri}");
        }
    }

    #[test]
    fn who_comes_through_the_socket_is_here() {
        // Whether there is a port beside it or not.
        let boundaries = [boundary("127.0.0.1", ""), Boundary::new(None, Hosts::default())];
        let check = |headers: &[(&str, &str)], allowed: bool| {
            let request = headers
                .iter()
                .fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
            let request = request.extension(Local).body(Body::empty()).unwrap();
            for boundary in &boundaries {
                assert_eq!(boundary.check(&request).is_ok(), allowed, "{headers:?}: {boundary:?}");
            }
        };
        check(&[], true);
        check(&[("host", "anything.example")], true);
        check(&[("host", "pba.example.org"), ("origin", "http://pba.example.org")], true);
        check(&[("host", "localhost"), ("origin", "http://evil.example")], false);
    }
}
