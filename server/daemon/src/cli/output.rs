//! What commands print on standard output.

use std::io::Write;

use serde_json::Value;

/// Prints a line; a reader that left, as `head` does, ends the command quietly.
pub fn line(text: impl std::fmt::Display) {
    bytes(format!("{text}\n").as_bytes());
}

/// Prints bytes as they are.
pub fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints JSON.
pub fn json(value: &Value) {
    line(serde_json::to_string_pretty(value).expect("a value is JSON"));
}

/// Prints rows under a head, in columns.
pub fn table(head: &[&str], rows: &[Vec<String>]) {
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
