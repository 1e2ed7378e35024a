//! What a client on the Unix socket may do without a token.

use std::fmt;
use std::str::FromStr;

use pba_wire::Role;
use serde::{Deserialize, Serialize};

/// In place of a role: a token has to be sent.
const TOKEN: &str = "token";

/// What a client on the Unix socket may do without a token. The mode of the socket's file says who such a client may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum SocketRole {
    /// As much as the holder of a token of this role.
    Role(Role),
    /// Nothing: a token has to be sent, as over TCP.
    Token,
}

impl Default for SocketRole {
    fn default() -> SocketRole {
        SocketRole::Role(Role::Admin)
    }
}

impl fmt::Display for SocketRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketRole::Role(role) => role.fmt(f),
            SocketRole::Token => f.write_str(TOKEN),
        }
    }
}

impl FromStr for SocketRole {
    type Err = String;

    fn from_str(text: &str) -> Result<SocketRole, String> {
        match text {
            TOKEN => Ok(SocketRole::Token),
            _ => text.parse().map(SocketRole::Role).map_err(|error| format!("{error}, {TOKEN}")),
        }
    }
}

impl TryFrom<String> for SocketRole {
    type Error = String;

    fn try_from(text: String) -> Result<SocketRole, String> {
        text.parse()
    }
}

impl From<SocketRole> for String {
    fn from(role: SocketRole) -> String {
        role.to_string()
    }
}
