//! Who asks: what is shared out fairly is shared out among clients.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A client, as far as the connection tells: many connections of one machine are one client.
///
/// Behind a proxy, all of its clients are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// Over TCP, by its address; of IPv6 by its network of 64 bits, in which a client may choose any address.
    Address(IpAddr),
    /// On the Unix socket, a process by its user and its number.
    Process { user: u32, process: i32 },
    /// The system does not tell.
    Unknown,
}

impl Client {
    /// The client at an address.
    pub(crate) fn at(address: IpAddr) -> Client {
        Client::Address(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address => address,
        })
    }
}

/// As people are told of it.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Client::Address(address) => address.fmt(f),
            Client::Process { user, process } => write!(f, "user {user}, process {process}"),
            Client::Unknown => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_client_and_an_address_of_ipv4_is_one() {
        let at = |text: &str| Client::at(text.parse().unwrap());
        assert_eq!(at("2001:db8:1:2::3"), at("2001:db8:1:2:ffff::4"));
        assert_ne!(at("2001:db8:1:2::3"), at("2001:db8:1:3::3"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.2"), at("192.0.2.1"));
    }
}
