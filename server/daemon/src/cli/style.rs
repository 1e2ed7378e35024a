//! The colours of what is printed, and whether there are any.

use std::fmt::Display;
use std::io::{stderr, stdout};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use clap::ColorChoice;
use pba_wire::jobs::JobState;

/// What went wrong.
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
/// What may not be as it was meant.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// What else is worth knowing.
pub(crate) const NOTE: Style = AnsiColor::Cyan.on_default().bold();
/// The heads of columns.
pub(crate) const HEAD: Style = Style::new().bold();

/// What stands beside the matter.
pub(crate) const DIM: Style = Style::new().dimmed();

/// A stream of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

/// When colours are used from now on. `Auto` is in a terminal, unless `NO_COLOR` is set or the terminal is
/// dumb: where `CI` is set, the library takes a dumb one for one that has colours.
pub(crate) fn choose(color: ColorChoice) {
    match color {
        ColorChoice::Auto if std::env::var_os("TERM").is_some_and(|term| term == "dumb") => {
            anstream::ColorChoice::Never
        }
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::AlwaysAnsi,
        ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Whether what is printed there is coloured.
pub(crate) fn is_colored(stream: Stream) -> bool {
    let choice = match stream {
        Stream::Out => AutoStream::choice(&stdout()),
        Stream::Error => AutoStream::choice(&stderr()),
    };
    choice != anstream::ColorChoice::Never
}

/// A text as it is printed there.
pub(crate) fn painted(stream: Stream, style: Style, text: impl Display) -> String {
    match is_colored(stream) {
        true => format!("{style}{text}{style:#}"),
        false => text.to_string(),
    }
}

/// The colour of a state.
pub(crate) fn of_state(state: JobState) -> Style {
    match state {
        JobState::Queued => Style::new().dimmed(),
        JobState::Running => AnsiColor::Cyan.on_default(),
        JobState::Done => AnsiColor::Green.on_default(),
        JobState::Failed => AnsiColor::Red.on_default(),
        JobState::Cancelled => AnsiColor::Yellow.on_default(),
    }
}
