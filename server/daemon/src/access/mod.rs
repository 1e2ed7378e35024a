//! Who asks, and what they may do: bearer tokens with roles.
//!
//! A token is 256 random bits as text ([`secret`]). The configuration holds only its hash ([`tokens`]), and the
//! [`authenticator`] finds whose token a request has, in a time that does not depend on which one it is, or whether it
//! is any. What comes of that is an [`Identity`]. `http::authentication` knows where a token stands in a request, and
//! `http` which role each route needs. [`reload`] replaces the tokens of a file that changes, and tells the log which are
//! other than before ([`changes`]).
//!
//! Without tokens in the configuration, every client may do everything, as on one's own machine.

pub(crate) mod authenticator;
pub(crate) mod changes;
pub(crate) mod identity;
pub(crate) mod reload;
pub(crate) mod secret;
pub(crate) mod socket_role;
pub(crate) mod tokens;

pub(crate) use identity::Identity;
