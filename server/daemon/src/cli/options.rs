//! What every command takes: how much it says, and in which colours.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{ArgAction, ColorChoice, ValueEnum};

use crate::cli::style;

/// Whether only results and errors are printed.
static IS_QUIET: AtomicBool = AtomicBool::new(false);
/// Whether results and errors are printed as JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// The flags of every command.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Print results and errors only: no progress, notes or warnings
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    quiet: bool,
    /// Log more: -v the requests to the server, -vv all that happens; wins over RUST_LOG
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    verbose: u8,
    /// When to use colours; auto is in a terminal, unless NO_COLOR is set
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true,
        help_heading = "Global options"
    )]
    color: ColorChoice,
}

impl Options {
    /// Has all that is printed from now on follow the flags.
    pub(crate) fn apply(self) {
        IS_QUIET.store(self.quiet, Ordering::Relaxed);
        style::choose(self.color);
    }

    /// The log filter that the flags ask for, as in `RUST_LOG`; none without flags.
    pub(crate) fn log_filter(self) -> Option<&'static str> {
        match (self.quiet, self.verbose) {
            (true, _) => Some("error"),
            (false, 0) => None,
            (false, 1) => Some("info,pba_client=debug,pba_server=debug"),
            // Of other crates no more than this: traces of HTTP show what is sent.
            (false, 2..) => Some("debug,pba_client=trace,pba_server=trace"),
        }
    }
}

/// What is known of a command line before it is parsed, so that an error in it is printed as was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Early {
    json: bool,
    color: ColorChoice,
}

impl Early {
    /// Looks through the arguments up to `--`.
    pub(crate) fn of(arguments: impl IntoIterator<Item = OsString>) -> Early {
        let mut early = Early { json: false, color: ColorChoice::Auto };
        let mut is_color = false;
        for argument in arguments.into_iter().take_while(|argument| argument != "--") {
            let argument = argument.to_string_lossy();
            let color = if is_color { Some(&*argument) } else { argument.strip_prefix("--color=") };
            if let Some(color) = color.and_then(|color| ColorChoice::from_str(color, false).ok()) {
                early.color = color;
            }
            early.json |= argument == "--json";
            is_color = argument == "--color";
        }
        early
    }

    /// Has all that is printed from now on follow what is known; gives the choice of colours.
    pub(crate) fn apply(&self) -> ColorChoice {
        IS_JSON.store(self.json, Ordering::Relaxed);
        style::choose(self.color);
        self.color
    }
}

/// Whether only results and errors are printed.
pub(crate) fn is_quiet() -> bool {
    IS_QUIET.load(Ordering::Relaxed)
}

/// Whether results and errors are printed as JSON.
pub(crate) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(arguments: &[&str], json: bool, color: ColorChoice) {
        assert_eq!(Early::of(arguments.iter().map(OsString::from)), Early { json, color });
    }

    #[test]
    fn what_errors_look_like_is_known_before_the_rest() {
        check(&["pba", "search", "list"], false, ColorChoice::Auto);
        check(&["pba", "search", "--json", "--lists"], true, ColorChoice::Auto);
        check(&["pba", "--color", "never", "search"], false, ColorChoice::Never);
        check(&["pba", "--color=always", "--json"], true, ColorChoice::Always);
        check(&["pba", "--color=sometimes"], false, ColorChoice::Auto);
        check(&["pba", "stream", "--", "--json", "--color=never"], false, ColorChoice::Auto);
    }
}
