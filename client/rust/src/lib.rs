//! Client of the PBA server.
