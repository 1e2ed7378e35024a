//! The exit codes of commands; the README lists them. Clap's own for a wrong command line is 2.

/// A command failed.
pub(crate) const FAILURE: i32 = 1;
/// The command line is wrong.
pub(crate) const USAGE: i32 = 2;
/// Ctrl-C ended a command.
pub(crate) const INTERRUPTED: i32 = 130;
