//! Who sent a request.

use std::sync::Arc;

use pba_wire::Role;

use crate::access::tokens::Token;

/// Who sent a request. Each request that is let in has one among its extensions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    token: Option<Arc<Token>>,
    /// None where every client may do everything, because no tokens are configured.
    role: Option<Role>,
    is_stranger: bool,
}

impl Identity {
    /// The holder of a token.
    pub(crate) fn of(token: Arc<Token>) -> Identity {
        Identity { role: Some(token.role), token: Some(token), is_stranger: false }
    }

    /// A client on the Unix socket that sent no token.
    pub(crate) fn of_socket(role: Role) -> Identity {
        Identity { token: None, role: Some(role), is_stranger: false }
    }

    /// Any client, where no tokens are configured.
    pub(crate) fn anyone() -> Identity {
        Identity::default()
    }

    /// A client that is not known, and asks what needs no token.
    pub(crate) fn stranger() -> Identity {
        Identity { token: None, role: None, is_stranger: true }
    }

    /// The name of the token.
    pub(crate) fn name(&self) -> Option<&str> {
        self.token.as_deref().map(|token| token.name.as_str())
    }

    /// The role, unless no tokens are configured.
    pub(crate) fn role(&self) -> Option<Role> {
        self.role
    }

    /// The token, if one was sent.
    pub(crate) fn token(&self) -> Option<&Token> {
        self.token.as_deref()
    }

    /// Whether what needs a role may be done.
    pub(crate) fn may(&self, needed: Role) -> bool {
        !self.is_stranger && self.role.is_none_or(|role| role >= needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_may_what_those_before_it_may() {
        let may = |identity: &Identity| Role::ALL.map(|role| identity.may(role));
        assert_eq!(may(&Identity::of_socket(Role::Reader)), [true, false, false]);
        assert_eq!(may(&Identity::of_socket(Role::Researcher)), [true, true, false]);
        assert_eq!(may(&Identity::of_socket(Role::Admin)), [true; 3]);
        assert_eq!(may(&Identity::anyone()), [true; 3]);
        assert_eq!(may(&Identity::stranger()), [false; 3]);
    }
}
