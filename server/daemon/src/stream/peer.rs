//! The other end of a connection, as people are told of it.

use std::fmt;
use std::net::SocketAddr;

use pba_wire::streams::Transport;

use crate::stream::client::Client;

/// Who is connected, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) client: Client,
    pub(crate) transport: Transport,
    /// Over TCP.
    address: Option<SocketAddr>,
}

impl Peer {
    /// One that is connected over TCP, encrypted or not.
    pub(crate) fn at(address: SocketAddr, transport: Transport) -> Peer {
        Peer { client: Client::at(address.ip()), transport, address: Some(address) }
    }

    /// A client on the Unix socket.
    pub(crate) fn local(client: Client) -> Peer {
        Peer { client, transport: Transport::Unix, address: None }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.client) {
            (Some(address), _) => address.fmt(f),
            (None, client) => client.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_told_by_its_address_or_its_process() {
        let check = |peer: Peer, expected: &str| assert_eq!(peer.to_string(), expected);
        check(Peer::at("192.0.2.1:4711".parse().unwrap(), Transport::Tcp), "192.0.2.1:4711");
        check(Peer::at("[2001:db8::1]:80".parse().unwrap(), Transport::Tls), "[2001:db8::1]:80");
        check(Peer::local(Client::Process { user: 1000, process: 42 }), "user 1000, process 42");
    }
}
