//! The population search, pure.
