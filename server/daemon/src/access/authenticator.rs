//! Finds out who sent a request.

use std::sync::{Arc, RwLock};

use crate::access::identity::Identity;
use crate::access::socket_role::SocketRole;
use crate::access::tokens::Tokens;
use crate::sync;

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No token was sent.
    Missing,
    /// What was sent is no token of this server, or none any more.
    Unknown,
}

/// Finds out who sent a request, by the tokens that are let in now.
pub(crate) struct Authenticator {
    /// Replaced as a whole, so that a request sees the old ones or the new ones.
    tokens: RwLock<Arc<Tokens>>,
    /// Whether tokens are configured: then one is needed, even if all were revoked.
    is_needed: bool,
    socket_role: SocketRole,
}

impl Authenticator {
    pub(crate) fn new(tokens: Tokens, is_needed: bool, socket_role: SocketRole) -> Authenticator {
        Authenticator { tokens: RwLock::new(Arc::new(tokens)), is_needed, socket_role }
    }

    /// The tokens that are let in now.
    pub(crate) fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&sync::read(&self.tokens))
    }

    /// Lets in the holders of these tokens, and no others any more.
    pub(crate) fn replace(&self, tokens: Tokens) {
        *sync::write(&self.tokens) = Arc::new(tokens);
    }

    /// Whether a client has to send a token over TCP.
    pub(crate) fn is_needed(&self) -> bool {
        self.is_needed
    }

    /// Who presents a token.
    pub(crate) fn holder(&self, presented: &[u8]) -> Option<Identity> {
        self.tokens().find(presented).map(Arc::clone).map(Identity::of)
    }

    /// Who sent a request with a token or without one, on the Unix socket or over TCP. Where no tokens are configured,
    /// one that is sent means nothing: a proxy may have wanted it.
    ///
    /// # Errors
    /// When a token is needed, and none that is let in was sent.
    pub(crate) fn identify(&self, presented: Option<&[u8]>, is_local: bool) -> Result<Identity, Refusal> {
        match (presented, self.socket_role) {
            (Some(presented), _) if self.is_needed => self.holder(presented).ok_or(Refusal::Unknown),
            (_, SocketRole::Role(role)) if is_local => Ok(Identity::of_socket(role)),
            _ if self.is_needed => Err(Refusal::Missing),
            _ => Ok(Identity::anyone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use pba_wire::Role;

    use super::*;
    use crate::access::secret::Hash;

    const TOKEN: &[u8] = b"pba_right";

    fn tokens() -> Tokens {
        let hash = Hash::of(TOKEN);
        Tokens::parse(&format!("[[tokens]]\nname = \"a\"\nrole = \"researcher\"\nsha256 = \"{hash}\""))
            .unwrap()
    }

    #[test]
    fn who_is_not_known_is_not_let_in() {
        let authenticator = Authenticator::new(tokens(), true, SocketRole::default());
        let role =
            |presented, is_local| authenticator.identify(presented, is_local).map(|found| found.role());
        assert_eq!(role(Some(TOKEN), false), Ok(Some(Role::Researcher)));
        assert_eq!(role(Some(b"pba_wrong"), false), Err(Refusal::Unknown));
        assert_eq!(role(Some(b""), false), Err(Refusal::Unknown));
        assert_eq!(role(None, false), Err(Refusal::Missing));
        // The socket's file says who may use it; a client that presents a token is its holder there as well.
        assert_eq!(role(None, true), Ok(Some(Role::Admin)));
        assert_eq!(role(Some(TOKEN), true), Ok(Some(Role::Researcher)));
        assert_eq!(role(Some(b"pba_wrong"), true), Err(Refusal::Unknown));
        authenticator.replace(Tokens::default());
        assert_eq!(role(Some(TOKEN), false), Err(Refusal::Unknown));
        assert_eq!(role(None, false), Err(Refusal::Missing));
    }

    #[test]
    fn the_socket_has_the_role_that_is_set() {
        let role = |socket_role: &str, presented| {
            let authenticator = Authenticator::new(tokens(), true, socket_role.parse().unwrap());
            authenticator.identify(presented, true).map(|found| found.role())
        };
        assert_eq!(role("reader", None), Ok(Some(Role::Reader)));
        assert_eq!(role("token", None), Err(Refusal::Missing));
        assert_eq!(role("token", Some(TOKEN)), Ok(Some(Role::Researcher)));
        let error = "boss".parse::<SocketRole>().unwrap_err();
        assert_eq!(error, "\"boss\" is not a role; allowed are reader, researcher, admin, token");
    }

    #[test]
    fn without_tokens_every_client_may_do_everything() {
        let authenticator = Authenticator::new(Tokens::default(), false, SocketRole::default());
        for presented in [None, Some(TOKEN)] {
            let found = authenticator.identify(presented, false).unwrap();
            assert!(found.may(Role::Admin) && found.name().is_none() && found.role().is_none());
        }
    }
}
