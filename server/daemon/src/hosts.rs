//! Names of hosts, as they stand in requests and in the configuration.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use axum::http::uri::Authority;
use serde::{Deserialize, Serialize};

/// Names of hosts; one that starts with a dot means every name that ends with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub(crate) struct Hosts(Vec<String>);

impl FromStr for Hosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Hosts, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        Ok(Hosts(names.map(str::to_owned).collect()))
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl Hosts {
    /// These names in the form in which they are compared.
    ///
    /// # Errors
    /// When one is not the name or address of a host.
    pub(crate) fn checked(self) -> anyhow::Result<Hosts> {
        let checked = self.0.iter().map(|name| match Host::named(name.strip_prefix('.').unwrap_or(name)) {
            Some(Host::Name(host)) if name.starts_with('.') => Ok(format!(".{host}")),
            Some(host) if !name.starts_with('.') => Ok(host.to_string()),
            _ => Err(anyhow::anyhow!(
                "hosts: {name:?} is not the name of a host; expected one without scheme and port, as \
                 pba.example.org, or the end of names, as .svc.cluster.local"
            )),
        });
        checked.collect::<Result<_, _>>().map(Hosts)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is among them.
    pub(crate) fn has(&self, host: &Host) -> bool {
        let host = host.to_string();
        self.0.iter().any(|listed| match listed.strip_prefix('.') {
            Some(_) => host.ends_with(listed.as_str()),
            None => host == *listed,
        })
    }
}

/// A host in a form of which there is one only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Address(IpAddr),
    /// In lower case, without the dot of the root.
    Name(String),
}

impl Host {
    fn named(text: &str) -> Option<Host> {
        let address = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = address.parse::<IpAddr>() {
            return Some(Host::Address(address.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let is_part = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        name.split('.').all(is_part).then_some(Host::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(address) => address.fmt(f),
            Host::Name(name) => name.fmt(f),
        }
    }
}

/// A host with its port, if that is said.
pub(crate) fn host_and_port(authority: &str) -> Option<(Host, Option<u16>)> {
    let authority: Authority = authority.parse().ok()?;
    // A name of a user in front of the host is never sent, and misleads.
    if authority.as_str().contains('@') {
        return None;
    }
    let has_port = authority.as_str().rsplit(']').next().is_some_and(|rest| rest.contains(':'));
    let port = authority.port_u16();
    if has_port != port.is_some() {
        return None;
    }
    Some((Host::named(authority.host())?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_names_are_refused() {
        for name in ["http://a", "a:80", "a/b", ".", "", "a..b", "*.example.org", "ä"] {
            assert!(Hosts(vec![name.to_owned()]).checked().is_err(), "{name}");
        }
    }
}
