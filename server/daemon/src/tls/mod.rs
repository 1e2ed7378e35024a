//! TLS at the server's port: the certificate and its key ([`files`]), which are read again when they change
//! ([`reload`]), and the sockets of its connections ([`socket`]).

pub(crate) mod files;
pub(crate) mod reload;
pub(crate) mod socket;
