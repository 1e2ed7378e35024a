//! What commands print on standard output.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::log::last_words;

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
    last_words(format_args!("cannot write to standard output: {error}"));
    std::process::exit(1);
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

/// Prints rows under a header, in columns.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([head[column].len()])
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let print = |cells: Vec<String>| {
        let cells = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        line(cells.collect::<Vec<_>>().join("  ").trim_end());
    };
    print(head.iter().map(ToString::to_string).collect());
    for row in rows {
        print(row.clone());
    }
}
