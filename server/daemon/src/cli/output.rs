//! What commands print on standard output.

use std::io::{ErrorKind, IsTerminal, Write};

use serde::Serialize;
use terminal_size::terminal_size_of;

use crate::cli::options::{is_json, is_quiet};
use crate::cli::style::{self, Stream};
use crate::cli::table::{self, Aligned, Cell, Column, Layout};
use crate::cli::{exit, failure};

/// Prints a line, as [`bytes`] does.
pub(crate) fn line(text: impl std::fmt::Display) {
    bytes(format!("{text}\n").as_bytes());
}

/// Prints bytes as they are. If the reader has left, as `head` does, the command ends quietly; any other
/// failure, such as a full disk, ends it with an error.
pub(crate) fn bytes(bytes: &[u8]) {
    if let Err(error) = write(bytes) {
        fail(&error);
    }
}

/// Prints a line of a server that serves already, and continues to serve if it cannot be printed.
pub(crate) fn notice(text: impl std::fmt::Display) {
    if let Err(error) = write(format!("{text}\n").as_bytes()) {
        tracing::warn!(%error, "standard output cannot be written to: {text}");
    }
}

/// Prints one of the first lines of a server, which continues to serve when their reader has left.
pub(crate) fn announcement(text: impl std::fmt::Display) {
    match write(format!("{text}\n").as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            tracing::warn!("standard output has no reader: {text}");
        }
        Err(error) => fail(&error),
        Ok(()) => {}
    }
}

/// Ends the command because standard output cannot be written to.
pub(crate) fn fail(error: &std::io::Error) -> ! {
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    failure::report(&anyhow::anyhow!("cannot write to standard output: {error}"));
    std::process::exit(exit::FAILURE);
}

fn write(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Prints JSON.
pub(crate) fn json(value: &impl Serialize) {
    line(serde_json::to_string_pretty(value).expect("a value is JSON"));
}

/// Prints a table of a report under its head, in aligned columns. Nothing is cut.
pub(crate) fn table<C: Clone + Into<Cell>>(head: &[&'static str], rows: &[Vec<C>]) {
    let rows: Vec<Vec<Cell>> = rows.iter().map(|row| row.iter().cloned().map(Into::into).collect()).collect();
    let layout = Layout { width: None, has_colors: style::is_colored(Stream::Out) };
    table::aligned(&Column::in_order(head), &rows, style::HEAD, layout).lines.iter().for_each(line);
}

/// Prints a list: in a terminal under a head, in columns that fit its width, and below them which ones were left out;
/// elsewhere a line for each row, with tabs between its cells, without a head, and with nothing cut.
pub(crate) fn list(columns: &[Column], rows: &[Vec<Cell>]) {
    if !is_terminal() {
        return table::tabbed(rows).iter().for_each(line);
    }
    if rows.is_empty() {
        return line("there are none");
    }
    let width = terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
    let layout = Layout { width, has_colors: style::is_colored(Stream::Out) };
    let Aligned { lines, left_out } = table::aligned(columns, rows, style::HEAD, layout);
    lines.iter().for_each(line);
    if !left_out.is_empty() {
        let told = format!("left out: {}; --json has all", left_out.join(", "));
        progress(style::painted(Stream::Out, style::DIM, told));
    }
}

/// Whether standard output is a terminal, and what is printed there is for people.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Prints a line about what goes on, unless only results are wanted.
pub(crate) fn progress(text: impl std::fmt::Display) {
    if !is_quiet() {
        line(text);
    }
}

/// Prints what else is worth knowing of a result, unless only results are wanted.
pub(crate) fn note(text: impl std::fmt::Display) {
    progress(format_args!("{} {text}", style::painted(Stream::Out, style::NOTE, "note:")));
}

/// Warns on standard error of what may not be as it was meant, unless only results and errors are wanted. A document
/// in JSON has its warnings itself.
pub(crate) fn warning(text: impl std::fmt::Display) {
    if !is_quiet() && !is_json() {
        let mark = style::painted(Stream::Error, style::WARNING, "warning:");
        // If standard error is closed, there is nobody to warn.
        let _ = writeln!(std::io::stderr(), "{mark} {text}");
    }
}
